"""PPE Correctness: its files, and pairs derived from scores of all responses."""

import json

import by_hand
import pyarrow
import pyarrow.parquet
import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base, catalogue
from spct_jax.evaluation.recorded import Vote

PPE = catalogue.get("ppe_correctness")


def write(directory, **changes):
    row = {"question_id": "q", "prompt": "p", "scores": [True, False, False], "sampled_conflict_pairs": [[1, 0], [0, 2]]}
    row |= {f"response_{number}": f"r{number}" for number in (1, 2, 3)} | changes
    directory.mkdir(exist_ok=True)
    (directory / "train-00000-of-00001.jsonl").write_text(json.dumps(row) + "\n")


def test_files(tmp_path):
    write(tmp_path / "PPE-GPQA-Best-of-K")
    write(tmp_path / "PPE-MMLU-Pro-Best-of-K")
    first, second = PPE.read(tmp_path, "fatal", ReadReport())
    assert (first.id, second.id) == ("GPQA/q", "MMLU-Pro/q") and first.pairs == ((0, 1), (0, 2)) and first.n == 3
    assert [pair.comparison.responses for pair in base.as_pairs([first])] == [("r1", "r2"), ("r1", "r3")]


def test_bad_rows_and_files_without_a_domain(tmp_path):
    write(tmp_path / "math", sampled_conflict_pairs=[[1, 2]])
    with pytest.raises(InputError, match="jsonl:1: the responses of a pair are both wrong"):
        PPE.read(tmp_path / "math", "fatal", ReadReport())
    (tmp_path / "math").rename(tmp_path / "other")
    with pytest.raises(InputError, match="names a domain"):
        PPE.read(tmp_path / "other", "fatal", ReadReport())


def test_scores_of_all_responses_give_the_pairs_of_five_domains(tmp_path):
    (tmp_path / "x").mkdir()
    answers = []
    for domain, scores in [
        ("mmlu", (3, 2, 1)),
        ("math", (3, 3, 1)),
        ("gpqa", (1, 2, 3)),
        ("mbpp", (3, 1, 1)),
        ("ifeval", None),
    ]:
        write(tmp_path / domain)
        (item,) = PPE.read(tmp_path / domain, "fatal", ReadReport())
        answers.append(base.Answer(item, (Vote(scores),)))
    table = by_hand.table("ppe_correctness", *answers)
    assert table["Overall"]["official"] == pytest.approx((1 + 1 / 2 + 0 + 1 + 0) / 5)
    assert table["Overall"]["paper"] == pytest.approx((1 + 3 / 4 + 0 + 1 + 1 / 2) / 5)
    assert table["Overall"]["end_score"] == pytest.approx((1 + 1 / 2 + 0 + 1 + 1 / 3) / 5)
    assert table["MATH"]["max_score"] == pytest.approx(1 / 2)


def test_parquet_as_it_is_published(tmp_path):
    directory = tmp_path / "PPE-IFEval-Best-of-K" / "data"
    directory.mkdir(parents=True)
    row = {"question_id": "q", "prompt": "p", "scores": [False, True], "sampled_conflict_pairs": [[0, 1]]}
    table = pyarrow.Table.from_pylist([row | {"response_1": "a", "response_2": "b"}])
    pyarrow.parquet.write_table(table, directory / "train-00000-of-00001.parquet")
    (item,) = PPE.read(tmp_path, "fatal", ReadReport())
    assert (item.id, item.pairs, item.label) == ("IFEval/q", ((1, 0),), {"scores": [0, 1], "pairs": [[0, 1]]})
    pyarrow.parquet.write_table(table.drop_columns("response_2"), directory / "train-00000-of-00001.parquet")
    with pytest.raises(InputError, match="parquet: row 1: missing field 'response_2'"):
        PPE.read(tmp_path, "fatal", ReadReport())
