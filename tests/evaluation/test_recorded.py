"""Recorded votes: read strictly, written back, voted."""

import json

import pytest

from spct_jax.errors import InputError
from spct_jax.evaluation import recorded
from spct_jax.evaluation.recorded import Recorded, Vote


def write(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_scores_decisions_and_all_that_may_stand_beside_them(tmp_path):
    path = write(
        tmp_path / "scores.jsonl",
        {"id": "a", "scores": [[7, 3.5], None], "orders": [[0, 1], [1, 0]], "meta": [0.5, None], "truncated": [False, True]},
        {"id": 7, "decision": [1, "tie", None], "subset": "Chat", "best": 1},
        {"id": "both", "scores": [[1, 2]], "decision": [0]},
        {"id": "only decides", "scores": [], "decision": [0]},
        {"id": "only scores", "scores": [[1, 2]], "decision": []},
        {"id": "no decision", "decision": [None, None]},
    )
    a, b, both, decides, scores, lost = recorded.read(path)
    assert a.votes == (Vote((7, 3.5), order=(0, 1), meta=0.5, truncated=False), Vote(order=(1, 0), truncated=True))
    assert b.id == "7" and b.subset == "Chat" and b.line["best"] == 1
    assert [vote.decision for vote in b.votes] == [1, "tie", None] and [vote.valid for vote in b.votes] == [True, True, False]
    assert both.votes == (Vote((1, 2)),) and decides.votes == (Vote(decision=0),)
    assert scores.votes == (Vote((1, 2)),)
    assert not any(vote.valid for vote in lost.votes) and all(vote.decides for vote in (*b.votes, *lost.votes))
    assert not any(vote.decides for vote in (*a.votes, *both.votes))
    for one in (a, b, lost):  # what is written is read back the same
        again = write(tmp_path / "again.jsonl", recorded.to_json(one))
        assert recorded.read(again)[0].votes == one.votes


def test_the_output_of_the_judge_command_is_read_as_it_is(tmp_path):
    first = {"order": [1, 0], "scores": [8, 3], "meta": None, "text": "...", "truncated": False}
    cut = first | {"order": [0, 1], "scores": None, "truncated": True}
    verdict = {"id": "a", "scores": [8, 3], "best": 0, "tied": [], "k": 2, "valid": 1, "truncated": 1, "samples": [first, cut]}
    path = write(tmp_path / "verdicts.jsonl", verdict, {"id": 7, "line": 2, "error": "prompt longer than the context"})
    one, error = recorded.read(path)
    assert one.votes == (Vote((8, 3), order=(1, 0), truncated=False), Vote(order=(0, 1), truncated=True))
    assert (error.id, error.votes) == ("7", (Vote(), Vote()))
    samples = [sample | {"expected": sample["scores"] and [7.5, 3.25]} for sample in (first, cut)]
    (one,) = recorded.read(write(tmp_path / "expected.jsonl", verdict | {"samples": samples}))
    assert [vote.scores for vote in one.votes] == [(7.5, 3.25), None]
    assert "best" not in one.line  # it is not the right response, but what the judge took for it
    assert recorded.from_json({"id": "a", "scores": [[1, 2]], "samples": ["x"], "error": "y"}).votes == (Vote((1, 2)),)


@pytest.mark.parametrize(
    "line, message",
    [
        ({"scores": [[1, 2]]}, "missing field 'id'"),
        ({"id": 1.5, "scores": [[1, 2]]}, "id is not a string or an integer"),
        ({"id": "b"}, "neither 'scores' nor 'decision'"),
        ({"id": "b", "scores": [1, 2]}, "a row of scores is not a list of numbers"),
        ({"id": "b", "scores": "12"}, "scores is not a list with one value per vote"),
        ({"id": "b", "scores": []}, "no votes"),
        ({"id": "b", "scores": [[]]}, "a row of scores is not a list of numbers"),
        ({"id": "b", "scores": [[1, True]]}, "score is not a number (True)"),
        ({"id": "b", "scores": [["1", 2]]}, "score is not a number ('1')"),
        ('{"id": "b", "scores": [[1, NaN]]}', "score is not finite (nan)"),
        ('{"id": "b", "scores": [[1, 1' + "0" * 400 + "]]}", "score is not finite"),
        ({"id": "b", "scores": [[1, -1e301]]}, "score is larger than 1e+300 (-1e+301)"),
        ({"id": "b", "scores": [[10**308, 1]] * 2}, "score is larger than 1e+300 (1000"),
        ({"id": "b", "scores": [[1, 2]], "meta": [-(10**400)]}, "meta is larger than 1e+300 (-1000"),
        ({"id": "b", "scores": [[1, 2], [1, 2, 3]]}, "rows of scores of different lengths"),
        ({"id": "b", "scores": [[1, 2]], "meta": [1, 2]}, "different numbers of votes (1 in scores, 2 in meta)"),
        ({"id": "b", "decision": ["A"]}, "decision is not the index of a response, 'tie' or null ('A')"),
        ({"id": "b", "decision": [-1]}, "decision is not the index"),
        ({"id": "b", "scores": [[1, 2]], "orders": [[0, 0]]}, "order is not a permutation"),
        ({"id": "b", "scores": [[1, 2]], "truncated": [1]}, "truncated is not true, false or null"),
        ({"id": "b", "scores": [[1, 2]], "subset": 3}, "subset is not a string"),
        ({"id": "a", "scores": [[1, 2]]}, "duplicate id ('a', first on line 1)"),
        ("[1, 2]", "not a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path / "scores.jsonl", {"id": "a", "scores": [[1, 2]]}, line)
    with pytest.raises(InputError) as error:
        recorded.read(path)
    assert str(error.value).startswith(f"{path}:2: ") and message in str(error.value)


def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path):
    line = json.dumps({"id": "a", "scores": [[1, 2]]})
    cases = {
        f"[{line}]\n": "a JSON array",
        f"[\n{line}\n]\n": "a JSON array",
        line.replace("{", "{\n"): "JSON objects over several lines",
        f"PAR1{line}": "a parquet file",
    }
    for text, what in cases.items():
        path = tmp_path / "scores.json"
        path.write_text(text)
        with pytest.raises(InputError) as error:
            recorded.read(path)
        assert str(error.value) == f"{path}: not JSON Lines but {what}"


def test_no_lines_are_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no recorded scores"):
        recorded.read(write(tmp_path / "scores.jsonl"))


def test_votes_of_scores_are_summed_and_of_decisions_counted():
    assert recorded.totals([Vote((1, 5)), Vote(), Vote((5, 6))], 2) == (6, 11)
    assert recorded.totals([Vote(decision=1), Vote(decision="tie"), Vote()], 2) == (0.5, 1.5)
    assert recorded.totals([Vote(), Vote()], 2) is None


def test_guided_votes_keep_the_most_trusted_of_the_first_k():
    votes = tuple(Vote((score, 0), meta=meta) for score, meta in [(1, 1.3), (5, 0.2), (4, 1.6), (7, 9.0)])
    one = Recorded("a", votes)
    assert {vote.scores[0] for vote in one.first(3, k_meta=2).votes} == {1, 4}
    assert one.first(1, k_meta=1).votes == votes[:1] and one.first(2).votes == votes[:2]
    unread = Recorded("a", (Vote(meta=9.0), *votes))
    assert recorded.totals(unread.first(3, k_meta=1).votes, 2) == (1, 0)


def test_the_order_of_the_votes_does_not_matter():
    # 0.1 + 0.2 + 0.3 differs from 0.3 + 0.2 + 0.1 in the last bit.
    scores = [0.1, 0.2, 0.3]
    total = recorded.totals([Vote(pair) for pair in zip(scores, reversed(scores), strict=True)], 2)
    assert total[0] == total[1]
    assert recorded.totals([Vote((0.1, 0.2)), Vote((1, 2))], 2) == (1.1, 2.2)


def test_equal_sums_of_other_decimals_tie():
    # In floats, 8.9 + 2.7 + 6.0 is above 9.7 + 6.5 + 1.4.
    votes = [Vote(pair) for pair in zip((8.9, 2.7, 6.0), (9.7, 6.5, 1.4), strict=True)]
    assert recorded.totals(votes, 2) == (17.6, 17.6)
    assert recorded.totals([Vote((7.123456789, 7.123456788)), Vote((1.0, 1.0))], 2) == (8.123456789, 8.123456788)
