"""Hugging Face's `config.json`."""

import json
import pathlib

from spct_jax import models
from spct_jax.checkpoints import config_json
from spct_jax.checkpoints.model_kind import ModelKind

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


def test_global_rope_scale_and_kinds_of_layers_are_read():
    config, kinds, family = config_json.read_config(FIXTURES / "gemma3_vision" / "config.json")
    assert (kinds, family.model_type) == ((ModelKind.POLICY,), "gemma3_text")
    assert config.layer_kinds == ("local",) * 5 + ("global",) + ("local",) * 2
    assert (config.rope_scale_global, config.rope_base_global, config.rope_base_local) == (8.0, 1e6, 1e4)


def test_every_published_size_survives_its_own_config_json(tmp_path):
    for name, make in models.SIZES.items():
        size = make()
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config_json.write_config(size, ModelKind.POLICY, size.dtype, {})))
        found = config_json.read_config(path, size.dtype).config
        assert abs(found.query_scale / size.query_scale - 1) < 1e-12
        ours = {
            "query_scale": 0,
            "remat": 0,
            "time_chunk": 0,
            "max_positions": size.max_positions or 8192,
        }  # The first is compared above, the others do not belong to the architecture.
        assert found.max_positions == ours["max_positions"]
        assert vars(found) | ours == vars(size) | ours


def test_a_sparse_gemma3_config_takes_the_published_defaults(tmp_path):
    text = {"hidden_size": 2560, "intermediate_size": 10_240, "model_type": "gemma3_text", "num_hidden_layers": 34}
    text |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
    path = tmp_path / "config.json"
    top = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    path.write_text(json.dumps(top))
    found = config_json.read_config(path, "bfloat16").config
    assert vars(found) | {"remat": "full", "time_chunk": 128} == vars(models.get("gemma3_4b"))
