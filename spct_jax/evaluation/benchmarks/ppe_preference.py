"""PPE Preference [Frick et al., 2024]: 16,038 pairs with people's votes from Chatbot Arena; 10.2 thousand without ties.

Metric of the SPCT paper (and of J1): accuracy on the pairs that people did not call a tie. How the official code counts a
judge's ties is not verified: `official` takes them as wrong.
"""

import os
from collections.abc import Sequence

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading

_WINNERS = ("model_a", "model_b", "tie", "tie (bothbad)")


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    def make(row: reading.Row, index: int) -> list[base.Item]:
        winner, id = reading.one_of(row, "winner", _WINNERS), reading.name(row, "question_id")
        if winner.startswith("tie"):
            return reading.leave_out(report, id, "people voted for a tie")
        best, responses = _WINNERS.index(winner), reading.fields(row, "response_1", "response_2")
        language = "English" if row.get("language", "English") == "English" else "other languages"
        return [reading.item(id, reading.field_of(row, "prompt"), responses, best, language)]

    items = []
    for file in reading.find(path, "*.parquet", "*.jsonl", "*.jsonl.gz", "*.json"):
        items += reading.items(file, on_bad, report, make)
    return reading.check_ids(items, path)


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    subsets = [answer.item.subset for answer in answers]
    columns = base.standard(answers)
    return [base.Block(subsets, {"official": columns["strict"]} | columns, {"all items": base.micro(subsets)})]


BENCHMARK = base.Benchmark(
    name="ppe_preference",
    title="PPE Preference",
    licence="prompts CC-BY-4.0, outputs under their providers' terms; for benchmarking, not for training",
    data="the split `test` of lmarena-ai/PPE-Human-Preference-V1, as parquet or JSON",
    metric="accuracy on the pairs without a tie",
    read=_read,
    blocks=_blocks,
    by_ending=True,
    complete=base.best_by("model_a", "model_b"),
)
