"""The orders in which responses are shown: pure functions of (seed, id), the same on every machine."""

import hashlib
import struct


def stable_hash(id: str) -> int:
    """A 32-bit hash of an id that, unlike Python's, is the same in every process; fit for `jax.random.fold_in`."""
    return int.from_bytes(hashlib.blake2b(_bytes(id), digest_size=4).digest(), "little")


def balanced_orders(n: int, seed: int, id: str) -> list[tuple[int, ...]]:
    """The n rows of a Latin square: sample s shows the responses in the order of row s % n.

    Over n samples each response stands once at each position, so over any number of samples its counts by position differ by
    at most one. For even n it is a Williams design: each response also follows each other one exactly once. The first
    row is a rotation drawn from (seed, id).
    """
    if n < 1:
        raise ValueError(f"no order of {n} responses")
    first = list(range(n)) if n % 2 else [j // 2 if j % 2 == 0 else n - 1 - j // 2 for j in range(n)]
    rotation = _words(1, f"balanced/{seed}/{id}")[0] % n
    return [tuple((response + rotation + row) % n for response in first) for row in range(n)]


def random_order(n: int, seed: int, id: str, index: int, repeat: int = 0) -> tuple[int, ...]:
    """A uniformly random order of n responses for this id, where `index` is a vote's sample or a training step.

    `repeat` counts, from 0, how often the id has come up already in that step.
    """
    drawn = f"{index}.{repeat}" if repeat else str(index)
    return tuple(sorted(range(n), key=_words(n, f"random/{seed}/{drawn}/{id}").__getitem__))


def sample_order(n: int, kind: str, seed: int, id: str, sample: int) -> tuple[int, ...]:
    """The order in which a vote's sample shows the responses; it does not depend on the number of samples.

    Args:
      n: number of responses.
      kind: 'balanced' or 'random'.
      seed: of the vote.
      id: of the comparison.
      sample: index of the sample.
    """
    if kind == "balanced":
        return balanced_orders(n, seed, id)[sample % n]
    return random_order(n, seed, id, sample)


def _words(count: int, text: str) -> tuple[int, ...]:
    # A hash instead of a NumPy Generator: this runs once per sample, and building a Generator costs ten times more.
    return struct.unpack(f"<{count}Q", hashlib.shake_128(_bytes(text)).digest(8 * count))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
