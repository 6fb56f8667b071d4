"""All that is said about one set of votes on a benchmark: every way of judging by them, per subset, by k, by position."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tqdm

from spct_jax.errors import InputError
from spct_jax.evaluation import figures, metrics, position
from spct_jax.evaluation.benchmarks.base import Answer, Benchmark
from spct_jax.evaluation.recorded import Vote

GREEDY, SAMPLED = "greedy", "sampled"
PATIENCE = 3
"""Seconds before progress is shown."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """One way of judging.

    Attributes:
      name: such as `greedy`, `vote@32` and `meta@32/16`.
      votes: which votes it is of, `GREEDY` or `SAMPLED`.
      k: how many votes on each item, the first ones; all of them where it is None.
      k_meta: how many of those are kept by the meta rewards; all where it is None.
    """

    name: str
    votes: str
    k: int | None
    k_meta: int | None = None


def choose(votes: Mapping[str, Sequence[Answer]], ks: Sequence[int], k_metas: Sequence[int]) -> list[Measure]:
    """The ways of judging by these votes.

    Args:
      votes: `GREEDY` and `SAMPLED` answers, or one of them.
      ks: numbers of votes; none stands for all that there are.
      k_metas: numbers of votes kept by the meta rewards, each for every k above it; none stands for half of each k, where
        there are meta rewards.

    Raises:
      InputError: there are not so many votes, or no meta rewards; or as of `check_kept`.
    """
    chosen = []
    if GREEDY in votes:
        chosen = [Measure("greedy", GREEDY, 1)]
        if (most := figures.most_votes(votes[GREEDY])) > 1:
            chosen.append(Measure(f"greedy@{most}", GREEDY, most))
    if SAMPLED not in votes:
        return chosen
    sampled = votes[SAMPLED]
    most = figures.most_votes(sampled)
    if ks and max(ks) > most:
        raise InputError(f"--k: {max(ks)} is more than the {most} votes that there are on some items")
    rewarded = any(vote.meta is not None for answer in sampled for vote in answer.all_votes)
    if k_metas and not rewarded:
        raise InputError("--k_meta: the votes have no meta rewards")
    check_kept(ks or [most], k_metas)
    if not ks:
        same = most == figures.most_votes(sampled, max)
        chosen.append(Measure(f"vote@{most}" if same else "all votes", SAMPLED, None))
    chosen += [Measure(f"vote@{k}", SAMPLED, k) for k in ks]
    for k in (ks or [most]) if rewarded else ():
        kept = [k_meta for k_meta in k_metas if k_meta < k] if k_metas else [metrics.guided_votes(k)] * (k > 1)
        chosen += [Measure(f"meta@{k}/{k_meta}", SAMPLED, k, k_meta) for k_meta in kept]
    return chosen


def check_kept(ks: Sequence[int], k_metas: Sequence[int]) -> None:
    """InputError for a number of votes kept by the meta rewards that is below none of the numbers of votes."""
    if k_metas and max(k_metas) >= max(ks):
        raise InputError(f"--k_meta: {max(k_metas)} is not below any number of votes ({', '.join(map(str, ks))})")


def compute(
    benchmark: Benchmark,
    votes: Mapping[str, Sequence[Answer]],
    ks: Sequence[int] = (),
    k_metas: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of every way of judging, as JSON.

    Args:
      benchmark: says what answers earn.
      votes: `GREEDY` and `SAMPLED` answers, or one of them, on the same items.
      ks: see `choose`.
      k_metas: see `choose`.
      seed: of the resampling.

    Returns:
      `measures`: for each way of judging `figures.Figures`, and `by_subset`: for each subset of items its size and the rates of
        ties and of votes that are malformed or truncated.
      `by_k`: for votes, and guided votes, the headline figure (the paper's credit) and its interval for each k.
      `position`: see `position.figures`, for each of the votes.
      `chance`: the headline figure, by the paper's credit, of a judge that guesses; None where that is not known.
    """
    made = {}
    for measure in tqdm.tqdm(choose(votes, ks, k_metas), "figures", unit="way", delay=PATIENCE):
        answers = votes[measure.votes]
        found = figures.compute(benchmark, answers, measure.k, measure.k_meta, seed).to_json()
        drawn, kept = figures.cut(answers, measure.k), figures.cut(answers, measure.k, measure.k_meta)
        made[measure.name] = {
            **dataclasses.asdict(measure),
            **found,
            **_rates(drawn, kept),
            "by_subset": _rates_by_subset(drawn, kept),
        }
    return {
        "chance": _chance(benchmark, next(iter(votes.values()))),
        "measures": made,
        "by_k": _by_k(benchmark, votes[SAMPLED], made, seed) if SAMPLED in votes else {},
        "position": {name: found for name, answers in votes.items() if (found := position.figures(answers))},
    }


def _chance(benchmark: Benchmark, answers: Sequence[Answer]) -> float | None:
    """Nothing read earns what guessing does, but for items of several right responses, of which nobody says what it earns."""
    if any(answer.item.n > 2 and answer.item.best is None and not answer.item.pairs for answer in answers):
        return None
    unread = [
        Answer(answer.item, (Vote(),), None if answer.by_pair is None else dict.fromkeys(answer.by_pair, (Vote(),)))
        for answer in answers
    ]
    found = headline(figures.compute(benchmark, unread, intervals=False).to_json())
    return found and found["value"]


def _rates(drawn: Sequence[Answer], kept: Sequence[Answer]) -> dict[str, float | None]:
    """Ties of the votes that are kept; malformed and truncated ones of all that were drawn, since none of those is kept."""
    return figures.rates(drawn) | {"tie_rate": figures.rates(kept)["tie_rate"]}


def _rates_by_subset(drawn: Sequence[Answer], kept: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    groups: dict[str, tuple[list[Answer], list[Answer]]] = {}
    for one, other in zip(drawn, kept, strict=True):
        group = groups.setdefault(one.item.subset, ([], []))
        group[0].append(one)
        group[1].append(other)
    return {name: {"items": len(groups[name][0]), **_rates(*groups[name])} for name in sorted(groups)}


def headline(found: Mapping[str, Any], column: str = "paper") -> Mapping[str, Any] | None:
    """The figure in this column that stands for a way of judging, that of its first aggregate that has one; else None."""
    return next((row[column] for row in found["table"].values() if column in row), None)


def _by_k(benchmark: Benchmark, answers: Sequence[Answer], made: Mapping[str, Mapping], seed: int) -> dict:
    """Of every power of two besides what was asked, since that costs no vote."""
    asked = [m for m in made.values() if m["votes"] == SAMPLED and m["k"] is not None]
    if not asked or max(m["k"] for m in asked) == 1:
        return {}
    most = max(m["k"] for m in asked)
    ks = sorted({m["k"] for m in asked} | {2**power for power in range(most.bit_length()) if 2**power <= most})
    lines: dict[str, dict[int, int | None]] = {"vote": dict.fromkeys(ks)}
    for m in asked:
        if m["k_meta"] is not None and m["k_meta"] == metrics.guided_votes(m["k"]):
            lines["meta, half of k"] = {k: metrics.guided_votes(k) for k in ks}
        elif m["k_meta"] is not None:
            lines[f"meta, {m['k_meta']} of k"] = {k: m["k_meta"] for k in ks if k >= m["k_meta"]}
    curves = {}
    points = [(name, k, k_meta) for name, line in lines.items() for k, k_meta in line.items()]
    for name, k, k_meta in tqdm.tqdm(points, "by number of votes", unit="point", delay=PATIENCE):
        found = figures.compute(benchmark, answers, k, k_meta, seed).to_json()
        if (figure := headline(found)) is not None:
            curves.setdefault(name, {})[str(k)] = figure
    return curves
