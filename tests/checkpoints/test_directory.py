"""Model directories of our own layout."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax import checkpoints
from spct_jax.checkpoints import hugging_face
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, wrong):
    tokenizer = train_tokenizer(["Alba has wifi, sun.", "Birch has tea."], vocab_size=300)
    params, config = hugging_face.read_weights(FIXTURES / "gemma2_tiny", num_tokens=tokenizer.vocab_size)[:2]
    model = checkpoints.Model(params, config, tokenizer)
    scale = params["final_norm"]["scale"].at[3].set(wrong)
    checkpoints.save(tmp_path / "bad", dataclasses.replace(model, params=params | {"final_norm": {"scale": scale}}))
    with pytest.raises(InputError, match=r"weights of .*bad hold NaN or infinite numbers \(in final_norm/scale\)"):
        checkpoints.load(tmp_path / "bad")


def test_weights_that_overflow_the_dtype_asked_for_are_refused():
    checkpoints.check_finite({"a": jnp.full(3, 1e6)}, "there")
    with pytest.raises(InputError, match=r"weights of there hold NaN or infinite numbers \(in b/c\)"):
        checkpoints.check_finite({"a": jnp.ones(3), "b": {"c": jnp.full(3, 1e6).astype("float16")}}, "there")
