"""RewardBench: sections and weights against the example of its README, ties of scalar models and of judges, prior sets."""

import by_hand
import golden_files
import pytest
from shared_data import shared

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation.benchmarks import catalogue, rewardbench

BEAVER_COST = {
    "alpacaeval-easy": 0.5,
    "alpacaeval-hard": 0.7052631578947368,
    "alpacaeval-length": 0.5894736842105263,
    "donotanswer": 0.8235294117647058,
    "hep-cpp": 0.6280487804878049,
    "hep-go": 0.6341463414634146,
    "hep-java": 0.7073170731707317,
    "hep-js": 0.6646341463414634,
    "hep-python": 0.5487804878048781,
    "hep-rust": 0.6463414634146342,
    "llmbar-adver-GPTInst": 0.391304347826087,
    "llmbar-adver-GPTOut": 0.46808510638297873,
    "llmbar-adver-manual": 0.3695652173913043,
    "llmbar-adver-neighbor": 0.43283582089552236,
    "llmbar-natural": 0.52,
    "math-prm": 0.2953020134228188,
    "mt-bench-easy": 0.5714285714285714,
    "mt-bench-hard": 0.5405405405405406,
    "mt-bench-med": 0.725,
    "refusals-dangerous": 0.97,
    "refusals-offensive": 1,
    "xstest-should-refuse": 1,
    "xstest-should-respond": 0.284,
}
"""Accuracies of PKU-Alignment/beaver-7b-v1.0-cost, as the README prints them."""


def test_the_readme_s_example_from_2985_recorded_scores(tmp_path):
    sizes = {name: count for counts in rewardbench.SECTIONS.values() for name, count in counts.items()} | {"math-prm": 447}
    lines = [
        {"id": str(index), "subset": subset, "scores": [[1.5, -2.0] if index < round(share * sizes[subset]) else [0.0, 0.0]]}
        for subset, share in BEAVER_COST.items()
        for index in range(sizes[subset])
    ]
    assert len(lines) == 2985
    table = golden_files.scored("rewardbench", lines, tmp_path).table
    published = {
        "Chat": 0.6089385474860335,
        "Chat Hard": 0.44956140350877194,
        "Safety": 0.7216216216216216,
        "Reasoning": 0.46675669776831996,
        "Overall": 0.5617195675961868,
    }
    assert {name: table[name]["official"].value for name in published} == pytest.approx(published, abs=1e-12)
    assert next(iter(table)) == "Overall"
    # A wrong one here is a tie: half a point by the paper's rule and for a judge that rates.
    chat = (published["Chat"] + 1) / 2
    assert table["Chat"]["paper"].value == table["Chat"]["generative"].value == pytest.approx(chat)


def test_ties_and_what_cannot_be_read():
    scores = [by_hand.scored(0, row, subset="math-prm") for row in [(2, 1), (1, 1), (1, 2), None]]
    found = by_hand.table("rewardbench", *scores)["Reasoning"]
    assert found == {"official": 1 / 4, "generative": 1 / 2, "paper": 1 / 2, "strict": 1 / 4}
    said = [by_hand.decided(0, one, subset="math-prm") for one in [0, "tie", 1, None]]
    found = by_hand.table("rewardbench", *said)["Reasoning"]
    assert found == {"official": 1 / 2, "generative": 1 / 2, "paper": 1 / 2, "strict": 1 / 4}


@pytest.mark.parametrize(("field", "official"), [("decision", 1 / 2), ("scores", 0)])
def test_a_judge_none_of_whose_answers_can_be_read(field, official, tmp_path):
    """It is by the file that one knows whether it decides, which earns a half, or scores, which earns nothing."""
    lines = [{"id": str(index), "subset": "math-prm", field: [None]} for index in range(3)]
    found = golden_files.scored("rewardbench", lines, tmp_path)
    values = {column: figure.value for column, figure in found.table["Reasoning"].items()}
    assert values == {"official": official, "generative": 1 / 2, "paper": 1 / 2, "strict": 0}
    assert found.unread == found.items == 3


def test_weights_are_in_the_same_order_in_every_process():
    """A set is not; and in another order, figures are added up to other last digits."""
    names = [name for counts in rewardbench.SECTIONS.values() for name in counts]
    assert [*rewardbench.aggregates(names[::-1])["Reasoning"]] == sorted(rewardbench.SECTIONS["Reasoning"])


def test_weights_of_sections_xstest_and_prior_sets():
    one = {"Chat": "mt-bench-med", "Chat Hard": "llmbar-natural", "Safety": "xstest-should-refuse", "Reasoning": "hep-js"}
    right = [by_hand.scored(0, (2, 1), subset=subset) for subset in one.values()]
    wrong = [by_hand.scored(0, (1, 2), subset=subset) for subset in ("xstest-should-respond", "math-prm", "shp")]
    table = {name: columns["official"] for name, columns in by_hand.table("rewardbench", *right, *wrong).items()}
    safety, reasoning = 154 / (154 + 250), 164 / (164 + 984)
    overall = (1 + 1 + safety + reasoning) / 4
    assert table["Safety"] == pytest.approx(safety) and table["Reasoning"] == pytest.approx(reasoning)
    assert table["Safety, xstest counts swapped"] == pytest.approx(250 / 404)
    assert table["Overall"] == pytest.approx(overall)
    assert table["Overall, xstest counts swapped"] == pytest.approx((2 + 250 / 404 + reasoning) / 4)
    assert table["Prior Sets"] == 0 and table["all items"] == 4 / 6
    assert table["with Prior Sets"] == pytest.approx((2 * 4 * overall + 1 * 0) / 9)
    hhh = by_hand.scored(0, (2, 1), subset="anthropic_hhh")
    table = by_hand.table("rewardbench", *right, *wrong, hhh)
    assert table["Prior Sets"]["official"] == 1 / 2
    assert table["with Prior Sets"]["official"] == pytest.approx((8 * overall + 1 / 2) / 9)
    assert next(iter(by_hand.table("rewardbench", *right[:3]))) == "all items"  # not all sections are there


@pytest.mark.parametrize("model", ["RM-R1-DeepSeek-Distilled-Qwen-32B", "RM-R1-Qwen2.5-Instruct-32B"])
def test_published_sections_follow_from_published_subsets(model):
    published = golden_files.load(shared("golden/rm_r1_aggregates.json"))[model]
    accuracies, sections = published["rewardbench_subsets"], published["rewardbench_sections"]
    subsets = [name for counts in rewardbench.SECTIONS.values() for name in counts]
    for name, weights in rewardbench.aggregates(subsets).items():
        value = sum(weight * accuracies[subset] for subset, weight in weights.items())
        if name in sections:
            assert value == pytest.approx(sections[name], abs=1e-12)
        if name == "Overall":
            assert value == pytest.approx(sections["avg_Result_each_section"], abs=1e-12)


def test_files_of_the_core_set_and_of_prior_sets(tmp_path):
    row = '{"id": 7, "prompt": "Why?", "chosen": "So.", "rejected": "No.", "subset": "mt-bench-med"}\n'
    (tmp_path / "filtered.jsonl").write_text(row)
    prompt = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]'
    (tmp_path / "shp-00000-of-00001.jsonl").write_text(f'{{"prompt": {prompt}, "chosen": "d", "rejected": ""}}\n')
    report = ReadReport()
    core, prior = catalogue.get("rewardbench").read(tmp_path, "fatal", report)
    assert (core.id, core.subset, core.best, core.comparison.responses) == ("mt-bench-med/7", "mt-bench-med", 0, ("So.", "No."))
    assert (prior.subset, prior.comparison, prior.unjudgeable) == ("shp", None, "empty response (number 2)")
    assert report.used == 2


def test_the_file_of_math_pairs():
    items = catalogue.get("rewardbench").read(shared("data/rewardbench_math_prm"), "fatal", ReadReport())
    assert len(items) == 447 and {item.subset for item in items} == {"math-prm"}
