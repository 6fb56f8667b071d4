"""The length buckets of a stage: those of the config, or a few that are chosen from the lengths of its own data.

They follow from the configuration and the data, and are kept with the stage, so that all of it is computed at the same ones.
"""

import itertools
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Int

from spct_jax.data.config import DataConfig
from spct_jax.rounding import ceil_div
from spct_jax.runtime import distributed
from spct_jax.storage import files
from spct_jax.training.buckets import Bucket, slots
from spct_jax.training.context import Run

ROWS = 2048
"""Rows whose lengths buckets are chosen from."""
USUAL = 8
"""Buckets of a stage; more only where these leave more than `PADDING` empty, since each of them takes time to compile."""
PADDING = 1 / 8
"""Share of the slots of the rows seen that may be empty."""
BATCHES = 64
"""Batches that are made of these rows, at random, to see how long the longest row of each micro-batch is."""
TRUNKS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Quantiles of the lengths of prompts that are tried as the slots of trunks."""
MULTIPLE = 8
"""Slots are multiples of this many."""
SPARE = 1.25
"""The second largest bucket has this many times the slots of the longest row seen: longer ones will come."""


def is_one_shape(data: DataConfig) -> bool:
    """Whether all updates of a stage are computed at one shape."""
    return not data.buckets and (not data.train or data.num_buckets == 1)


def buckets_of(
    run: Run,
    stage: str,
    group_size: int,
    batch: tuple[int, int],
    lengths: Callable[[int], Iterable[tuple[int, int]]],
    *,
    limits: Bucket | None = None,
    growth: float = 1.0,
) -> tuple[Bucket, ...]:
    """The buckets of a stage's rows of G completions, the one that holds everything last; () where there `is_one_shape`.

    Args:
      run: the run.
      stage: its name.
      group_size: G.
      batch: rows of a step and its micro-batches. All rows of one have one shape: there is one bucket more at most, the limits.
      lengths: gives those of the rows of a step: tokens of the prompt, and of its completions together.
      limits: longest prompt and completion of all; None for those of the config.
      growth: see `choose`.
    """
    data = run.config.data
    limits = limits or (data.max_prompt, data.max_completion)
    if data.buckets:
        return named(data, limits)
    if is_one_shape(data):
        return ()
    count = min(data.num_buckets, batch[1] + 1)
    path = run.workdir / stage / f"buckets_of_{group_size}.json"
    if not distributed.agree(path.exists()):
        rows = itertools.islice(itertools.chain.from_iterable(map(lengths, itertools.count())), max(ROWS, batch[0]))
        prompts, completions = np.array([*rows]).T
        files.make_directory(path.parent)
        files.write_json(path, {"buckets": choose(prompts, completions, group_size, count, limits, batch, growth)})
        distributed.barrier(f"buckets of {stage}, {group_size}")
    return tuple(map(tuple, files.read_json(path)["buckets"]))


def named(data: DataConfig, limits: Bucket | None = None) -> tuple[Bucket, ...]:
    """The buckets that the config names, within these limits or its own, which are the last one; () if it names none."""
    limits = limits or (data.max_prompt, data.max_completion)
    smaller = (tuple(map(min, bucket, limits)) for bucket in data.buckets)
    return (*dict.fromkeys(bucket for bucket in smaller if bucket != limits), limits) if data.buckets else ()


def choose(
    prompts: Int[np.ndarray, " N"],
    completions: Int[np.ndarray, " N"],
    group_size: int,
    count: int,
    limits: Bucket,
    batch: tuple[int, int],
    growth: float = 1.0,
) -> tuple[Bucket, ...]:
    """At most `count` buckets, ascending in slots, `limits` the last; the others have one prompt length and few empty slots.

    There are `USUAL` ones, or as many more as it takes until no more than `PADDING` of the slots is empty.

    Args:
      prompts: tokens of the prompt of each row seen.
      completions: tokens of its completions together.
      group_size: G.
      count: how many; at least 2.
      limits: the bucket that holds everything.
      batch: rows of a step and its micro-batches.
      growth: completions may become this many times longer; room is made for all factors from 1 to this.
    """
    drawn = np.random.default_rng(0).integers(0, len(prompts), (BATCHES, batch[0]))
    prompts, completions = prompts[drawn], completions[drawn]
    factors = np.linspace(1, growth, BATCHES)[:, None]
    longer = np.minimum(completions * factors, group_size * limits[1])
    tokens, most = (prompts - 1 + longer).mean() * batch[0], slots(limits, group_size)
    for number in range(min(count, USUAL), count + 1):
        chosen, computed = _of_one_trunk(prompts, longer, group_size, number, limits, batch[1])
        if 1 - tokens / computed <= PADDING:
            break
    return (*(bucket for bucket in chosen if slots(bucket, group_size) < most), limits)


def _of_one_trunk(
    prompts: Int[np.ndarray, "steps B"],
    completions: Float[np.ndarray, "steps B"],
    group_size: int,
    count: int,
    limits: Bucket,
    micro_batches: int,
) -> tuple[list[Bucket], float]:
    """(`count` - 1 buckets of the trunk that takes the fewest slots, ascending; slots of a step in them)."""
    steps, rows = prompts.shape
    found, unit = [], max(MULTIPLE // group_size, 1)
    for trunk in np.unique(np.quantile(prompts, TRUNKS, method="higher")):
        trunk = min(ceil_div(int(trunk), MULTIPLE) * MULTIPLE, limits[0])
        behind = np.sort((prompts - trunk).clip(0) + completions, axis=1)
        longest = behind.reshape(steps, micro_batches, -1)[..., -1].ravel()
        needed = np.ceil(longest / (group_size * unit)).astype(int) * unit
        levels, cost = partition(needed, max(count - 2, 1))
        if count > 2:
            levels.append(ceil_div(int(levels[-1] * SPARE), unit) * unit)
        computed = rows * (trunk - 1 + group_size * cost / len(needed))
        found.append((computed, [(trunk, level) for level in levels]))
    computed, chosen = min(found)
    return chosen, computed


def partition(numbers: Int[np.ndarray, " N"], count: int) -> tuple[list[int], int]:
    """(at most `count` of the numbers, ascending; a sum): the sum of all numbers, each raised to one of these, is the least."""
    values, counts = np.unique(numbers, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    # [first, last]: all values from the first to the last, raised to the last.
    raised = (before[None, 1:] - before[:-1, None]) * values.astype(float)
    raised[np.tri(len(values), k=-1, dtype=bool)] = np.inf
    least, begins = np.full(len(before), np.inf), []
    for _ in range(count):
        least[0] = 0  # least[i] is of the first i values; none costs nothing
        sums = least[:-1, None] + raised
        begins.append(sums.argmin(0))
        least = np.concatenate([[0], sums.min(0)])
    chosen, last = [], len(values)
    for begin in reversed(begins):
        if last:
            chosen.append(int(values[last - 1]))
            last = int(begin[last - 1])
    return chosen[::-1], int(least[-1])
