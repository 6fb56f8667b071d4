"""A trunk's completions one behind the other, as one branch: the slots behind the shorter ones are not computed.

Nor does a trunk have to hold all of its prompt. The branch begins with the *rest* of it, which all completions see, so that one
number of slots holds a long prompt with short completions as well as a short prompt with long ones. Every token has the
position that it would have if the trunk were complete and each completion a branch of its own, and sees the same tokens.

Letters as in `spct_jax.models.decoder`; S slots hold the rest and the completions of a trunk.
"""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


@flax.struct.dataclass
class Places:
    """Where the rest of the prompts and the completions lie."""

    lengths: Int[Array, "B G"]
    """Tokens of each completion; one of no token takes no slot."""
    rest: Int[Array, " B"]
    """Tokens of each prompt that are not in its trunk, without the prompt's last, which every completion begins with."""
    first: Int[Array, "B G"]
    """The slot of each completion's first token."""
    branch: Int[Array, "B S"]
    """The completion in each slot. Before the first it is the first, and behind the last the last."""

    @classmethod
    def of(cls, lengths: Int[Array, "B G"], rest: Int[Array, " B"], slots: int) -> Places:
        """Completions of these lengths in their order, behind the last `rest` tokens of their prompts; `slots` hold both."""
        ends = rest[:, None] + jnp.cumsum(lengths, axis=-1)
        branch = (jnp.arange(slots) >= ends[:, :-1, None]).sum(1)
        return cls(lengths=lengths, rest=rest, first=ends - lengths, branch=branch)

    @property
    def begins(self) -> Int[Array, "B S"]:
        """The slot that the completion in each slot begins at; 0 where it is the prompt's rest."""
        slots, first = jnp.arange(self.branch.shape[1]), jnp.take_along_axis(self.first, self.branch, axis=1)
        return jnp.where(slots < self.rest[:, None], 0, first)

    @property
    def positions(self) -> Int[Array, "B S"]:
        """Counted from the trunk's end."""
        slots = jnp.arange(self.branch.shape[1])
        return slots - self.begins + jnp.where(slots < self.rest[:, None], 0, self.rest[:, None])

    def visible(self, window: int | None) -> Bool[Array, "B S S"]:
        """Which slots the token in each slot sees; `window` as in `attention.trunk_mask`."""
        slots, positions = jnp.arange(self.branch.shape[1]), self.positions
        ours = (slots >= self.begins[..., None]) | (slots < self.rest[:, None, None])
        seen = ours & (slots <= slots[:, None])
        return seen & (True if window is None else positions[..., None] - positions[:, None] < window)

    def join(self, x: Shaped[Array, "B G T"]) -> Shaped[Array, "B 1 S"]:
        """What belongs to the tokens of completions, in their slots; in the others is something without meaning."""
        B, G, T = x.shape
        time = jnp.minimum(jnp.arange(self.branch.shape[1]) - self.begins, T - 1)
        return jnp.take_along_axis(x.reshape(B, G * T), self.branch * T + time, axis=1)[:, None]

    def inputs(self, prompts: Int[Array, "B P"], inputs: Int[Array, "B G T"]) -> Int[Array, "B 1 S"]:
        """What is read in the slots, given right-aligned prompts without their last token, and what completions read."""
        slots = jnp.arange(self.branch.shape[1])
        rest = _shifted(prompts, self.rest, len(slots))
        return jnp.where(slots < self.rest[:, None, None], rest[:, None], self.join(inputs))

    def trunks(self, prompts: Int[Array, "B P"], slots: int) -> Int[Array, "B slots"]:
        """The prompts without their rest, right-aligned in `slots` slots."""
        return _shifted(prompts, self.rest + slots, slots)

    def divide(self, x: Shaped[Array, "B 1 S"], length: int) -> Shaped[Array, "B G T"]:
        """What is in the slots of each completion, for T = `length` tokens; 0 behind its end."""
        times, (B, G), S = jnp.arange(length), self.lengths.shape, x.shape[-1]
        slots = jnp.minimum(self.first[..., None] + times, S - 1).reshape(B, G * length)
        found = jnp.take_along_axis(x[:, 0], slots, axis=1).reshape(B, G, length)
        return jnp.where(times < self.lengths[..., None], found, 0)


def _shifted(tokens: Int[Array, "B P"], before_end: Int[Array, " B"], count: int) -> Int[Array, "B count"]:
    """`count` tokens of each row, the first of them `before_end` from its end; what lies beyond its ends has no meaning."""
    places = tokens.shape[1] - before_end[:, None] + jnp.arange(count)
    return jnp.take_along_axis(tokens, jnp.clip(places, 0, tokens.shape[1] - 1), axis=1)
