"""Rows of every layout become the records that they should; public files at hand load whole, with counts made here by hand."""

import collections
import gzip
import itertools
import json
import math
import pathlib

import pytest
from shared_data import shared

from spct_jax.data.comparison import Turn
from spct_jax.data.kinds import COMPARISONS, DECIDED, DEMONSTRATIONS
from spct_jax.data.layouts import LAYOUTS
from spct_jax.data.sources import open_source
from spct_jax.errors import InputError

TWO = {"response_1": "a", "response_2": "b"}
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "w"}, {"role": "user", "content": "r"}]
ANSWERS = {field: [*TURNS, {"role": "assistant", "content": field}] for field in ("chosen", "rejected")}
RATED = [{"response": text, "fine-grained_score": score} for text, score in (("a", 2.5), ("b", 4.0), ("c", 4.5), ("d", 1.0))]
FINE = {"question": "q", "passages": [["T", "s. ", "t."]]} | {f"prediction {i}": "abcd"[i - 1] for i in (1, 2, 3, 4)}
VOTES = {"annotator1": 2, "annotator2": 0, "annotator3": 2}
WRAPPED = "###Task\n###The instruction to evaluate:\nq\n\n###Response to evaluate:\n{}\n\n###Score Rubrics:\n[x]"
ORIG = {"orig_instruction": "q"}
COMPARED = [
    # layout, row, query, {response: score} of each comparison
    ("pairs", {"prompt": "q", "chosen": "a", "rejected": "b"}, "q", [{"a": 1, "b": 0}]),
    ("pairs", {"prompt": TURNS, "chosen": "a", "rejected": "b"}, "r", [{"a": 1, "b": 0}]),
    ("pairs", ANSWERS, "r", [{"chosen": 1, "rejected": 0}]),
    ("pairs", {"prompt": TURNS} | {f: turns[-1:] for f, turns in ANSWERS.items()}, "r", [{"chosen": 1, "rejected": 0}]),
    (
        "hh_rlhf",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        "q",
        [{"a": 1, "b": 0}],
    ),
    ("ultrafeedback", {"instruction": "q", "completions": RATED}, "q", [{"a": 2.5, "b": 4, "c": 4.5, "d": 1}]),
    ("ultrafeedback", ANSWERS | {"score_chosen": 8.5, "score_rejected": 6.0}, "r", [{"chosen": 1, "rejected": 0}]),
    ("helpsteer2", {"prompt": "q", "preference_strength": -2} | TWO, "q", [{"a": 2, "b": 0}]),
    ("helpsteer2", {"prompt": "q", "preference_strength": 1} | TWO, "q", [{"a": 0, "b": 1}]),
    ("helpsteer2", {"prompt": "q", "response": "a", "helpfulness": 3}, "q", [{"a": 1}]),
    ("skywork_preference", ANSWERS | {"source": "x"}, "r", [{"chosen": 1, "rejected": 0}]),
    ("offsetbias", {"instruction": "q", "output_1": "a", "output_2": "b", "label": 2}, "q", [{"a": 0, "b": 1}]),
    ("llmbar", {"input": "q", "output_1": "a", "output_2": "b", "label": 1}, "q", [{"a": 1, "b": 0}]),
    (
        "pandalm",
        {
            "instruction": "q",
            "input": "i",
            "response1": "a",
            "response2": "b",
            "annotator1": 2,
            "annotator2": 0,
            "annotator3": 2,
        },
        "q\n\ni",
        [{"a": 0, "b": 1}],
    ),
    ("math_pairs", {"problem": "q", "chosen": "a", "rejected": "b"}, "q", [{"a": 1, "b": 0}]),
    (
        "gsm8k_solutions",
        {"question": "q"} | {name: {"solution": name, "is_correct": name in "ab"} for name in "abc"},
        "q",
        [{"a": 1, "c": 0}, {"b": 1, "c": 0}],
    ),
    ("finegrained_rlhf", FINE | {"preference": [2, 0, 0, 1, 1, 0]}, "T\n\ns. t.\n\nq", [{"a": 0, "b": 3, "c": 0, "d": 0}]),
    ("rewardbench", {"prompt": "q", "chosen": "a", "rejected": "b", "subset": "x", "id": 1}, "q", [{"a": 1, "b": 0}]),
    ("rewardbench", {"prompt": "q", "chosen": ["a"], "rejected": ["b", "c", "d"]}, "q", [{"a": 1, "b": 0, "c": 0, "d": 0}]),
    (
        "prometheus",
        {"chosen_instruction": WRAPPED.format("a"), "rejected_instruction": WRAPPED.format("b\n\nc")},
        "q",
        [{"a": 1, "b\n\nc": 0}],
    ),
    ("prometheus", ORIG | {"orig_response_A": "a", "orig_response_B": "b", "orig_preference": "B"}, "q", [{"a": 0, "b": 1}]),
    ("prometheus", ORIG | {"orig_response": "a", "orig_score": "2"}, "q", [{"a": 0}]),
    ("prometheus", {"system_prompt": "s", "input": "q", "response": "a", "score": 4}, "s\n\nq", [{"a": 1}]),
    (
        "llama_factory",
        {
            "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        "q",
        [{"a": 1, "b": 0}],
    ),
    ("llama_factory", {"instruction": "q", "input": "i", "chosen": "a", "rejected": "b"}, "q\n\ni", [{"a": 1, "b": 0}]),
]


@pytest.mark.parametrize(("name", "row", "query", "scores"), COMPARED)
def test_comparisons(name, row, query, scores):
    assert set(LAYOUTS[name].columns) <= row.keys()
    made = list(LAYOUTS[name].comparisons(row, "7"))
    assert [dict(zip(c.responses, c.scores, strict=True)) for c in made] == scores
    assert [c.query for c in made] == [query] * len(made)
    assert [c.id for c in made] == (["7"] if len(made) == 1 else ["7.1", "7.2"])
    for comparison in made:
        DECIDED.check(comparison)


LEFT_OUT = [
    ("hh_rlhf", {"chosen": "\n\nHuman: q\n\nHuman: r\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nHuman: r\n\nAssistant: b"},
     "turns do not alternate"),
    ("ultrafeedback", {"instruction": "q", "completions": [RATED[2], RATED[2] | {"response": "e"}]}, "no unique best response"),
    ("ultrafeedback", ANSWERS | {"score_chosen": 6, "score_rejected": 6.0}, "no unique best response"),
    ("helpsteer2", {"prompt": "q", "preference_strength": 0} | TWO, "no unique best response"),
    ("helpsteer2", {"prompt": "q", "response": "a", "helpfulness": 2}, "rating neither good nor bad"),
    ("pandalm", {"annotator1": 0, "annotator2": 0, "annotator3": 2}, "no unique best response"),
    ("pandalm", {"annotator1": 0, "annotator2": 1, "annotator3": 2}, "no unique best response"),
    ("gsm8k_solutions", {"question": "q", "a": {"solution": "s", "is_correct": True}}, "all solutions are right"),
    ("finegrained_rlhf", FINE | {"preference": [0, 0, 0, 1, 1, 0]}, "no unique best response"),
    ("rewardbench", {"prompt": "q", "chosen": ["a", "b"], "rejected": ["c"]}, "no unique best response"),
    ("prometheus", {"input": "q", "response": "a", "score": 3}, "rating neither good nor bad"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "reason"), LEFT_OUT)
def test_ties_and_the_like_are_left_out(name, row, reason):
    assert [item.reason for item in LAYOUTS[name].comparisons(row, "7")] == [reason]


GPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "r"}]
SHOWN = [
    ("gsm8k", {"question": "q", "answer": "a"}, "q", "a"),
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, "q", "a"),
    ("alpaca", {"instruction": "r", "input": "i", "output": "a", "system": "s", "history": [["q", "p"]]}, "sqpr\n\ni", "a"),
    ("sharegpt", {"conversations": GPT}, "q", "a"),
    ("sharegpt", {"conversations": [*GPT, {"from": "gpt", "value": "b"}], "system": "s"}, "sqar", "b"),
    ("sharegpt", {"messages": ANSWERS["chosen"]}, "qwr", "chosen"),
    ("llama_factory", {"conversations": GPT}, "q", "a"),
    ("llama_factory", {"instruction": "q", "output": "a"}, "q", "a"),
    ("llama_factory", {"conversations": GPT[:1], "chosen": GPT[1], "rejected": GPT[1]}, "q", "a"),
]


@pytest.mark.parametrize(("name", "row", "said", "answer"), SHOWN)
def test_demonstrations(name, row, said, answer):
    (made,) = LAYOUTS[name].demonstrations(row, "7")
    assert ("".join(turn.content for turn in made.turns), made.completions) == (said, (answer,))


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"from": "human", "value": "q"}], "no answer"),
        ([GPT[0], GPT[0], GPT[1]], "turns do not alternate"),
        ([GPT[0], {"from": "function_call", "value": "f"}, GPT[1]], "turns of tools"),
    ],
)
def test_conversations_that_are_left_out(turns, reason):
    assert [item.reason for item in LAYOUTS["sharegpt"].demonstrations({"conversations": turns}, "7")] == [reason]


def test_earlier_turns_of_helpsteer2_stand_in_the_prompt():
    prompt = "q\n<extra_id_1>Assistant\nw\n<extra_id_1>User\nr"
    (made,) = LAYOUTS["helpsteer2"].comparisons({"prompt": prompt, "preference_strength": 1} | TWO, "7")
    assert made.conversation == tuple(Turn(**turn) for turn in TURNS)


FREE = ("source", "system_prompt", "subset", "orig_score")
"""Fields of the rows above that may be absent or another kind of value."""


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.comparisons and name != "comparison"])
@pytest.mark.parametrize("dirt", ["missing", "number", "blank"])
def test_dirty_fields_are_errors(name, dirt):
    """Of the fields that make a record, in whatever form the layout has."""
    for row in (row for layout, row, *_ in COMPARED if layout == name):
        needed = [field for field, value in row.items() if isinstance(value, str) and field not in FREE]
        for field in needed or ["chosen" if "chosen" in row else "completions"]:
            if field == "input" and name != "llmbar" and dirt != "number" and "instruction" in row:
                continue  # it may be absent
            changed = {key: value for key, value in row.items() if key != field}
            if dirt != "missing":
                changed[field] = 3 if dirt == "number" else " "
            with pytest.raises(InputError) as raised:
                list(LAYOUTS[name].comparisons(changed, "7"))
            assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("helpsteer2", {"prompt": "q", "response": "a", "helpfulness": math.nan}, r"helpfulness is not finite \(nan\)"),
        ("prometheus", {"input": "q", "response": "a", "score": math.nan}, r"score is not finite \(nan\)"),
        ("llmbar", {"input": "q", "output_1": "a", "output_2": "b", "label": 10**400}, r"label is not finite \(1000"),
        ("offsetbias", {"instruction": "q", "output_1": "a", "output_2": "b", "label": -math.inf}, "label is not finite"),
        ("finegrained_rlhf", {"preference": [[], 1, 1, 1, 1, 1]}, "preference is not a list of six 0, 1 or 2"),
        ("alpaca", {"instruction": "q", "output": "a", "history": 3}, "history is not a list of pairs of texts"),
    ],
)
def test_values_that_say_nothing_are_errors(name, row, message):
    """A rating that is no number would count as a bad one."""
    with pytest.raises(InputError, match=message):
        list((LAYOUTS[name].comparisons or LAYOUTS[name].demonstrations)(row, "7"))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("pairs", {"prompt": "q", "chosen": "a", "rejected": "a "}),
        ("hh_rlhf", {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: a"}),
        ("offsetbias", {"instruction": "q", "output_1": "a", "output_2": "a", "label": 2}),
        ("helpsteer2", {"prompt": "q", "preference_strength": 1, "response_1": "a", "response_2": "a"}),
        ("rewardbench", {"prompt": "q", "chosen": ["a"], "rejected": ["b", "a\n"]}),
        ("math_pairs", {"prompt": "q", "chosen": "a", "rejected": "a"}),
    ],
)
def test_identical_responses_are_an_error(name, row):
    with pytest.raises(InputError, match="the same text"):
        list(LAYOUTS[name].comparisons(row, "7"))


def test_the_place_of_the_better_response_says_nothing():
    places = []
    for i in range(200):
        texts = f"good {i}", f"bad {i}"
        row, swapped = ({"prompt": "q", "chosen": x, "rejected": y} for x, y in (texts, texts[::-1]))
        (made,), (other,) = (LAYOUTS["pairs"].comparisons(r, "7") for r in (row, swapped))
        assert made.responses == other.responses and made.scores != other.scores
        places.append(made.best)
    assert 70 < sum(places) < 130


def read(source, kind=DECIDED, on_bad="fatal"):
    records, report = open_source(source, kind, on_bad=on_bad)
    assert report.used == len(records) and all(len(record.id) for record in records if kind is not DEMONSTRATIONS)
    return list(records), report


def test_hh_rlhf_file():
    """Whole; a pair whose transcripts have equally many turns is one of the last answers of both."""
    path = shared("data/hh-rlhf/harmless-base/test.jsonl.gz")
    rows = [json.loads(line) for line in gzip.open(path)]
    records, report = read(f"hh_rlhf:{path}", on_bad="skip")
    assert report.read == 2312 == len(rows) == len(records) + sum(report.skipped.values())
    assert report.skipped == {"empty response": 4, "several turns in one response": 5, "turns do not alternate": 4}
    for record in records:
        row = rows[int(record.id) - 1]
        answers = [row[field].rpartition("\n\nAssistant:")[2].strip() for field in ("chosen", "rejected")]
        best = record.best
        assert [record.responses[best], record.responses[1 - best]] == answers
        assert record.query == row["chosen"].rpartition("\n\nAssistant:")[0].rpartition("\n\nHuman:")[2].strip()
    with pytest.raises(InputError, match=r"test.jsonl.gz:\d+: empty response"):
        read(f"hh_rlhf:{path}")


def test_pandalm_file():
    path = shared("data/pandalm/testset-v1.json")
    rows = json.loads(path.read_text())
    majority = [collections.Counter(row[f"annotator{i}"] for i in (1, 2, 3)).most_common(1)[0][0] for row in rows]
    decided = [row for row, vote in zip(rows, majority, strict=True) if vote]
    texts = [(row["instruction"], row["response1"], row["response2"]) for row in decided]
    other = sum(not all(isinstance(text, str) for text in row) for row in texts)
    empty = sum(any(not str(text).strip() for text in row) for row in texts)
    records, report = read(f"pandalm:{path}", on_bad="skip")
    assert (report.read, majority.count(0), len(decided)) == (999, 105, 894)
    assert report.skipped["no unique best response"] == 105
    assert sum(count for reason, count in report.skipped.items() if "is not a string" in reason) == other > 0
    assert sum(count for reason, count in report.skipped.items() if reason.startswith("empty")) == empty > 0
    assert len(records) == 894 - other - empty
    assert collections.Counter(r.best + 1 for r in records) == collections.Counter(
        vote for row, vote in zip(rows, majority, strict=True)
        if vote and all(isinstance(row[r], str) and row[r].strip() for r in ("instruction", "response1", "response2"))
    )  # fmt: skip


def test_gsm8k_files():
    path = shared("data/gsm8k/example_model_solutions.jsonl")
    rows = [json.loads(line) for line in path.open()]
    right = [[s["is_correct"] for s in row.values() if isinstance(s, dict)] for row in rows]
    records, report = read(f"gsm8k_solutions:{path}")
    assert len(records) == 2429 == sum(sum(r) * (len(r) - sum(r)) for r in right)
    assert report.read == 1319 and report.skipped == {
        "all solutions are right": sum(all(r) for r in right), "all solutions are wrong": sum(not any(r) for r in right),
    }  # fmt: skip
    assert len({record.id for record in records}) == 2429
    shown, _ = read(f"gsm8k:{shared('data/gsm8k/train.jsonl')}", DEMONSTRATIONS)
    assert len(shown) == 7473 and shown[0].completions[0].endswith("#### 72")
    assert len(read(f"gsm8k:{shared('data/gsm8k/test.jsonl')}", DEMONSTRATIONS)[0]) == 1319


def test_finegrained_rlhf_file():
    path = shared("data/finegrained-rlhf/dev_feedback.json")
    rows, pairs = json.loads(path.read_text()), list(itertools.combinations(range(4), 2))
    wins = [collections.Counter(p[v - 1] for p, v in zip(pairs, row["preference"], strict=True) if v) for row in rows]
    best = [next((i for i in range(4) if w[i] == 3), None) for w in wins]
    records, report = read(f"finegrained_rlhf:{path}")
    assert report.read == 500 and [r.best for r in records] == [b for b in best if b is not None]
    assert report.skipped == {"no unique best response": best.count(None)} == {"no unique best response": 104}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("math_pairs:{}/rewardbench_math_prm/math_prm_447.jsonl.gz", 447),
        ("rewardbench:{}/rewardbench_math_prm/*.jsonl.gz", 447),
        ("prometheus:{}/prometheus/hhh_alignment_eval.json", 221),
        ("prometheus:{}/prometheus/biggen_sample_evals.json", 695),
        ("offsetbias:{}/evalbiasbench/evalbiasbench.json", 80),
        ("llmbar:{}/llmbar/LLMBar/**/dataset.json", 419),
        ("llama_factory:{}/llama_factory/dpo_en_demo.json", 300),
    ],
)
def test_other_files(source, count):
    records, report = read(source.format(shared("data")))
    assert len(records) == report.read == count and not report.skipped


def test_labels_are_kept():
    """Right responses of three files, found without the layouts."""
    rows = json.loads(shared("data/llmbar/LLMBar/Natural/dataset.json").read_text())
    records, _ = read(f"llmbar:{shared('data/llmbar/LLMBar/Natural/dataset.json')}")
    assert [r.responses[r.best] for r in records] == [row[f"output_{row['label']}"] for row in rows]
    bias = json.loads(shared("data/evalbiasbench/evalbiasbench.json").read_text())
    records, _ = read(f"offsetbias:{shared('data/evalbiasbench/evalbiasbench.json')}")
    assert [r.responses[r.best] for r in records] == [row[f"response{row['label']}"] for rows in bias.values() for row in rows]
    rows = json.loads(shared("data/llama_factory/dpo_en_demo.json").read_text())
    records, _ = read(f"llama_factory:{shared('data/llama_factory/dpo_en_demo.json')}")
    assert [r.responses[r.best] for r in records] == [row["chosen"]["value"] for row in rows]
    shown, _ = read(f"llama_factory:{shared('data/llama_factory/dpo_en_demo.json')}", DEMONSTRATIONS)
    assert [s.completions[0] for s in shown] == [row["chosen"]["value"] for row in rows]


def test_a_layout_without_such_records_is_named():
    for source, kind in (("alpaca:x.json", COMPARISONS), ("hh_rlhf:x.jsonl", DEMONSTRATIONS)):
        with pytest.raises(InputError, match=f"the layout {source.partition(':')[0]} has .*, but {kind.name} are needed"):
            open_source(source, kind)


def test_the_page_has_what_every_layout_says():
    page = (pathlib.Path(__file__).parents[3] / "docs" / "data.md").read_text()
    for name, layout in LAYOUTS.items():
        gives = " or ".join(kind for kind in ("comparisons", "demonstrations") if getattr(layout, kind))
        assert layout.name == name and layout.row and layout.ties and layout.licence
        assert f"| `{name}` | {gives} | {layout.row} | {layout.ties} | {layout.licence} |" in page
