"""RM-Bench: the 3 x 3 matrix, its parts and domains, from six scores or from nine pairs."""

import json

import by_hand
import numpy as np
import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation import figures, matching
from spct_jax.evaluation.benchmarks import base, catalogue, rm_bench
from spct_jax.evaluation.recorded import Recorded, Vote

FSFAIRX_CHAT = [[83.61, 3.83, 2.19], [99.45, 66.12, 49.73], [100, 80.33, 66.67]]
"""Of 183 prompts, in percent, as published."""


def six(*scores, domain="chat"):
    return by_hand.scored(None, scores or None, n=6, subset=domain, pairs=rm_bench.PAIRS)


def test_a_published_matrix_from_recorded_pairs(tmp_path):
    won = np.array(FSFAIRX_CHAT).ravel()
    recorded = [
        Recorded(base.pair_id(str(prompt), pair), (Vote((1, 0) if prompt < round(share * 1.83) else (0, 0)),), "chat")
        for prompt in range(183)
        for pair, share in zip(rm_bench.PAIRS, won, strict=True)
    ]
    benchmark = catalogue.get("rm_bench")
    answers = matching.stand_alone(benchmark, recorded, "f")
    assert len(answers) == 183
    found = figures.compute(benchmark, answers, intervals=False).table["chat"]
    percent = {name: round(100 * found[name].value, 2) for name in ("hard", "normal", "easy")}
    assert percent == {"hard": 18.58, "normal": 72.13, "easy": 93.26}
    cells = [[round(100 * found[f"right_{i}_wrong_{j}"].value, 2) for j in range(3)] for i in range(3)]
    assert cells == FSFAIRX_CHAT


def test_six_scores_by_hand():
    # Right 5, 3, 9 against wrong 4, 5, 1.
    found = by_hand.table("rm_bench", six(5, 3, 9, 4, 5, 1))["chat"]
    matrix = [[1, 0, 1], [0, 0, 1], [1, 1, 1]]  # 5 against 5 is a tie, and so not won
    assert [[found[f"right_{i}_wrong_{j}"] for j in range(3)] for i in range(3)] == matrix
    assert (found["hard"], found["normal"], found["easy"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found["official"] == found["strict"] == pytest.approx(6 / 9) and found["paper"] == pytest.approx(6.5 / 9)
    unread = by_hand.table("rm_bench", six())["chat"]
    assert (unread["official"], unread["paper"]) == (0, 1 / 2)


def test_domains_count_the_same_and_both_parts_of_safety_are_one():
    good, bad = (9, 9, 9, 1, 1, 1), (1, 1, 1, 9, 9, 9)
    answers = [six(*good), six(*bad, domain="code"), six(*good, domain="math"), six(*bad, domain="math")]
    answers += [six(*good, domain="safety-refuse")] * 3 + [six(*bad, domain="safety-response")]
    table = {name: columns["official"] for name, columns in by_hand.table("rm_bench", *answers).items()}
    assert table == pytest.approx(
        {"Overall": (1 + 0 + 1 / 2 + 3 / 4) / 4, "chat": 1, "code": 0, "math": 1 / 2, "safety": 3 / 4, "all items": 5 / 8}
    )
    assert "Overall" not in by_hand.table("rm_bench", *answers[:4])


def test_the_tie_rate_is_that_of_pairs():
    answer = six(5, 5, 5, 5, 1, 1)
    assert answer.ties == pytest.approx(3 / 9)


def test_files(tmp_path):
    row = {"id": 8, "prompt": "p", "subset": "alpacaeval", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    benchmark = catalogue.get("rm_bench")
    (tmp_path / "safety-refuse_filtered.json").write_text(json.dumps([row]))
    (item,) = benchmark.read(tmp_path, "fatal", ReadReport())
    assert (item.id, item.subset, item.n, len(base.as_pairs([item]))) == ("safety-refuse/8", "safety-refuse", 6, 9)
    assert base.as_pairs([item])[1].comparison.responses == ("a", "e")
    (tmp_path / "total_dataset.json").write_text(json.dumps([row | {"domain": "chat"}]))  # holds all of them
    assert [item.id for item in benchmark.read(tmp_path, "fatal", ReadReport())] == ["chat/8"]
    (tmp_path / "total_dataset.json").write_text(json.dumps([row | {"chosen": ["a"]}]))
    with pytest.raises(InputError, match="total_dataset.json: row 1: chosen has 1 entries instead of 3"):
        benchmark.read(tmp_path, "fatal", ReadReport())


def test_recorded_scores_of_another_width_are_refused():
    with pytest.raises(InputError, match="f: item 'a': 2 responses instead of 6"):
        matching.stand_alone(catalogue.get("rm_bench"), [Recorded("a", (Vote((1, 2)),))], "f")
