"""Conversion between layouts: exact there and back, and nothing half written."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from spct_jax import checkpoints, sharding
from spct_jax.errors import InputError

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


def tensors(directory):
    return {k: v for path in directory.glob("*.safetensors") for k, v in safetensors.numpy.load_file(path).items()}


def test_there_and_back_is_exact(source, tmp_path, tokenizer):
    checkpoints.convert(source, tmp_path / "ours", "orbax")
    model = checkpoints.load(tmp_path / "ours")
    assert model.config.num_tokens == tokenizer.vocab_size < model.config.vocab_size
    assert model.tokenizer.stop_ids == (tokenizer.eos_id, tokenizer.end_of_turn_id, 7)
    direct = checkpoints.load(source)
    assert (direct.config, direct.tokenizer.stop_ids) == (model.config, model.tokenizer.stop_ids)
    assert jax.tree.all(jax.tree.map(np.array_equal, direct.params, model.params))

    checkpoints.convert(tmp_path / "ours", tmp_path / "theirs", "hf")
    before, after = tensors(source), tensors(tmp_path / "theirs")
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    written = {path.name for path in (tmp_path / "theirs").iterdir()}
    assert written >= {"config.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"}
    assert json.loads((tmp_path / "theirs" / "generation_config.json").read_text())["eos_token_id"] == [1, 5, 7]


def test_a_classifier_becomes_a_meta_rm_and_back(tmp_path, tokenizer):
    source = tmp_path / "source"
    shutil.copytree(FIXTURES / "gemma2_classifier", source)
    config = json.loads((source / "config.json").read_text())
    path = source / "small.model"
    tokenizer.save(path)
    with pytest.raises(InputError, match=rf"tokenizer has {tokenizer.vocab_size} pieces, the model 96 rows"):
        checkpoints.convert(source, tmp_path / "ours", "orbax", tokenizer=str(path))
    assert not (tmp_path / "ours").exists()

    table = tensors(source)
    wide = {name: np.pad(a, [(0, 224), (0, 0)]) if "embed_tokens" in name else a for name, a in table.items()}
    safetensors.numpy.save_file(wide, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 320}))
    checkpoints.convert(source, tmp_path / "ours", "orbax", tokenizer=str(path))
    model = checkpoints.load(tmp_path / "ours", kind=checkpoints.ModelKind.META_RM)
    assert model.params["head"]["score"].shape == (24,)
    with pytest.raises(InputError, match="holds a meta_rm checkpoint, not a policy one"):
        checkpoints.load(tmp_path / "ours")
    with pytest.raises(InputError, match="holds a meta_rm checkpoint, not a policy one"):
        path.rename(source / "tokenizer.model")
        checkpoints.load(source)
    checkpoints.convert(tmp_path / "ours", tmp_path / "theirs", "hf")
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["architectures"] == ["Gemma2ForSequenceClassification"]
    again = tensors(tmp_path / "theirs")
    assert all(again[name].tobytes() == array.tobytes() for name, array in wide.items())


def test_what_is_missing_or_of_no_use_is_said(source, tmp_path, tokenizer):
    path, ours = tmp_path / "small.model", tmp_path / "ours"
    tokenizer.save(path)
    checkpoints.convert(source, ours, "orbax")
    for directory in (source, ours):
        with pytest.raises(InputError, match="describes itself; --size is for Google's layout only"):
            checkpoints.convert(directory, tmp_path / "target", "hf", size="gemma2_2b")
    with pytest.raises(InputError, match="ours: has a tokenizer of its own; --tokenizer is for other layouts only"):
        checkpoints.convert(ours, tmp_path / "target", "hf", tokenizer=str(path))
    (source / "tokenizer.model").rename(source / "tokenizer.json")
    with pytest.raises(InputError, match="source: has no tokenizer.model, and other files of a tokenizer are not read"):
        checkpoints.convert(source, tmp_path / "target", "orbax")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": "qwen3"}))
    for read in (checkpoints.read_tokenizer, lambda source: checkpoints.convert(source, tmp_path / "target", "orbax")):
        with pytest.raises(InputError, match="model_type 'qwen3' is not supported; gemma2"):
            read(source)


def test_dtype_is_kept_or_changed_as_asked(source, tmp_path):
    checkpoints.convert(source, tmp_path / "half", "orbax", dtype="bfloat16")
    model = checkpoints.load(tmp_path / "half")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(model.params)} == {"bfloat16"}
    assert model.config.dtype == "bfloat16"
    wide = checkpoints.load(tmp_path / "half", dtype="float32")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(wide.params)} == {"float32"}
    assert wide.config.dtype == "float32"
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a.astype("float32"), b), model.params, wide.params))


def test_files_of_the_users_beside_the_target_are_left_alone(source, tmp_path):
    """Of a name that this library once used for what it was writing."""
    for name in ("ours.partial", "theirs.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    checkpoints.convert(source, tmp_path / "ours", "orbax")
    checkpoints.convert(tmp_path / "ours", tmp_path / "theirs", "hf")
    with pytest.raises(InputError, match="exists already"):
        checkpoints.convert(source, tmp_path / "ours.partial", "orbax")
    assert {p.name for p in tmp_path.iterdir()} == {"source", "ours", "ours.partial", "theirs", "theirs.partial"}
    assert all((tmp_path / name / "mine").read_text() == "mine" for name in ("ours.partial", "theirs.partial"))


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_are_written_under_the_umask(source, tmp_path, umask):
    """Safetensors writes its files for their owner alone, and a copied file has the permissions of its source."""
    (source / "generation_config.json").chmod(0o400)
    before = os.umask(umask)
    try:
        checkpoints.convert(source, tmp_path / "theirs", "hf")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "theirs").iterdir() if path.is_file()} == {0o666 & ~umask}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space"),
        (ValueError("RESOURCE_EXHAUSTED: Failed to write: Disk quota exceeded [os_error_code='122']"), "Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_one_line(source, tmp_path, monkeypatch, error, said):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(InputError, match=f"theirs: cannot be written .*{said}"):
        checkpoints.convert(source, tmp_path / "theirs", "hf")
    assert {p.name for p in tmp_path.iterdir()} == {"source"}


def test_what_has_no_room_is_not_begun(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    for layout in ("orbax", "hf"):
        with pytest.raises(InputError, match="872,704 bytes are needed and 1,000 are free"):
            checkpoints.convert(source, tmp_path / "target", layout)
    assert {p.name for p in tmp_path.iterdir()} == {"source"}


def test_weights_that_are_nan_are_not_converted(source, tmp_path):
    path = source / "model-00002-of-00005.safetensors"
    table = safetensors.numpy.load_file(path)
    next(iter(table.values())).flat[3] = np.nan
    safetensors.numpy.save_file(table, path)
    with pytest.raises(InputError, match="weights of .*source hold NaN"):
        checkpoints.convert(source, tmp_path / "ours", "orbax")


def test_a_checkpoint_of_two_devices_is_converted_on_one(source, tmp_path):
    model = checkpoints.load(source)
    both = jax.device_put(model.params, sharding.make_layout().replicated)
    checkpoints.save(tmp_path / "ours", dataclasses.replace(model, params=both))
    command = [sys.executable, "-m", "spct_jax.convert", f"--from={tmp_path}/ours", f"--to={tmp_path}/theirs", "--format=hf"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tensors(tmp_path / "theirs").keys() == tensors(source).keys()
