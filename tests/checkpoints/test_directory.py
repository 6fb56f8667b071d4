"""Model directories of our own layout."""

import dataclasses
import json
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
    intact = checkpoints.load(tmp_path / "m")
    card, proto = tmp_path / "m/model.json", tmp_path / "m/tokenizer.model"
    for path in (card, proto):
        content = path.read_bytes()
        for position in (len(content) // 3, len(content) // 2):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            with pytest.raises(InputError, match=path.name):
                checkpoints.load(tmp_path / "m")
        path.write_bytes(content)
    assert checkpoints.load(tmp_path / "m").digest == intact.digest != ""
    half = checkpoints.load(tmp_path / "m", dtype="bfloat16")
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x.astype(jnp.bfloat16), y), intact.params, half.params))


def test_who_names_a_workdir_or_a_part_of_a_model_is_told_of_the_models(tmp_path, tokenizer):
    for name in ("rl", "meta_rm"):
        checkpoints.describe(tmp_path / "run" / name, sizes.toy(), tokenizer)
    (tmp_path / "run" / "rl" / "checkpoints" / "24").mkdir(parents=True)
    cases = {"run": "in it there are meta_rm, rl", "run/rl/checkpoints": f"it is a part of {tmp_path}/run/rl"}
    cases |= {"run/rl/checkpoints/24": f"it is a part of {tmp_path}/run/rl"}
    for name, message in cases.items():
        for read in (checkpoints.read_card, checkpoints.load_any):
            with pytest.raises(InputError, match=f"{tmp_path / name}: .*; {message}$"):
                read(tmp_path / name)
    with pytest.raises(InputError, match=r"and weights\)$"):
        checkpoints.read_card(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "banana"}, "kind is 'banana', none of policy, meta_rm"),
        ({"remat": True}, r"model.json: not a model description \(model.remat: True is not "),
        ({"prompt": {"template": "default"}}, "model.json: not a model description .*'prompt'"),
    ],
)
def test_what_a_card_says_of_a_model_is_checked(tmp_path, tokenizer, fields, message):
    checkpoints.describe(tmp_path, sizes.toy(), tokenizer)
    card = json.loads((tmp_path / "model.json").read_text())
    card.pop("digest")
    assert checkpoints.read_card(tmp_path)[:2] == (sizes.toy(), checkpoints.ModelKind.POLICY)
    (tmp_path / "model.json").write_text(json.dumps(card | fields))
    with pytest.raises(InputError, match=message):
        checkpoints.read_card(tmp_path)
