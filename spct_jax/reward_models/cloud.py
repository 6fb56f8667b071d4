"""CLoud (critique out loud, a baseline of the paper): a critique of each response, then a scalar; the mean over k critiques.

Two models, as in the SPCT paper: a critic writes critiques of one response at a time, and a second model with a scalar head
reads the response with its critique and scores it where the critique ends. The prompt of both is the template for a single
response. Each response is a trunk, and its critiques are the branches.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from spct_jax import checkpoints, field_bounds, sharding
from spct_jax.checkpoints import ModelKind
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.field_bounds import MOST, SEEDS, bounded
from spct_jax.grm import orders, voting
from spct_jax.grm.config import DEFAULT_PROMPT
from spct_jax.grm.prompts import Prompter
from spct_jax.models.config import ModelConfig
from spct_jax.reward_models.base import Critiqued, Scores
from spct_jax.reward_models.scalar import ScalarModel
from spct_jax.sampling import Engine, Request, SamplingParams, Shape, engine_params
from spct_jax.sampling.engine_shape import branches_of, padded_prompt
from spct_jax.sampling.engine_size import Sizes
from spct_jax.sharding import Layout

TOGETHER = 256
"""Comparisons whose critiques are drawn and scored before those of others are."""


def responses_apart(comparison: Comparison) -> list[Comparison]:
    """Each response as a comparison of its own, which has the template for a single response."""
    return [
        dataclasses.replace(comparison, responses=(response,), scores=(1.0,), id=f"{comparison.id}/{number}")
        for number, response in enumerate(comparison.responses)
    ]


def counted(cut: Sequence[Sequence[bool]]) -> list[bool]:
    """Which draws of a comparison count, in judging as in training: those in which the critiques of all responses are whole.

    Args:
      cut: for each response, of each draw, whether its critique was cut, so that it has no end to be scored at.
    """
    return [not any(of_draw) for of_draw in zip(*cut, strict=True)]


@dataclasses.dataclass(frozen=True, eq=False)
class Critic:
    """The model that writes critiques, on the devices."""

    layout: Layout
    params: Any
    config: ModelConfig
    prompter: Prompter
    digest: str = ""
    """Of its checkpoint."""

    @classmethod
    def load(cls, checkpoint: str | os.PathLike, layout: Layout | None = None, quantize: str = "none") -> "Critic":
        """Loads a policy, which draws as `ModelConfig.quantize` says. Errors as of `checkpoints.load`.

        A checkpoint that carries no templates gets the default ones.
        """
        layout = layout or sharding.make_layout()
        found = checkpoints.load(checkpoint, kind=ModelKind.POLICY, dtype=checkpoints.COMPUTE, shardings=layout.params)
        prompt = found.prompt or DEFAULT_PROMPT
        drawn = dataclasses.replace(found.config, quantize=quantize)
        params, config = engine_params.adopt(found.params, drawn, layout)
        return cls(layout, params, config, Prompter(prompt, found.tokenizer), found.digest)


@dataclasses.dataclass(frozen=True)
class CloudOptions:
    """How critiques are drawn."""

    k: int = bounded(1, 1, 65536)
    """Critiques of each response."""
    temperature: float = bounded(0.5, 0, 100)
    """0, or less than 1e-5, is greedy."""
    seed: int = bounded(0, *SEEDS)
    max_new_tokens: int = bounded(1024, 1, 1 << 24)
    """Tokens after which a critique is cut; one that is cut does not count."""
    batch_size: int = bounded(0, 0, 1 << 20)
    """Rows decoded at once, rounded up to a multiple of the devices; 0: see `sampling.engine_size`."""
    memory: int = bounded(0, 0, 1 << 60)
    """Bytes of a device that rows are chosen for; 0: those that it has."""
    max_prompt: int = bounded(0, 0, 1 << 24)
    """Tokens of the longest prompt; 0: what the critic's positions leave."""
    top_k: int = bounded(0, 0, MOST)
    """Draw from this many likeliest tokens only; 0 for all."""
    top_p: float = bounded(1.0, 0, 1, ends="(]")
    """Draw from the likeliest tokens of this total probability only."""

    def __post_init__(self):
        field_bounds.check(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Cloud:
    """A `reward_models.base.RewardModel`."""

    critic: Critic
    model: ScalarModel
    options: CloudOptions = CloudOptions()

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike,
        critic: str | os.PathLike,
        layout: Layout | None = None,
        options: CloudOptions = CloudOptions(),
    ) -> "Cloud":
        """Loads both models: `checkpoint` is the one with the head. Errors as of `checkpoints.load`."""
        layout = layout or sharding.make_layout()
        return cls(Critic.load(critic, layout), ScalarModel.load(checkpoint, ModelKind.CLOUD, layout), options)

    def score(self, comparisons: Sequence[Comparison]) -> list[Scores]:
        """As of `RewardModel.score`; None where no draw has a whole critique of every response.

        Errors as of `ScalarModel.rewards`.
        """
        return [
            scores
            for start in range(0, len(comparisons), TOGETHER)
            for scores in self._score(comparisons[start : start + TOGETHER])
        ]

    def _score(self, comparisons: Sequence[Comparison]) -> Iterator[Scores]:
        apart = [single for comparison in comparisons for single in responses_apart(comparison)]
        prompts = [self.critic.prompter.encode(single, (0,)) for single in apart]
        beside = sharding.bytes_of_arrays(self.model.params)
        critiques = draw(self.critic, prompts, [single.id for single in apart], self.options, beside)
        rewards = iter(zip(critiques, self.model.rewards(list(zip(prompts, critiques, strict=True))), strict=True))
        tokenizer = self.critic.prompter.tokenizer
        for comparison in comparisons:
            found = [next(rewards) for _ in comparison.responses]
            samples = []
            for i, counts in enumerate(counted([[t[-1] not in tokenizer.stop_ids for t in drawn] for drawn, _ in found])):
                drawn, scores = zip(*((tokens[i], each[i]) for tokens, each in found), strict=True)
                samples.append(
                    Critiqued(
                        scores=scores if counts else None,
                        texts=tuple(map(tokenizer.decode, drawn)),
                        truncated=not counts,
                        tokens=sum(map(len, drawn)),
                    )
                )
            mean = voting.mean_vote([sample.scores for sample in samples], comparison.n)
            yield Scores(comparison.id, mean, tuple(samples))


def draw(
    critic: Critic, prompts: Sequence[Sequence[int]], ids: Sequence[str], options: CloudOptions, beside: int = 0
) -> list[list[Sequence[int]]]:
    """K critiques for every prompt, terminator included where there is one.

    A critique depends on its prompt, id, number and the options only; prompts are drawn for by the power of two that they fit
    in, or what follows the template's preamble does. `beside` is how many bytes of a device others hold.

    Raises:
      InputError: a prompt is too long, which is known before anything is drawn.
    """
    layout, found = critic.layout, [[()] * options.k for _ in prompts]
    preamble = critic.prompter.preamble_of(critic.prompter.single)
    key = jax.random.key(options.seed)
    waiting: dict[int, list[Request]] = {}
    longest = _longest_prompt(critic.config, options)
    for number, (prompt, id) in enumerate(zip(prompts, ids, strict=True)):
        if len(prompt) > longest:
            raise InputError(f"prompt longer than the context (more than {longest:,} tokens)")
        data = np.asarray(jax.random.key_data(jax.random.fold_in(key, orders.stable_hash(id))))
        request = Request(number, prompt, data, collections.deque(range(options.k)))
        waiting.setdefault(min(padded_prompt(len(prompt), len(preamble)), longest), []).append(request)
    sizes = None if options.batch_size else Sizes(layout, critic.config, options.memory, beside, preamble=len(preamble))
    for max_prompt, requests in sorted(waiting.items()):
        if sizes:
            shape = sizes.choose(max_prompt, options.max_new_tokens, options.k)
        else:
            given = max_prompt, options.max_new_tokens, options.batch_size, branches_of(options.k)
            shape = Shape.of_stream(*given, devices=layout.batch_shards, preamble=len(preamble))
        sampling = SamplingParams(options.temperature, critic.prompter.tokenizer.stop_ids, options.top_k, options.top_p)
        engine = Engine(layout, critic.params, critic.config, shape, sampling, preamble=preamble)
        for done in engine.run(requests):
            found[done.request.tag][done.sample] = done.tokens
    return found


def _longest_prompt(config: ModelConfig, options: CloudOptions) -> int:
    """Tokens of the longest prompt; InputError if the critic's positions do not hold it and a critique."""
    known, new = config.max_positions, options.max_new_tokens
    longest = options.max_prompt or (max(known - new, 1) if known else MOST)
    config.check_length(longest, new, "max_prompt and max_new_tokens")
    return longest
