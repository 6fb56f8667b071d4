"""A small random decoder with a score head, and what it says of a text by itself."""

import jax.numpy as jnp
import numpy as np
import small_judge

from spct_jax import models
from spct_jax.reward_models.scalar import ScalarModel


def scalar_model(devices=1):
    judge = small_judge.judge(devices).models
    return ScalarModel(judge.layout, judge.meta.params, judge.meta.config, small_judge.tokenizer())


def score_alone(tokens):
    """The head at the last token of a text, as a sequence classifier computes it: no branches, no padding, no other texts."""
    model = scalar_model()
    ids = jnp.asarray([tokens])
    trunk = models.prefill(model.params["model"], model.config, ids[:, :-1], jnp.array([len(tokens) - 1]))
    hidden = models.extend(model.params["model"], model.config, trunk, ids[:, None, -1:])
    return float(np.asarray(hidden[0, 0, 0], np.float64) @ np.asarray(model.params["head"]["score"], np.float64))
