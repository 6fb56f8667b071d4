"""Rewards of groups, the completions of one prompt, and the advantages that they give (paper Eq. 15).

A reward of a user's own is computed in float64, and two ways of computing the same number differ in its last bits; divided by
their own standard deviation such differences would be as large as any. So rewards of a group that differ by less than a
millionth of the largest are equal, here and wherever it is asked whether a group can teach something.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Num

from spct_jax.grm.prompts import Rollout
from spct_jax.grm.rewards import Reward

EQUAL = 1e-6
"""Rewards that differ by no more than this share of the largest magnitude in their group are equal."""


def rewards_of(rollouts: Sequence[Rollout], reward: Reward) -> Float64[np.ndarray, "B G"]:
    """The reward of every completion."""
    return np.array([[reward(s, r.truth, text) for s, text in zip(r.scores, r.texts, strict=True)] for r in rollouts], float)


def with_signal(rewards: Num[np.ndarray, "B G"]) -> Bool[np.ndarray, " B"]:
    """Which groups have unequal rewards."""
    return np.ptp(_relative(rewards), axis=1) > EQUAL


def advantages(rewards: Num[np.ndarray, "B G"]) -> Float[np.ndarray, "B G"]:
    """(r - mean) / std within each group, population std, in float32; zero where all rewards of a group are equal."""
    relative, unequal = _relative(rewards), with_signal(rewards)[:, None]
    least, spread = relative.min(axis=1, keepdims=True), np.ptp(relative, axis=1, keepdims=True)
    # From 0 to 1 before they are rounded: float32 would not tell 0.7 from 0.7000001.
    parts = ((relative - least) / np.where(unequal, spread, 1)).astype(np.float32)
    centred = parts - parts.mean(axis=1, keepdims=True)
    return np.where(unequal, centred / np.where(unequal, parts.std(axis=1, keepdims=True), 1), 0).astype(np.float32)


def _relative(rewards: Num[np.ndarray, "B G"]) -> Float64[np.ndarray, "B G"]:
    """Rewards in parts of the largest magnitude of their group."""
    rewards = np.asarray(rewards, float)
    largest = np.abs(rewards).max(axis=1, keepdims=True)
    return rewards / np.where(largest > 0, largest, 1)
