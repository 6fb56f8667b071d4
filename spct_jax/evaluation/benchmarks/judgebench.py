"""JudgeBench [Tan et al., 2024]: 350 pairs of GPT-4o and 270 of Claude, one objectively right and one wrong, hard to tell
apart.

Official metric (their `utils/metrics.py`): two games, the responses as given and swapped. A game adds 1 to a counter where its
verdict is the label, takes 1 away where it is the opposite, and does nothing for a tie or a verdict that cannot be read; the
pair counts as right where the counter ends above 0. A reward model's verdict is "A>B" where A's score is higher and "B>A"
otherwise, so equal scores go to the response shown second and cancel out over two games, but may count as right in a single
one. `official` is two games, `single_game` the plain accuracy of the first, and `both` the share that is right in both games;
`two_games_ties_undecided` treats equal scores as a tie. Their tables are over all items ("all items"), some others' the plain
mean of the four categories.
"""

import os
from collections.abc import Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading
from spct_jax.grm import voting

CATEGORIES = {
    "mmlu-pro": "Knowledge",
    "livebench-reasoning": "Reasoning",
    "livebench-math": "Math",
    "livecodebench": "Coding",
}


def _category(subset: str) -> str:
    return next((name for prefix, name in CATEGORIES.items() if subset.lower().startswith(prefix)), subset)


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "*.jsonl", "*.jsonl.gz", "*.parquet"):
        items += reading.items(file, on_bad, report, _item)
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int) -> base.Item:
    best = ("A>B", "B>A").index(reading.one_of(row, "label", ("A>B", "B>A")))
    responses = reading.fields(row, "response_A", "response_B")
    id, subset = reading.text(row, "pair_id"), _category(reading.text(row, "source"))
    names = [name for name in ("original_id", "source", "response_model") if row.get(name) is not None]
    published = {name: reading.text_or_number(row, name) for name in names}
    return reading.item(id, reading.text(row, "question"), responses, best, subset, published)


def _verdict(game: base.Answer | None, swapped: bool, undecided: bool = False) -> int | None:
    """Which response a game is won by; None for a tie and for a verdict that cannot be read."""
    totals = None if game is None else game.totals
    top = voting.winners(totals)
    if len(top) > 1 and not game.decides and not undecided:
        return 0 if swapped else 1
    return top[0] if len(top) == 1 else None


def _counts(verdicts: Sequence[int | None], best: int) -> float:
    return float(sum((verdict == best) - (verdict == 1 - best) for verdict in verdicts) > 0)


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    subsets = [_category(answer.item.subset) for answer in answers]
    games, best = [answer.games() for answer in answers], [answer.item.best for answer in answers]
    columns = {}
    if all(None not in pair for pair in games):
        verdicts = [(_verdict(first, False), _verdict(second, True)) for first, second in games]
        plain = [(_verdict(first, False, True), _verdict(second, True, True)) for first, second in games]
        columns = {
            "official": np.array([_counts(pair, right) for pair, right in zip(verdicts, best, strict=True)]),
            "both": np.array([float(pair == (right, right)) for pair, right in zip(verdicts, best, strict=True)]),
            "two_games_ties_undecided": np.array([_counts(pair, right) for pair, right in zip(plain, best, strict=True)]),
        }
    if all(first is not None for first, _ in games):
        firsts = [_verdict(first, False) for first, _ in games]
        columns["single_game"] = np.array([float(one == right) for one, right in zip(firsts, best, strict=True)])
    aggregates = {"all items": base.micro(subsets)} | {name: {name: 1.0} for name in CATEGORIES.values() if name in subsets}
    return [base.Block(subsets, columns | base.standard(answers), aggregates | {"mean of categories": base.macro(subsets)})]


BENCHMARK = base.Benchmark(
    name="judgebench",
    title="JudgeBench",
    licence="no licence file",
    data="data/dataset=judgebench,response_model=*.jsonl of ScalerLab/JudgeBench",
    metric="share of pairs that win more of two games than they lose",
    read=_read,
    blocks=_blocks,
    by_ending=True,
    rules=base.TWO_GAMES,
    complete=base.best_by("A>B", "B>A"),
)
