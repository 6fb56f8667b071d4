"""The files of others, scored by their rules as written down here anew."""

import json

import pytest

from spct_jax.checkpoints import ModelKind
from spct_jax.data.comparison import Comparison
from spct_jax.evaluation.benchmarks.base import Answer, Item
from spct_jax.evaluation.recorded import Vote
from spct_jax.reporting import result_formats

GIVEN, SWAPPED = (0, 1), (1, 0)


def answer(id, best, given, swapped, subset="s", label=None):
    shown = Comparison(conversation=[{"role": "user", "content": f"q {id}"}], responses=["first", "second"], id=id)
    votes = Vote(given, order=GIVEN), Vote(swapped, order=SWAPPED)
    return Answer(Item(id, 2, best, subset, label, shown), votes)


ANSWERS = [
    answer("twice right", 0, (7, 3), (6, 2), label={"original_id": 5, "source": "mmlu-pro-law", "response_model": "m"}),
    answer("right, tied", 1, (3, 7), (4, 4)),
    answer("right, wrong", 1, (3, 9), (8, 2), subset="t"),
    answer("right, unread", 0, (3, 1), None, subset="t"),
    answer("unread", 0, None, None, subset="t"),
]


def flipped(decision):
    return {"A>B": "B>A", "B>A": "A>B"}.get(decision, decision)


def test_judgebench_counts_the_games(tmp_path):
    texts = {"twice right": {"samples": [{"order": [1, 0], "text": "second game"}, {"order": [0, 1], "text": "first game"}]}}
    result_formats.write(tmp_path, ANSWERS, "judge", lambda ids: texts.items())
    pairs = [json.loads(line) for line in (tmp_path / "judgebench.jsonl").read_text().splitlines()]
    won = []
    for pair in pairs:
        first, second = pair["judgments"]
        votes = [first["decision"], flipped(second["decision"])]
        won.append(sum((vote == pair["label"]) - (vote == flipped(pair["label"])) for vote in votes) > 0)
    assert won == [True, False, False, True, False]
    first = pairs[0]
    published = {"pair_id", "original_id", "source", "question", "response_model", "response_A", "response_B", "label"}
    assert published < first.keys() and first["label"] == "A>B" and first["source"] == "mmlu-pro-law"
    assert first["question"] == "q twice right" and first["response_B"] == "second"
    judgments = [game["judgment"] for game in first["judgments"]]
    assert [judgment["response"] for judgment in judgments] == ["first game", "second game"]
    # Scores are of the responses as shown.
    assert [judgment["scores"] for judgment in judgments] == [[7, 3], [2, 6]] and first["judgments"][1]["decision"] == "B>A"


def test_judgebench_counts_what_was_decided_and_what_was_not_played():
    item = Item("a", 2, 1, "s")
    decided = Answer(item, (Vote(decision="tie", order=GIVEN), Vote(decision=1, order=SWAPPED)))
    assert [game["decision"] for game in result_formats.judgebench(decided, "m", ("", ""))["judgments"]] == ["A=B", "A>B"]
    swapped = Answer(item, (Vote((3, 7), order=SWAPPED),))
    first, second = result_formats.judgebench(swapped, "m", ("", ""))["judgments"]
    assert first is None and second["decision"] == "A>B" and second["judgment"]["scores"] == [7, 3]


def test_rewardbench_averages_a_tie_as_a_half(tmp_path):
    names = result_formats.write(tmp_path, ANSWERS, "judge", lambda ids: ())
    assert names == ["rewardbench.json", "rewardbench_scores.json", "judgebench.jsonl"]
    summary = json.loads((tmp_path / "rewardbench.json").read_text())
    assert {name: summary.pop(name) for name in ("model", "model_type", "chat_template")}["model"] == "judge"
    # right twice; a tie and a win; 11 to 11; a win; nothing.
    assert summary == {"s": 1.0, "t": pytest.approx((0.5 + 1 + 0.5) / 3)}
    columns = json.loads((tmp_path / "rewardbench_scores.json").read_text())
    assert columns["results"] == [1, 1, 0.5, 1, 0.5] and columns["scores_chosen"] == [13, 11, 11, 3, None]
    assert columns["text_rejected"][0][-1] == {"role": "assistant", "content": "second"}
    assert {len(column) for column in columns.values() if isinstance(column, list)} == {5}


def test_a_scalar_reward_model_is_a_classifier_that_earns_nothing_for_a_tie(tmp_path):
    tied = [answer("won", 0, (7, 3), (7, 3)), answer("tied", 1, (3, 3), (3, 3))]
    for kind, named, results in ((None, "Generative RM", [1, 0.5]), (ModelKind.BTRM, "Seq. Classifier", [1, 0])):
        result_formats.write(tmp_path, tied, "judge", lambda ids: (), kind)
        summary, columns = (json.loads((tmp_path / name).read_text()) for name in result_formats.NAMES[:2])
        assert (summary["model_type"], columns["model_type"], columns["results"]) == (named, named, results)
        assert summary["s"] == sum(results) / 2


def test_what_is_no_pair_has_no_such_files(tmp_path):
    assert result_formats.write(tmp_path, [Answer(Item("a", 3, 0))], "judge", lambda ids: ()) == []
    assert list(tmp_path.iterdir()) == []
