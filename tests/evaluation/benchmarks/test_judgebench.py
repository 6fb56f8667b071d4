"""JudgeBench: the counter over two games, a reward model's ties, a single game, categories."""

import json

import by_hand
import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation import figures, matching
from spct_jax.evaluation.benchmarks import catalogue
from spct_jax.evaluation.benchmarks.base import Answer, Item
from spct_jax.evaluation.recorded import Recorded, Vote


def official(*answers):
    return by_hand.table("judgebench", *answers)["all items"]


@pytest.mark.parametrize(
    "first, second, right",
    [(0, 0, 1), (0, 1, 0), (1, 1, 0), (0, "tie", 1), ("tie", 0, 1), (0, None, 1), (1, None, 0), ("tie", "tie", 0)],
)
def test_a_pair_is_right_if_it_wins_more_games_than_it_loses(first, second, right):
    assert official(by_hand.decided(0, first, second))["official"] == right


def test_equal_scores_go_to_the_response_shown_second():
    # In input order. Tied twice: B, then A: they cancel out. A single game: B, which may be right.
    for best in (0, 1):
        found = official(by_hand.scored(best, (3, 3), (3, 3)))
        assert (found["official"], found["single_game"], found["both"]) == (0, best, 0)
        assert official(by_hand.scored(best, (3, 3)))["official"] == 0  # one row of a scalar model is both games
    # Tied as given (B), then A wins: one right and one wrong; as a tie that decides nothing A is right.
    found = official(by_hand.scored(0, (3, 3), (4, 3)))
    assert (found["official"], found["two_games_ties_undecided"]) == (0, 1)
    # Tied when swapped goes to A, the second then.
    assert official(by_hand.scored(0, (4, 3), (3, 3)))["official"] == 1


def test_two_games_right_twice_and_the_paper_s_rule():
    answers = [by_hand.decided(0, 0, 0), by_hand.decided(0, 0, "tie"), by_hand.decided(1, 1, 0), by_hand.decided(1, 0, 0)]
    found = official(*answers)
    assert (found["official"], found["both"], found["single_game"]) == (1 / 2, 1 / 4, 3 / 4)
    assert found["paper"] == (1 + 1 + 1 / 2 + 0) / 4  # one vote over both games


def test_with_one_game_per_pair_there_is_no_figure_of_two_games():
    given, swapped = (Answer(Item("a", 2, 0), (Vote((2, 1), order=order),)) for order in [(0, 1), (1, 0)])
    assert set(official(given)) == {"single_game", "paper", "strict"}
    assert set(official(swapped)) == {"paper", "strict"}


def test_the_first_of_two_games_is_no_game_of_both():
    answers = figures.cut([by_hand.decided(0, 0, 0)], 1)
    assert official(*answers) == {"single_game": 1, "paper": 1, "strict": 1}


def test_categories_by_the_start_of_the_source():
    right = [by_hand.decided(0, 0, 0, subset=source) for source in ("mmlu-pro-law", "livebench-math", "livecodebench")]
    wrong = [by_hand.decided(0, 1, 1, subset=source) for source in ("mmlu-pro-physics", "livebench-reasoning")]
    table = {name: columns["official"] for name, columns in by_hand.table("judgebench", *right, *wrong).items()}
    categories = {"Knowledge": 1 / 2, "Reasoning": 0, "Math": 1, "Coding": 1}
    assert table == pytest.approx({"all items": 3 / 5, **categories, "mean of categories": 5 / 8})


def test_recorded_votes_may_bring_the_data_s_label():
    benchmark = catalogue.get("judgebench")
    recorded = [Recorded(label, (Vote((1, 2)),), line={"label": label}) for label in ("A>B", "B>A")]
    assert [answer.item.best for answer in matching.stand_alone(benchmark, recorded, "f")] == [0, 1]
    with pytest.raises(InputError, match="f: item 'x': no 'best'"):
        matching.stand_alone(benchmark, [Recorded("x", (Vote((1, 2)),), line={"label": "A=B"})], "f")


def test_files(tmp_path):
    row = {"pair_id": "x", "source": "livecodebench", "question": "q", "response_A": "a", "response_B": "b", "label": "B>A"}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (item,) = catalogue.get("judgebench").read(path, "fatal", ReadReport())
    assert (item.id, item.best, item.subset, item.comparison.query) == ("x", 1, "Coding", "q")
    path.write_text(json.dumps(row | {"label": "A=B"}) + "\n")
    with pytest.raises(InputError, match=r"pairs.jsonl:1: label is not one of A>B, B>A \('A=B'\)"):
        catalogue.get("judgebench").read(path, "fatal", ReadReport())
