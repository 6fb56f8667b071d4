"""A small model, prompts and an engine for them, and an engine whose completions have given lengths."""

import collections
import dataclasses
import functools

import jax
import numpy as np

from spct_jax import models, sampling, sharding
from spct_jax.models import sizes
from spct_jax.sampling import Engine, Request, SamplingParams, Shape

CONFIG = dataclasses.replace(sizes.toy(40), num_layers=2, window=8)
SHAPE = Shape(max_prompt=24, max_new_tokens=50, rows=4, branches=3, trunks=2, prefill_rows=2, chunk=8)
PROMPTS = [[int(t) for t in np.random.default_rng(i).integers(2, 40, 1 + 5 * i % 23)] for i in range(11)]
SAMPLES = 5


@functools.cache
def params(layout):
    return jax.device_put(jax.jit(models.init, static_argnums=0)(CONFIG, jax.random.key(0)), layout.replicated)


def key_data(key):
    return np.asarray(jax.random.key_data(key))


def requests(chosen=range(len(PROMPTS)), samples=SAMPLES):
    key = jax.random.key(7)
    return [Request(i, PROMPTS[i], key_data(jax.random.fold_in(key, i)), collections.deque(range(samples))) for i in chosen]


def layout_of(devices=1):
    return sharding.make_layout(devices=jax.devices()[:devices])


def engine(shape=SHAPE, sampling=SamplingParams(1.0, (1,)), devices=1):
    layout = layout_of(devices)
    return Engine(layout, params(layout), CONFIG, shape, sampling)


def drawn(made, wanted):
    return {(f.request.tag, f.sample): (f.tokens, f.logprobs.tolist()) for f in made.run(wanted)}


def drawn_by_turns(made, wanted):
    """As a judge does, chunk by chunk."""
    for request in wanted:
        made.submit(request)
    finished = []
    while made.pending:
        made.launch()
        finished += made.collect()
    return {(f.request.tag, f.sample): (f.tokens, f.logprobs.tolist()) for f in finished}


class DryPrograms:
    """Stands in for the engine's programs: branches end after lengths that are known beforehand, nothing is computed."""

    def __init__(self, shape, lengths):
        self._lengths, self._shape = lengths, shape
        self._left = np.zeros((shape.rows, shape.branches), int)

    def init(self):
        return None

    def trunks(self, level):
        return lambda *_: models.Trunk(layers={}, lengths=np.zeros(level.rows))

    def insert(self, *_):
        return None

    def begin(self, slots, fresh, trunk_slot, keys, sample, last):
        fresh, keys, sample = map(np.asarray, (fresh, keys, sample))
        self._left[fresh] = self._lengths[keys[..., 0], sample][fresh]

    def chunk(self, *_):
        ran, drawn = self._left > 0, np.minimum(self._left, self._shape.chunk)
        self._left -= drawn
        tokens = np.zeros((*drawn.shape, self._shape.chunk), int)
        return None, sampling.Completions(tokens, drawn, tokens.astype(np.float32)), ran & (self._left == 0)
