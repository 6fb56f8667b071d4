"""Model directories of our own layout."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax import checkpoints
from spct_jax.checkpoints import hugging_face
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.models import decoder, sizes

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


def test_an_altered_description_or_tokenizer_is_an_error(tmp_path):
    tokenizer = train_tokenizer([f"some text {i} of {i % 7} words" for i in range(300)], vocab_size=320)
    config = dataclasses.replace(sizes.toy(tokenizer.vocab_size), num_layers=1, width=16, ffw_width=16)
    checkpoints.save(tmp_path / "m", checkpoints.Model(decoder.init(config, jax.random.key(0)), config, tokenizer))
    whole = checkpoints.load(tmp_path / "m")
    card, proto = tmp_path / "m/model.json", tmp_path / "m/tokenizer.model"
    for path in (card, proto):
        content = path.read_bytes()
        for place in (len(content) // 3, len(content) // 2):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(InputError, match=path.name):
                checkpoints.load(tmp_path / "m")
        path.write_bytes(content)
    assert checkpoints.load(tmp_path / "m").digest == whole.digest != ""
    half = checkpoints.load(tmp_path / "m", dtype="bfloat16")
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x.astype(jnp.bfloat16), y), whole.params, half.params))
