"""What all reward models with a scalar head share: one number at the last token of a completion.

The meta reward model rates critiques by it, Bradley-Terry responses, PairRM pairs of responses, and CLoud responses with a
critique of them. All completions of a prompt are branches of one trunk.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spct_jax import checkpoints, models, sharding
from spct_jax.checkpoints import ModelKind
from spct_jax.data import batches
from spct_jax.data.batches import Groups, TokenGroup
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.models import heads
from spct_jax.models.config import ModelConfig
from spct_jax.models.places import Places
from spct_jax.rounding import next_power_of_four, next_power_of_two
from spct_jax.runtime import distributed
from spct_jax.sharding import Layout

BATCH_TOKENS = 4096
"""About how many tokens of prompts and completions each device reads at once; what is missing is padding."""
MOST_BRANCHES = 16
"""Branches of one trunk; more completions of a prompt are read in several rows."""

FEW, MANY = 64, 1024
"""Lengths from which, and up to which, a shape has a power of four of tokens."""


def scalar_rewards(params: Any, config: ModelConfig, groups: Groups, preamble: models.Trunk | None = None) -> jax.Array:
    """Float32[B G]: the scalar head at the last token of each completion; of an absent one, at the prompt's last token.

    Args:
      params: {"model": ..., "head": ...}.
      config: the architecture.
      groups: prompts and completions.
      preamble: the trunk of what `groups.shared` counts; at their full shape, groups do without.
    """
    if groups.shape is None:
        return rewards_on(params, config, models.Prompts(groups.trunk_tokens, groups.trunk_lengths), groups)
    # A score is read one slot behind the completion, which a prediction of its tokens does without.
    groups.check_preamble(preamble)
    trunk_slots, slots = groups.shape
    places = Places.of(groups.lengths + 1, groups.rest, slots + groups.lengths.shape[1])
    tokens = places.trunks(groups.trunk_tokens, trunk_slots)
    prompts = models.Prompts(tokens, groups.own_lengths - groups.rest, preamble)
    inputs = places.inputs(groups.trunk_tokens, groups.inputs)
    hidden = models.extend(params["model"], config, prompts, inputs, places)
    last = places.first + groups.lengths
    return heads.score(params["head"], jnp.take_along_axis(hidden[:, 0], last[..., None], axis=1))


def rewards_on(params: Any, config: ModelConfig, trunk: models.Trunk | models.Prompts, groups: Groups) -> jax.Array:
    """`scalar_rewards` on these trunks or prompts; those that the groups have are not read."""
    hidden = models.extend(params["model"], config, trunk, groups.inputs)
    return heads.score(params["head"], jnp.take_along_axis(hidden, groups.lengths[..., None, None], axis=2)[:, :, 0])


@functools.cache
def make_scorer(layout: Layout, config: ModelConfig) -> Callable[[Any, Groups], jax.Array]:
    """The jitted `scalar_rewards`: a function of (params, groups), both on the devices as the layout splits them."""

    def score(params: Any, groups: Groups) -> jax.Array:
        with layout.constraints():
            return scalar_rewards(params, config, groups)

    # Parameters of all kinds with a head are the same tree.
    params, rows = layout.params(checkpoints.abstract_params(config, ModelKind.META_RM)), layout.sharding("batch")
    return jax.jit(score, in_shardings=(params, rows), out_shardings=rows)


def coarse_length(length: int) -> int:
    """The length that prompts or completions of `length` tokens are padded to.

    There are few, since a program is compiled for every pair of them; long ones are closer together, where padding is dear.
    """
    return next_power_of_four(max(length, FEW)) if length <= MANY else next_power_of_two(length)


@dataclasses.dataclass(frozen=True, eq=False)
class ScalarModel:
    """A decoder with a scalar head, on the devices."""

    layout: Layout
    params: Any
    """{"model": ..., "head": ...}, in the dtype of the model's arithmetic."""
    config: ModelConfig
    tokenizer: Tokenizer
    prompt: PromptConfig | None = None
    """The templates that its checkpoint carries."""
    digest: str = ""
    """Of its checkpoint."""

    @classmethod
    def load(cls, checkpoint: str | os.PathLike, kind: ModelKind, layout: Layout | None = None) -> "ScalarModel":
        """Loads a model directory of that kind; `layout` None: rows over all devices.

        Raises:
          InputError: the directory is not such a checkpoint.
        """
        layout = layout or sharding.make_layout()
        found = checkpoints.load(checkpoint, kind=kind, dtype=checkpoints.COMPUTE, shardings=layout.params)
        return cls(layout, found.params, found.config, found.tokenizer, found.prompt, found.digest)

    def rewards(self, groups: Sequence[TokenGroup]) -> list[list[float]]:
        """The reward of every completion of every group.

        There are few shapes, and a reward depends on the prompt, the completion and the shape only: neither on what else is
        read at the same time nor on its place there.

        Raises:
          InputError: a prompt and a completion have more tokens than the model has positions, or a reward is not finite.
        """
        found: list[list[float]] = [[0.0] * len(completions) for _, completions in groups]
        waiting: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        for number, (prompt, completions) in enumerate(groups):
            most = max(map(len, completions))
            self.config.check_length(len(prompt), most, "a prompt and a response")
            # Of all completions of the prompt, so that the parts they are read in have the same shape.
            size = next_power_of_two(min(len(completions), MOST_BRANCHES))
            shape = coarse_length(len(prompt)), size, coarse_length(most)
            waiting.setdefault(shape, []).extend((number, first) for first in range(0, len(completions), size))
        for (max_prompt, size, max_completion), parts in waiting.items():
            shards = self.layout.batch_shards
            rows = max(1, BATCH_TOKENS // (max_prompt + size * max_completion)) * shards
            for start in range(0, len(parts), rows):
                batch = parts[start : start + rows]
                spare = rows - len(batch)
                packed = batches.pack(
                    [groups[number][0] for number, _ in batch] + [[0]] * spare,
                    [groups[number][1][first : first + size] for number, first in batch] + [[]] * spare,
                    max_prompt=max_prompt,
                    max_completion=max_completion,
                    group_size=size,
                )
                scored = make_scorer(self.layout, self.config)(self.params, self.layout.split(packed))
                for (number, first), row in zip(batch, distributed.fetch(scored), strict=False):
                    count = min(size, len(found[number]) - first)
                    if not np.isfinite(row[:count]).all():
                        raise InputError("a reward is NaN or infinite")
                    found[number][first : first + count] = map(float, row[:count])
        return found
