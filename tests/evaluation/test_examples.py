"""Which verdicts are told in full."""

from spct_jax.data.comparison import Comparison
from spct_jax.evaluation import examples
from spct_jax.evaluation.benchmarks.base import Answer, Item
from spct_jax.evaluation.recorded import Vote

SCORES = {"Right": (5, 1), "Wrong": (1, 5), "Tied": (3, 3), "Unread": None}


def answers(**counts):
    return [
        Answer(Item(f"{kind} {index}", 2, 0), (Vote(SCORES[kind]),)) for kind, count in counts.items() for index in range(count)
    ]


def chosen(told, verdicts=None):
    return [example["id"] for example in examples.choose(told, lambda ids: (verdicts or {}).items())]


def test_ten_verdicts_spread_over_each_kind():
    told = chosen(answers(Right=100, Wrong=8, Tied=5, Unread=3))
    assert told == [f"Wrong {i}" for i in (1, 3, 5, 7)] + [f"Right {i}" for i in (12, 37, 62, 87)] + ["Tied 1", "Tied 3"]
    # Others take the place of those that are too few.
    assert chosen(answers(Right=1, Wrong=12)) == [f"Wrong {i}" for i in (0, 2, 3, 4, 6, 7, 8, 10, 11)] + ["Right 0"]
    assert len(chosen(answers(Unread=20))) == 10 and len(chosen(answers(Right=3))) == 3 and chosen([]) == []


def test_an_example_has_what_the_judge_saw_and_said():
    shown = Comparison(conversation=[{"role": "user", "content": "q"}], responses=["x" * 7000, "b"], id="a")
    answer = Answer(Item("a", 2, 1, "s", comparison=shown), (Vote((5, 1)), Vote(None)))
    verdict = {"samples": [{"text": "because", "order": [1, 0]}, {"text": "", "order": [0, 1]}]}
    (example,) = examples.choose([answer], lambda ids: [(id, verdict) for id in ids])
    assert example["responses"][0] == "x" * 6000 + "\n[... 1,000 more characters]" and example["conversation"] == [
        ("user", "q")
    ]
    assert (example["outcome"], example["valid"], example["votes"], example["totals"]) == ("Wrong", 1, 2, (5, 1))
    assert (example["critique"], example["order"]) == ("because", [1, 0])
