"""Decoder families: each known by its own object, and another one added by one."""

import dataclasses
import json

import compiled
import jax
import numpy as np
import pytest
import safetensors.numpy

from spct_jax import models
from spct_jax.checkpoints import ModelKind, config_json, families, google, hugging_face
from spct_jax.checkpoints.families import GEMMA2, GEMMA3, Family, Tensor
from spct_jax.errors import InputError

KINDS = {"G": "global", "L": "local"}
NAMES = {"input_layernorm": "ln_1", "self_attn": "attention", "mlp": "feed_forward"}


def renamed_tensors(config, layer):
    """Gemma-2's tensors by other names, and the way out of attention stored as [N, D, H]."""
    tensors = {}
    for path, tensor in GEMMA2.layer_tensors(config, layer).items():
        first, _, rest = tensor.name.partition(".")
        tensors[path] = dataclasses.replace(tensor, name=f"{NAMES.get(first, first)}.{rest}")
    shape = (config.num_heads, config.width, config.head_dim)
    out = Tensor("attention.out", shape, lambda x: x.transpose(0, 2, 1), lambda x: x.transpose(0, 2, 1))
    return tensors | {("attn", "out"): out}


LAMA = Family(
    model_type="lama",
    multimodal_types=("lama_vision",),
    causal_lm="LamaLM",
    classifier="LamaForSequenceClassification",
    fixed={"qk_norm": False, "norm_eps": 1e-5, "query_scale": 8**-0.5},
    defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 64, "tie_word_embeddings": False},
    read_fields=lambda fields: {"pattern": tuple(KINDS[letter] for letter in fields["layout"])},
    write_fields=lambda config: {"layout": "".join(kind[0].upper() for kind in config.pattern)},
    layer_tensors=renamed_tensors,
    prefixes=("transformer.",),
    prefix="transformer.",
    layers="h",
    embedding="wte",
    lm_head="head",
    tokenizer_config={},
)
CONFIG = models.ModelConfig(
    vocab_size=40, num_layers=5, width=16, num_heads=2, num_kv_heads=1, head_dim=8, ffw_width=20,
    pattern=("local", "global"), norm_eps=1e-5, query_scale=8**-0.5, tied=False, max_positions=64,
)  # fmt: skip


@pytest.fixture
def with_lama(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", (LAMA, *families.FAMILIES))


@pytest.mark.parametrize("kind", ModelKind)
def test_a_family_is_added_by_one_object(with_lama, tmp_path, kind):
    params = compiled.init(CONFIG, jax.random.key(0))
    if kind.has_head:
        params["embedder"].pop("output_embedding")
        params = {"model": params, "head": models.init_score_head(CONFIG, jax.random.key(1))}
    hugging_face.save_hf(tmp_path / "lama", params, CONFIG, kind=kind)
    card = json.loads((tmp_path / "lama/config.json").read_text())
    assert (card["architectures"], card["model_type"], card["layout"]) == (
        [LAMA.classifier if kind.has_head else LAMA.causal_lm],
        "lama",
        "LG",
    )
    stored = safetensors.numpy.load_file(tmp_path / "lama/model.safetensors")
    assert {name: array.shape for name, array in stored.items()} == hugging_face.stored_shapes(CONFIG, kind)
    assert stored["transformer.wte"].shape == (40, 16) and stored["transformer.h.4.attention.out"].shape == (2, 16, 8)
    assert ("head" in stored, "score.weight" in stored) == (not kind.has_head, kind.has_head)
    found, config, found_kind = hugging_face.read_weights(tmp_path / "lama")
    assert (config, found_kind) == (dataclasses.replace(CONFIG, tied=kind.has_head), kind)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, found))


def test_an_architecture_belongs_to_one_family(with_lama, monkeypatch):
    assert families.family_of(CONFIG) is LAMA
    for name, make in models.SIZES.items():
        assert families.family_of(make()) is (GEMMA3 if name.startswith("gemma3") else GEMMA2)
    monkeypatch.setattr(families, "FAMILIES", (LAMA,))
    with pytest.raises(InputError, match="no family of decoders has this architecture; there are lama"):
        families.family_of(models.get("toy"))


def test_the_message_lists_what_there_is(with_lama, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    said = "config.json: model_type 't5' is not supported; lama, lama_vision, gemma2, gemma3_text and gemma3 are"
    with pytest.raises(InputError, match=said):
        config_json.read_config(tmp_path / "config.json")


def test_a_family_without_googles_layout_says_so(with_lama):
    with pytest.raises(InputError, match="here: no checkpoints of lama in Google's layout are supported"):
        google.from_google({}, CONFIG, dtype="float32", where="here")


def test_two_ropes_are_no_gemma2():
    config = dataclasses.replace(models.get("toy"), rope_base_global=7.0)
    with pytest.raises(InputError, match="Gemma2 has one rope for all layers; this model has two"):
        config_json.write_config(config, ModelKind.POLICY, "float32", {})
