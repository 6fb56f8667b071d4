"""PPE Correctness [Frick et al., 2024]: 2,555 prompts of five domains with 32 sampled responses each, checked by a program.

Metric of the SPCT paper (and of J1): accuracy on `sampled_conflict_pairs`, one right and one wrong response each, per domain,
and the plain mean of the five domains. How the official code counts ties is not verified: `official` takes them as wrong. For a
judge that scores all responses of a prompt, the best-of-K curve is the expected correctness of the highest-scored of k of them,
`end_score` its end and `max_score` its highest point. A pair that a row lists twice counts twice.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base, reading, sampled

DOMAINS = {"mmlu": "MMLU-Pro", "math": "MATH", "gpqa": "GPQA", "mbpp": "MBPP-Plus", "ifeval": "IFEval"}


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "*.parquet", "*.jsonl", "*.jsonl.gz", "*.json"):
        domain = _domain(file)
        items += reading.items(file, on_bad, report, lambda row, index, domain=domain: _item(row, domain))
    return reading.check_ids(items, path)


def _domain(file: pathlib.Path) -> str:
    """The domain in a file's name, or in that of the nearest directory that names one."""
    for part in reversed(file.parts):
        for key, domain in DOMAINS.items():
            if key in part.lower():
                return domain
    raise InputError(f"{file}: neither the file nor a directory above it names a domain ({', '.join(DOMAINS.values())})")


def _item(row: reading.Row, domain: str) -> base.Item:
    right = reading.list_of(row, "scores", (bool, int, float))
    pairs = [[_index(one) for one in pair] for pair in reading.list_of(row, "sampled_conflict_pairs", list)]
    winners = sampled.winners_first(right, pairs)
    responses = [reading.field_of(row, f"response_{number}") for number in range(1, len(right) + 1)]
    id = f"{domain}/{reading.name(row, 'question_id')}"
    label = {"scores": [float(score) for score in right], "pairs": pairs}
    prompt, reference = reading.text(row, "prompt"), row.get("correct_choice")
    return reading.item(id, prompt, responses, None, domain, label, winners, reference)


def _index(value: Any) -> Any:
    """A whole number that stands in the data as 3.0; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    return sampled.blocks(answers, tuple(DOMAINS.values()))


BENCHMARK = base.Benchmark(
    name="ppe_correctness",
    title="PPE Correctness",
    licence="prompts of several licences, outputs under their providers' terms; for benchmarking, not for training",
    data="lmarena-ai/PPE-{MMLU-Pro,MATH,GPQA,MBPP-Plus,IFEval}-Best-of-K, parquet or JSON, the domain in the path of each file",
    metric="mean of five domains of the accuracy on conflict pairs",
    read=_read,
    blocks=_blocks,
    fixed=False,
    by_pairs=True,
    by_ending=True,
    complete=sampled.complete,
)
