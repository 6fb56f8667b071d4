"""GSM8K conflict pairs: 1,319 questions with four models' solutions, checked; 2,429 pairs of a right and a wrong one.

A stand-in of the same shape as PPE Correctness, of OpenAI's `example_model_solutions.jsonl`. It is nobody's benchmark, so there
are no published figures to compare with, and its own must not be called PPE's. A row's `ground_truth` is the
reference answer.
"""

import os
from collections.abc import Sequence

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading, sampled

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    def make(row: reading.Row, index: int) -> list[base.Item]:
        solutions = [reading.field_of(row, model) for model in MODELS]
        right = [float(reading.one_of(solution, "is_correct", (True, False))) for solution in solutions]
        pairs = [[i, j] for i in range(len(right)) for j in range(len(right)) if right[i] > right[j]]
        if not pairs:
            return reading.leave_out(report, str(index), "the solutions are all right or all wrong")
        texts, label = [solution.get("solution") for solution in solutions], {"scores": right, "pairs": pairs}
        pairs = sampled.winners_first(right, pairs)
        question, reference = reading.text(row, "question"), row.get("ground_truth")
        return [reading.item(str(index), question, texts, None, "GSM8K", label, pairs, reference)]

    items = []
    for file in reading.find(path, "example_model_solutions.jsonl*"):
        items += reading.items(file, on_bad, report, make)
    return reading.check_ids(items, path)


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    return sampled.blocks(answers)


BENCHMARK = base.Benchmark(
    name="gsm8k_pairs",
    title="GSM8K conflict pairs",
    licence="MIT",
    data="grade_school_math/data/example_model_solutions.jsonl of openai/grade-school-math",
    metric="accuracy on pairs of a right and a wrong solution",
    read=_read,
    blocks=_blocks,
    fixed=False,
    by_pairs=True,
    complete=sampled.complete,
)
