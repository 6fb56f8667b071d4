"""Published figures of public judges, from their recorded outputs, to the digit."""

import golden_files
import pytest
from shared_data import shared

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation import figures, matching, recorded
from spct_jax.evaluation.benchmarks import catalogue


def test_llmbar_s_published_statistics_all_follow_from_the_winners(tmp_path):
    count = 0
    runs = golden_files.load(shared("golden/llmbar_judgments.json.gz"))
    for name, lines, published in golden_files.llmbar(runs):
        found = golden_files.scored("llmbar", lines, tmp_path).table["all"]
        columns = {"correct_False": "given", "correct_True": "swapped", "correct_both": "both", "equal": "agreement"}
        shares = {field: found[column].value for field, column in columns.items()}
        for field, share in shares.items():
            right = round(share * len(lines))
            assert f"{right} / {len(lines)} = {right / len(lines) * 100}%" == published[field], (name, field)
        average = (shares["correct_False"] + shares["correct_True"]) / 2
        assert found["official"].value == pytest.approx(average, abs=1e-15)
        assert 100 * average == pytest.approx(float(published["correct_average"].rstrip("%")), abs=1e-12)
        count += 1
    assert count == 499


def test_realmistake_s_published_accuracies_and_f1_all_follow_from_the_predictions(tmp_path):
    count = 0
    golden = golden_files.load(shared("golden/realmistake_predictions.json.gz"))
    for name, lines, published in golden_files.realmistake(golden):
        found = golden_files.scored("realmistake", lines, tmp_path).table["pooled"]
        for column, field in {"official": "f1", "accuracy": "accuracy", "precision": "precision", "recall": "recall"}.items():
            assert found[column].value == pytest.approx(published[field], abs=1e-12), (name, field)
        count += 1
    assert count == 297


def test_realmistake_s_area_under_the_curve_follows_from_five_samples(tmp_path):
    lines = golden_files.realmistake_samples(golden_files.load(shared("golden/realmistake_predictions.json.gz")))
    assert len(lines) == 150
    for k, percent in ((1, 64.15), (5, 66.34)):
        found = golden_files.scored("realmistake", lines, tmp_path, k).table["pooled"]
        assert round(100 * found["paper"].value, 2) == percent


def test_rewardmath_shows_how_much_a_rule_for_ties_moves_a_judge(tmp_path):
    expected = {
        "internlm2_reward": (37.27, 37.27, 55.17),
        "gpt4o_reward": (25.98, 35.71, 46.70),
        "llama3_70B_reward": (0.62, 13.20, 17.16),
        "gpt4o_pairwise_reward": (24.64, 24.74, 48.92),
    }
    runs = dict(golden_files.rewardmath(golden_files.load(shared("golden/rewardmath_scores.json.gz"))))
    assert len(runs) == 27
    for name, percent in expected.items():
        found = golden_files.scored("rewardmath", runs[name], tmp_path).table["all items"]
        assert tuple(round(100 * found[column].value, 2) for column in ("official", "paper", "mrr")) == percent, name


def test_alpacaeval_s_published_win_rates_all_follow_from_the_preferences(tmp_path):
    runs = list(golden_files.alpacaeval(golden_files.load(shared("golden/alpacaeval_preferences.json"))))
    for name, lines, published in runs:
        found = golden_files.scored("alpacaeval", lines, tmp_path).table["all items"]
        assert 100 * found["official"].value == pytest.approx(float(published["win_rate"]), rel=1e-14), name
        counts = (round(found[column].value * len(lines)) for column in ("wins", "draws"))
        assert (*counts, len(lines)) == tuple(int(published[f"n_{field}"]) for field in ("wins", "draws", "total"))
    assert len(runs) == 5


def test_pandalm_s_published_figures_follow_from_its_data_and_the_verdicts(tmp_path):
    directory = shared("data/pandalm")
    benchmark, path = catalogue.get("pandalm"), tmp_path / "scores.jsonl"
    items = benchmark.read(directory, "fatal", ReadReport())
    tests = golden_files.load(directory / "testset-v1.json")
    published = {("pandalm-7b", "pandalm_result"): 66.77, ("gpt-3.5-turbo", "gpt_result"): 71.07}
    for (judge, field), accuracy in published.items():
        lines = golden_files.pandalm(golden_files.load(directory / f"{judge}-testset-v1.json"), tests, field)
        golden_files.write(path, lines)
        answers = matching.join(items, recorded.read(path), path)
        found = figures.compute(benchmark, answers, intervals=False)
        assert round(100 * found.table["all items"]["official"].value, 2) == accuracy
        assert round(found.malformed_rate * 999) == {"pandalm-7b": 0, "gpt-3.5-turbo": 25}[judge]
