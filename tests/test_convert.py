"""`python -m spct_jax.convert` between layouts, and model directories of either layout where a checkpoint is asked for."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from spct_jax import convert, models, sharding
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.models import checkpoints
from spct_jax.training import run as runs

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def tokenizer():
    """Fewer pieces than the fixtures' tables have rows."""
    return train_tokenizer(["Alba has wifi, sun.", "Birch has tea."], vocab_size=300)


@pytest.fixture
def source(tmp_path, tokenizer):
    """gemma2_tiny with a tokenizer and a stop id of its own."""
    directory = tmp_path / "source"
    shutil.copytree(FIXTURES / "gemma2_tiny", directory, copy_function=shutil.copyfile)
    directory.chmod(0o755)
    tokenizer.save(directory / "tokenizer.model")
    generation = directory / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [1, 7]}))
    return directory


def tensors(directory):
    return {k: v for path in directory.glob("*.safetensors") for k, v in safetensors.numpy.load_file(path).items()}


def test_there_and_back_is_exact(source, tmp_path, tokenizer):
    convert.convert(source, tmp_path / "ours", "orbax", dtype=None)
    model = checkpoints.load(tmp_path / "ours")
    assert model.config.num_tokens == tokenizer.vocab_size < model.config.vocab_size
    assert model.tokenizer.stop_ids == (tokenizer.eos_id, tokenizer.end_of_turn_id, 7)
    direct = checkpoints.load(source)
    assert (direct.config, direct.tokenizer.stop_ids) == (model.config, model.tokenizer.stop_ids)
    assert jax.tree.all(jax.tree.map(np.array_equal, direct.params, model.params))

    convert.convert(tmp_path / "ours", tmp_path / "theirs", "hf", dtype=None)
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
        convert.convert(source, tmp_path / "ours", "orbax", dtype=None, tokenizer=str(path))
    assert not (tmp_path / "ours").exists()

    table = tensors(source)
    wide = {name: np.pad(a, [(0, 224), (0, 0)]) if "embed_tokens" in name else a for name, a in table.items()}
    safetensors.numpy.save_file(wide, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 320}))
    convert.convert(source, tmp_path / "ours", "orbax", dtype=None, tokenizer=str(path))
    model = checkpoints.load(tmp_path / "ours", kind="meta_rm")
    assert model.params["head"]["score"].shape == (24,)
    with pytest.raises(InputError, match="holds a meta_rm checkpoint, not a policy one"):
        checkpoints.load(tmp_path / "ours")
    with pytest.raises(InputError, match="holds a meta_rm checkpoint, not a policy one"):
        path.rename(source / "tokenizer.model")
        checkpoints.load(source)
    convert.convert(tmp_path / "ours", tmp_path / "theirs", "hf", dtype=None)
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["architectures"] == ["Gemma2ForSequenceClassification"]
    again = tensors(tmp_path / "theirs")
    assert all(again[name].tobytes() == array.tobytes() for name, array in wide.items())


def test_dtype_is_kept_or_changed_as_asked(source, tmp_path):
    convert.convert(source, tmp_path / "half", "orbax", dtype="bfloat16")
    model = checkpoints.load(tmp_path / "half")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(model.params)} == {"bfloat16"}
    assert model.config.dtype == "bfloat16"
    wide = checkpoints.load(tmp_path / "half", dtype="float32")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(wide.params)} == {"float32"}
    assert wide.config.dtype == "float32"
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a.astype("float32"), b), model.params, wide.params))


def test_a_run_starts_from_a_hugging_face_directory(source, micro_config, tmp_path):
    micro_config.init_checkpoint = str(source)
    tokenizer = runs.load_tokenizer(micro_config, None, tmp_path / "unused")
    found = runs.architecture(micro_config, tokenizer)
    assert (found.width, found.num_tokens, found.dtype) == (64, tokenizer.vocab_size, "float32")
    layout = sharding.make_layout()
    run = runs.Run(micro_config, tmp_path, None, None, found, layout, layout)
    params, _ = models.load_hf(source)
    assert jax.tree.all(jax.tree.map(np.array_equal, run.initial_params(), params))


def test_a_checkpoint_of_two_devices_is_converted_on_one(source, tmp_path):
    model = checkpoints.load(source)
    both = jax.device_put(model.params, sharding.make_layout().whole)
    checkpoints.save(tmp_path / "ours", dataclasses.replace(model, params=both))
    command = [sys.executable, "-m", "spct_jax.convert", f"--from={tmp_path}/ours", f"--to={tmp_path}/theirs", "--format=hf"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tensors(tmp_path / "theirs").keys() == tensors(source).keys()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--from=/nowhere", "--to=x", "--format=hf"], "--from=/nowhere: no such directory"),
        (["--from=.", "--to=x", "--format=gguf"], "should be one of <orbax|hf>"),
        (["--from={tmp}", "--to={tmp}/x", "--format=hf"], "neither a model of this library nor"),
        (["--from={tmp}", "--to={tmp}", "--format=hf"], "exists already"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, flags, said):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "spct_jax.convert", *(flag.format(tmp=tmp_path) for flag in flags)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
