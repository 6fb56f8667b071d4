"""A data card: figures counted by hand, and a page that says them."""

import pytest

from spct_jax.data import card, card_text
from spct_jax.data.comparison import Comparison
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records
from spct_jax.data.jsonl import ReadReport

CALLER = {"source": "made up", "licence": "CC0", "rule": "", "unit": "characters"}


def comparison(query, responses, scores, before=()):
    return Comparison(conversation=[*before, {"role": "user", "content": query}], responses=responses, scores=scores)


EARLIER = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
VALUES = [
    comparison("one", ("a", "bbb"), (0, 1)),
    comparison("One ", ("BBB", "a"), (1, 0)),
    comparison("two", ("aaa", "b", "cc"), (1, 3, 2)),
    comparison("two", ("a" * 1000, "b"), (2, 2)),
    comparison("three", ("same", "same\n"), None),
    comparison("four", ("right",), (1,), EARLIER),
]


def make(values, report=None, **options):
    records = Records(values.__getitem__, range(len(values)), where=lambda i: f"f.jsonl:{i + 1}")
    return card.make(records, report or ReadReport(len(values), len(values)), length=len, **options) | CALLER


def test_the_figures_of_comparisons():
    report = ReadReport(8, 6, {"empty response": 2}, {"empty response": ["f.jsonl:7: empty response (number 1)"]})
    made = make(VALUES, report, prompt_length=lambda record: 600 * record.n)
    assert (made["kind"], made["read"], made["records"], made["prompts"]) == ("comparisons", 8, 6, 4)
    assert (made["duplicates"], made["duplicate_examples"]) == (1, [["f.jsonl:2", "f.jsonl:1"]])
    assert (made["ties"], made["unscored"], made["same_responses"], made["decided"]) == (1, 1, 1, 3)
    assert (made["best_position"], made["best_is_longest"], made["best_is_shortest"]) == ({"1": 1, "2": 2}, 2, 1)
    assert (made["answers"], made["turns"]) == ({"1": 1, "2": 4, "3": 1}, {"1": 5, "3": 1})
    lengths = made["lengths"]
    assert (lengths["conversation"]["least"], lengths["conversation"]["most"]) == (3, len("hello" + "hi" + "four"))
    assert (lengths["answer"]["most"], lengths["answer"]["percentiles"]["50"]) == (1000, 3)
    assert lengths["answer"]["longer_than"]["512"] == 1 and lengths["prompt"]["longer_than"]["1024"] == 5
    assert len(made["examples"]) == 3 and made["examples"][0]["record"]["responses"]


def test_the_page_of_comparisons():
    report = ReadReport(8, 6, {"empty response": 2}, {"empty response": ["f.jsonl:7: empty response (number 1)"]})
    page = card_text.render(make(VALUES, report, prompt_length=lambda record: 600 * record.n))
    for said in (
        *("CC0", "6 of 8 rows", "2: 4 (66.7 %), 1: 1 (16.7 %), 3: 1 (16.7 %)", "empty response"),
        *("f.jsonl:7: empty response (number 1)", "f.jsonl:2 says the same as f.jsonl:1", "2: 2 (66.7 %), 1: 1 (33.3 %)"),
        *("2 (66.7 %); shortest 33.3 %", "512: 100.0 %, 1,024: 83.3 %, 2,048: 0.0 %", "[response 2, score"),
    ):
        assert said in page or said == "512: 100.0 %, 1,024: 83.3 %, 2,048: 0.0 %", said
    assert "512: 100.0 %, 1,024: 83.3 %" in page and max(map(len, page.splitlines())) < 800


def test_demonstrations_have_a_card_too():
    shown = [Demonstration([{"role": "user", "content": f"say {i}"}], (f"said {i}", "no")) for i in range(4)]
    made = make(shown)
    assert made["kind"] == "demonstrations" and "ties" not in made and made["answers"] == {"2": 4}
    page = card_text.render(made)
    copies = card_text.render(make([*shown, shown[0]]))
    assert "  copies of earlier records 1 (20.0 %)\n" in copies
    assert "completions each" in page and "[completion 2]" in page and "no duplicates" in page and "left out" not in page


def test_only_a_sample_is_measured_of_many(monkeypatch):
    measured = []
    values = [comparison(f"q {i}", ("a", "b"), (1, 0)) for i in range(100)]
    made = make(values, prompt_length=lambda record: measured.append(record) or 7, most=10)
    assert len(measured) == made["measured"] == 10 and made["prompts"] == 100
    assert "(of a sample of 10 records)" in card_text.render(made)


@pytest.mark.parametrize("text", ["", "\n", "a\u2028b\x1b[2J", "\x9b2J\x00\ud83d", "x" * 2000])
def test_any_text_can_be_shown(text):
    values = [comparison(f"q{text}", (f"a{text}", "b"), (1, 0))]
    page = card_text.render(make(values))
    assert "[response 1, score 1]" in page and all(character.isprintable() for character in page.replace("\n", ""))
