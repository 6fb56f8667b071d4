"""A small random decoder with a score head, and what it says of a text by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import small_judge

from spct_jax import models
from spct_jax.reward_models.scalar import ScalarModel

LONGEST = 96


def scalar_model():
    judge = small_judge.judge().models
    return ScalarModel(judge.layout, judge.meta.params, judge.meta.config, small_judge.tokenizer())


@functools.partial(jax.jit, static_argnums=1)
def _last_hidden(params, config, trunk, length, token):
    hidden = models.extend(params, config, models.prefill(params, config, trunk, length), token)
    return hidden[0, 0, 0]


def score_alone(tokens):
    """The head at the last token of a text, as a sequence classifier computes it: one row, all before is the trunk."""
    model = scalar_model()
    trunk = np.zeros((1, LONGEST), np.int32)
    trunk[0, LONGEST - len(tokens) + 1 :] = tokens[:-1]
    arguments = trunk, np.array([len(tokens) - 1]), np.array([[tokens[-1:]]])
    hidden = _last_hidden(model.params["model"], model.config, *map(jnp.asarray, arguments))
    return float(np.asarray(hidden, np.float64) @ np.asarray(model.params["head"]["score"], np.float64))
