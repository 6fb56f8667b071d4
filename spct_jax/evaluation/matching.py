"""Recorded votes, put to the items that they are on: those of a benchmark's data, or what the votes themselves say of them."""

import dataclasses
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks.base import Answer, Benchmark, Item, pair_id
from spct_jax.evaluation.recorded import Recorded


def join(
    items: Sequence[Item], recorded: Sequence[Recorded], path: str | os.PathLike, left_out: Collection[str] = ()
) -> list[Answer]:
    """The items of a benchmark with the votes on them: on each item, or on each of its pairs (see `base.as_pairs`).

    Args:
        items: all that count.
        recorded: the votes, in any order.
        path: of the file they were read from, for errors. Its ids are the items', with or without the subset before them.
        left_out: ids of what the data has besides; votes on it are passed over.

    Raises:
        InputError: naming the file and the id, where votes are on something else, are missing, are on too few or too many
            responses, or score some single responses and decide about others.
    """
    counted = [one for one in recorded if one.id not in left_out and f"{one.subset}/{one.id}" not in left_out]
    by_id = _by_item_or_pair(items, counted, path)
    wanted: dict[str, int] = {}
    for item in items:
        whole = item.id in by_id or item.n <= 2 or not any(pair_id(item.id, pair) in by_id for pair in item.pairs)
        wanted |= {item.id: item.n} if whole else {pair_id(item.id, pair): 2 for pair in item.pairs}
    for id in by_id.keys() - wanted.keys():
        raise InputError(f"{by_id[id].where or path}: scores both of an item and of its pairs ({id!r})")
    for id, n in wanted.items():
        if id not in by_id:
            raise InputError(f"{path}: no scores of an item ({id!r}; {len(wanted):,} are wanted, {len(by_id):,} are there)")
        _check_width(by_id[id], n, path)
    _check_alike([by_id[item.id] for item in items if item.n == 1], path)
    answers = []
    for item in items:
        if item.id in by_id:
            answers.append(Answer(item, by_id[item.id].votes))
        else:
            answers.append(Answer(item, by_pair={pair: by_id[pair_id(item.id, pair)].votes for pair in item.pairs}))
    return answers


def _by_item_or_pair(items: Sequence[Item], recorded: Sequence[Recorded], path: str | os.PathLike) -> dict[str, Recorded]:
    """What was recorded, by the id of the item or pair, which it may name without its subset where only one has that name.

    Of a subset that is a path, as "Adversarial/Manual", the last part is enough.
    """
    names: dict[str, list[str]] = {}
    for item in items:
        for id in (item.id, *(pair_id(item.id, pair) for pair in dict.fromkeys(item.pairs))):
            short = id.removeprefix(f"{item.subset}/")
            for name in {id, short, f"{item.subset.rpartition('/')[2]}/{short}"}:
                names.setdefault(name, []).append(id)
    by_id: dict[str, Recorded] = {}
    for one in recorded:
        full, where = f"{one.subset}/{one.id}", one.where or path
        exact = next(([id] for id in (one.id, full) if id in names.get(id, ())), None)
        found = exact or names.get(full) or names.get(one.id, [])
        if not found:
            raise InputError(f"{where}: scores of an unknown item ({one.id!r})")
        if len(found) > 1:
            raise InputError(
                f"{where}: {len(found)} items have this id, so it needs its subset ({one.id!r}, as in {found[0]!r})"
            )
        if found[0] in by_id:
            raise InputError(f"{where}: scores of an item that has some already ({found[0]!r})")
        by_id[found[0]] = one
    return by_id


def stand_alone(benchmark: Benchmark, recorded: Sequence[Recorded], path: str | os.PathLike) -> list[Answer]:
    """Answers made of recorded votes alone, where the benchmark's data is not at hand.

    The lines say what the data would: `n` where all rows are null or only decide, `best` unless the right response comes first
    by the benchmark's convention, and `label` where its metric needs one. Lines with ids of pairs (see `base.as_pairs`) are put
    together to items.

    Raises:
        InputError: naming the file and the id of a line that does not, and otherwise as `join`.
    """
    answers, pairs = [], {}
    has_pairs = not benchmark.fixed or benchmark.responses > 2
    for one in recorded:
        if has_pairs and (named := _PAIR.fullmatch(one.id)):
            pair = tuple(int(index[:9]) for index in named.group(2, 3))  # of thousands of digits, enough
            if max(pair) >= MOST_RESPONSES:
                raise InputError(f"{one.where or path}: item {one.id!r:.80}: a pair of more than {MOST_RESPONSES:,} responses")
            if pair[0] == pair[1]:
                raise InputError(f"{one.where or path}: item {one.id!r}: a pair of one response with itself")
            pairs.setdefault((one.subset, named[1]), {})[pair] = one
        else:
            answers.append(_alone(benchmark, one, path))
    for (subset, id), group in pairs.items():
        answers.append(_alone_by_pairs(benchmark, Recorded(id, (), subset), group, path))
    if benchmark.responses == 1:
        _check_alike(recorded, path)
    return answers


_PAIR = re.compile(r"(.+)/(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")
"""The form of `base.pair_id`."""
MOST_RESPONSES = 4096
"""Of an item whose votes have no scores that show how many there are."""


def _alone(benchmark: Benchmark, one: Recorded, path: str | os.PathLike) -> Answer:
    try:
        item = _item(benchmark, one)
        if benchmark.fixed and item.n != benchmark.responses:
            raise InputError(f"{item.n} responses instead of {benchmark.responses}")
        item = benchmark.complete(item)
    except InputError as error:
        raise InputError(f"{one.where or path}: item {one.id!r}: {error}") from None
    _check_width(one, item.n, path)
    return Answer(item, one.votes)


def _alone_by_pairs(
    benchmark: Benchmark, one: Recorded, group: Mapping[tuple[int, int], Recorded], path: str | os.PathLike
) -> Answer:
    for pair in group.values():
        _check_width(pair, 2, path)
        if pair.line.get("best", 0) != 0:
            raise InputError(f"{pair.where or path}: item {pair.id!r}: the first of a pair must be the better one")
    n = benchmark.responses if benchmark.fixed else 1 + max(max(pair) for pair in group)
    item = Item(one.id, n, 0 if benchmark.best_first else None, one.subset, pairs=benchmark.pairs)
    if not item.pairs:  # which pairs there should be is only known to the data
        item = dataclasses.replace(item, pairs=tuple(group))
    if group.keys() != set(item.pairs):
        missing = sorted(set(item.pairs) - group.keys())
        what = f"no scores of pair {pair_id(one.id, missing[0])!r}" if missing else "scores of pairs that it does not have"
        raise InputError(f"{path}: item {one.id!r}: {what}")
    return Answer(item, by_pair={pair: votes.votes for pair, votes in group.items()})


def _item(benchmark: Benchmark, one: Recorded) -> Item:
    widths = [len(vote.scores) for vote in one.votes if vote.scores is not None]
    n = one.line.get("n", widths[0] if widths else benchmark.responses)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= max([MOST_RESPONSES, *widths]):
        raise InputError(f"n is not a number of responses from 1 to {MOST_RESPONSES:,} ({n!r:.40})")
    best = one.line.get("best", 0 if benchmark.best_first else None)
    if best is not None and (isinstance(best, bool) or not isinstance(best, int) or not 0 <= best < n):
        raise InputError(f"best is not the index of one of {n} responses ({best!r})")
    label = one.line.get("label")
    try:
        json.dumps(label, allow_nan=False)
    except ValueError:
        raise InputError(f"label is, or holds, a number that is not finite ({label!r:.60})") from None
    return Item(one.id, n, best, one.subset, label)


def _check_width(one: Recorded, n: int, path: str | os.PathLike) -> None:
    where = f"{one.where or path}: item {one.id!r}"
    for vote in one.votes:
        if vote.order is not None and len(vote.order) != n:
            raise InputError(f"{where}: an order of {len(vote.order)} for {n} responses")
        if vote.scores is not None and len(vote.scores) != n:
            raise InputError(f"{where}: a row of {len(vote.scores)} scores for {n} responses")
        if isinstance(vote.decision, int) and vote.decision >= max(n, 2):
            raise InputError(f"{where}: decision {vote.decision} for {n} responses (they count from 0)")


def _check_alike(singles: Sequence[Recorded], path: str | os.PathLike) -> None:
    """InputError where some single responses, which are compared with each other, are scored and others decided about."""
    kinds: dict[str, Recorded] = {}
    for one in singles:
        for vote in one.votes:
            if vote.valid:
                kinds.setdefault("scores" if vote.decision is None else "decisions", one)
        if len(kinds) > 1:
            (first, other), (second, _) = kinds.items()
            raise InputError(
                f"{one.where or path}: item {one.id!r} has {second} where item {other.id!r} has {first}; a file of single "
                "responses must have one or the other"
            )
