"""Published figures of public judges, from their recorded outputs, to the digit."""

import golden_files
import pytest
from shared_data import shared


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
