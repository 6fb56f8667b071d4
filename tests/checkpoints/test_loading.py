"""Model directories of either layout where a checkpoint is asked for."""

import json
import shutil

import jax
import numpy as np
import pytest
from stand_ins import stand_in

from spct_jax import checkpoints, models, sharding
from spct_jax.errors import InputError
from spct_jax.training import context, data, parameters


def test_snapshots_of_hugging_faces_cache_are_read(source, tmp_path):
    """Their files are links into the folder of blobs next to them; any other link that leads out is refused."""
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(source, blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert checkpoints.load(snapshot).tokenizer.stop_ids == checkpoints.load(source).tokenizer.stop_ids
    (snapshot / "tokenizer.model").unlink()
    (snapshot / "tokenizer.model").symlink_to(source / "tokenizer.model")
    with pytest.raises(InputError, match="tokenizer.model: a link to .*source/tokenizer.model, which is not in"):
        checkpoints.load(snapshot)


@pytest.mark.parametrize("stops", ["1", [1, "7"], [True], [-1], [10**6], {"a": 1}, 1.0])
def test_stop_ids_are_ids(source, stops):
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    with pytest.raises(InputError, match=r"generation_config.json: eos_token_id holds .*, no id of the tokenizer's"):
        checkpoints.read_tokenizer(source)


def test_a_run_starts_from_a_hugging_face_directory(source, micro_config, tmp_path):
    micro_config.init_checkpoint = str(source)
    tokenizer = data.load_tokenizer(micro_config, stand_in(context.Dataset), tmp_path / "unused")
    found = parameters.architecture(micro_config, tokenizer)
    assert (found.width, found.num_tokens, found.dtype) == (64, tokenizer.vocab_size, "float32")
    layout = sharding.make_layout()
    (tmp_path / "data").mkdir()
    run = stand_in(context.Run, config=micro_config, workdir=tmp_path, model=found, layout=layout)
    params, _ = models.load_hf(source)
    assert jax.tree.all(jax.tree.map(np.array_equal, parameters.initial(run), params))
