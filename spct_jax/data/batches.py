"""From records to arrays: groups of completions on right-aligned trunks.

A *group* is one prompt and the completions that share it. Its trunk is the prompt without the last token; every branch
starts with that token, so that each completion token is predicted from a branch position. Most prompts of a stage begin with
the same tokens, the *preamble* of its template, which need not be computed for each.
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.struct
import numpy as np

from spct_jax.errors import InputError
from spct_jax.rounding import next_power_of_two

TokenGroup = tuple[Sequence[int], Sequence[Sequence[int]]]
"""The tokens of a group: of its prompt, and of each completion."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A group whose tokens are made where they are wanted."""

    id: str
    size: int
    """Number of completions."""
    tokens: Callable[[], TokenGroup]
    """Makes them."""

    def part(self, which: Sequence[int]) -> "Example":
        """The example with these of its completions."""

        def tokens():
            prompt, completions = self.tokens()
            return prompt, [completions[i] for i in which]

        return Example(self.id, len(which), tokens)


@flax.struct.dataclass
class Groups:
    """B prompts with G completions each."""

    trunk_tokens: np.ndarray
    """Int32[B P], right-aligned: the prompt without its last token."""
    trunk_lengths: np.ndarray
    """Int32[B]."""
    inputs: np.ndarray
    """Int32[B G T+1]: the prompt's last token, then the completion. Position t predicts targets[t]."""
    lengths: np.ndarray
    """Int32[B G]: completion lengths, terminator included; 0 where a group has fewer than G completions."""
    shared: np.ndarray | None = None
    """Int32[B]: tokens of each prompt's preamble, 0 for a prompt that has none. None: no prompt has one."""
    shape: tuple[int, int] | None = flax.struct.field(pytree_node=False, default=None)
    """(slots of a trunk, slots of what lies behind it) to compute each prompt in, but for its preamble: the rest of a prompt
    that is longer than its trunk, then its completions one behind the other. None: each completion is a branch of T slots on a
    trunk of P, which holds the preamble, too."""

    @property
    def targets(self):
        """Int32[B G T]: the completions."""
        return self.inputs[..., 1:]

    @property
    def own_lengths(self):
        """Int32[B]: tokens of each prompt that are computed for it: without its last, and at a `shape` without its preamble."""
        return self.trunk_lengths if self.shape is None or self.shared is None else self.trunk_lengths - self.shared

    @property
    def rest(self):
        """Int32[B]: how many of these do not fit into the trunk of `shape`."""
        return (self.own_lengths - self.shape[0]).clip(0)

    def check_preamble(self, preamble: object | None) -> None:
        """Raises ValueError unless the preamble's trunk is there where prompts are computed without it, and only there."""
        if (preamble is None) != (self.shared is None):
            raise ValueError("groups that are packed with a preamble are computed behind its trunk, and others without")

    @property
    def num_slots(self) -> int:
        """Slots that all prompts and completions are computed in."""
        return self.trunk_lengths.size * sum(self.shape) if self.shape else self.trunk_tokens.size + self.targets.size


def padded_length(length: int) -> int:
    """The length that a sequence of `length` tokens is padded to, of few: a power of two, at least 16."""
    return next_power_of_two(length, minimum=16)


def pack_prompts(prompts: Sequence[Sequence[int]], max_prompt: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trunk tokens Int32[B P] right-aligned (P = max_prompt - 1), trunk lengths Int32[B], last tokens Int32[B].

    Raises:
      InputError: a prompt is empty or longer than `max_prompt`.
    """
    tokens = np.zeros((len(prompts), max_prompt - 1), np.int32)
    lengths = np.array([len(p) - 1 for p in prompts], np.int32)
    if lengths.min() < 0 or lengths.max() > max_prompt - 1:
        raise InputError(f"a prompt has {lengths.max() + 1} tokens (at least {lengths.min() + 1}); allowed: 1 to {max_prompt}")
    for row, prompt in zip(tokens, prompts, strict=True):
        if len(prompt) > 1:
            row[-(len(prompt) - 1) :] = prompt[:-1]
    return tokens, lengths, np.array([p[-1] for p in prompts], np.int32)


def shared_tokens(prompt: Sequence[int], preamble: Sequence[int]) -> int:
    """How many tokens of a prompt are the preamble: all of that if the prompt begins with it and goes on, else none."""
    count = len(preamble)
    return count if len(prompt) > count and np.array_equal(prompt[:count], preamble) else 0


def pack(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[Sequence[int]]],
    *,
    max_prompt: int,
    max_completion: int,
    group_size: int,
    preamble: Sequence[int] = (),
) -> Groups:
    """Packs prompts and their completions; a group with fewer than `group_size` completions gets empty ones.

    Prompts are packed with their `preamble`, the tokens that most of them begin with; it is only counted.

    Raises:
      InputError: a prompt, a completion or a group is longer than its limit.
    """
    trunk_tokens, trunk_lengths, last = pack_prompts(prompts, max_prompt)
    inputs = np.zeros((len(prompts), group_size, max_completion + 1), np.int32)
    lengths = np.zeros((len(prompts), group_size), np.int32)
    inputs[:, :, 0] = last[:, None]
    for b, group in enumerate(completions):
        if len(group) > group_size:
            raise InputError(f"a prompt has {len(group)} completions; the group size is {group_size}")
        for g, tokens in enumerate(group):
            if len(tokens) > max_completion:
                raise InputError(f"a completion has {len(tokens)} tokens; allowed: {max_completion}")
            inputs[b, g, 1 : len(tokens) + 1] = tokens
            lengths[b, g] = len(tokens)
    shared = np.array([shared_tokens(prompt, preamble) for prompt in prompts], np.int32) if len(preamble) else None
    return Groups(trunk_tokens=trunk_tokens, trunk_lengths=trunk_lengths, inputs=inputs, lengths=lengths, shared=shared)
