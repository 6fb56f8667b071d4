"""A judge of small random models whose critiques are scored by their tokens."""

import dataclasses
import functools

import jax

from spct_jax import models, sharding
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter as RealPrompter
from spct_jax.grm.template import load_template
from spct_jax.judging.judge import Judge
from spct_jax.judging.models import Model, Models
from spct_jax.models import sizes
from spct_jax.toy import demonstrator, world
from spct_jax.toy.config import ToyConfig

WORLD = ToyConfig(demonstrations=40)


OPTIONS = {"k": 6, "temperature": 1.0, "max_new_tokens": 24, "batch_size": 4}


class Prompter(RealPrompter):
    """Reads scores off the tokens: an untrained model writes no box. Every seventh critique does not parse."""

    def read(self, comparison, order, completions):
        read = super().read(comparison, order, completions)
        scores = tuple(
            None if s % 7 == 0 else tuple(1 + s * (3 + j) % 10 for j in range(comparison.n))
            for s in (sum(c.tolist()) for c in read.completions)
        )
        return dataclasses.replace(read, scores=scores)


@functools.cache
def tokenizer():
    shown = demonstrator.demonstrations(WORLD, load_template("short"), load_template("short_single"))
    texts = [turn.content for d in shown for turn in d.turns] + [c for d in shown for c in d.completions]
    # Often enough that every number with its brace is a piece, whatever else the world says.
    choices = [f"Best: \\boxed{{{number}}}" for number in range(1, 5)] * 50
    return train_tokenizer([*texts, *choices], vocab_size=600)


@functools.cache
def judge(devices=1):
    layout = sharding.make_layout(devices=jax.devices()[:devices])
    config = dataclasses.replace(sizes.toy(tokenizer().vocab_size), num_layers=2, final_softcap=5.0)
    params = jax.device_put(jax.jit(models.init, static_argnums=0)(config, jax.random.key(0)), layout.replicated)
    prompter = Prompter(PromptConfig(), tokenizer())
    meta = {"model": params, "head": jax.device_put(models.init_score_head(config, jax.random.key(1)), layout.replicated)}
    return Judge(Models(layout, Model(params, config, prompter), Model(meta, config, prompter)))


def changed(policy=None, meta=None, **fields):
    """A judge like `judge()`, with other fields of its models; without a meta RM unless fields of one are given."""
    models = judge().models
    meta = None if meta is None else dataclasses.replace(models.meta, **meta)
    return Judge(dataclasses.replace(models, policy=dataclasses.replace(models.policy, **(policy or {})), meta=meta, **fields))


@functools.cache
def comparisons():
    shown = [p.comparison for p in world.problems("train", 24, WORLD)]
    return [dataclasses.replace(c, scores=None) for c in shown]


@functools.cache
def verdicts(**changes):
    return judge().score(comparisons(), **OPTIONS | changes)
