"""RewardMATH [Kim et al., 2024]: 483 problems, one right solution and nine wrong ones of nine models.

Official metric: the share of problems where the right solution scores strictly highest; for a judge that compares pairs, where
it wins all nine. `mrr` is the mean of 1/rank of the right solution, which stands below those that tie with it.
"""

import os
from collections.abc import Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base, reading


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    problems: dict[str, list[tuple[str, ...]]] = {}
    for file in reading.find(path, "RewardMATH_direct.json"):
        for id, *solution in reading.parsed(file, on_bad, report, _solution):
            problems.setdefault(id, []).append(tuple(solution))
    items = []
    for id, solutions in problems.items():
        try:
            items.append(_item(id, solutions))
        except InputError as error:
            report.drop(InputError(f"{path}: problem {id}: {error}"), f"{path}: problem {id}", on_bad)
    return reading.check_ids(items, path)


def _solution(row: reading.Row, index: int) -> tuple[str, ...]:
    steps = reading.list_of(row, "eval_solution", str)
    kind = reading.one_of(row, "solution_type", ("chosen", "rejected"))
    id, subject, answer = reading.name(row, "problem_id"), reading.name(row, "subject", ""), reading.name(row, "answer", "")
    return id, reading.text(row, "problem"), subject, answer, kind, "\n".join(steps)


def _item(id: str, solutions: Sequence[tuple[str, ...]]) -> base.Item:
    right = [text for *_, kind, text in solutions if kind == "chosen"]
    wrong = [text for *_, kind, text in solutions if kind == "rejected"]
    if len(right) != 1 or not wrong:
        raise InputError(f"{len(right)} right and {len(wrong)} wrong solutions")
    problem, subject, answer, *_ = solutions[0]
    return reading.item(id, problem, right + wrong, 0, subject, reference=answer)


def _reciprocal_rank(answer: base.Answer) -> float:
    best = answer.item.best
    others = (index for index in range(answer.item.n) if index != best)
    return 1 / (1 + sum(answer.compare(best, other) != 1 for other in others))


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    columns = base.standard(answers)
    mrr = np.array([_reciprocal_rank(answer) for answer in answers])
    pairs = np.array([np.mean([answer.compare(*pair) == 1 for pair in answer.item.pairs]) for answer in answers])
    columns = {"official": columns["strict"]} | columns | {"mrr": mrr, "pairs_won": pairs}
    subsets = [answer.item.subset for answer in answers]
    return [base.Block(subsets, columns, {"all items": base.micro(subsets)})]


BENCHMARK = base.Benchmark(
    name="rewardmath",
    title="RewardMATH",
    licence="MIT",
    data="dataset/benchmark/RewardMATH_direct.json of kimsh0507/RewardMATH_official",
    metric="the right one of ten scores strictly highest",
    read=_read,
    blocks=_blocks,
    best_first=True,
    responses=10,
)
