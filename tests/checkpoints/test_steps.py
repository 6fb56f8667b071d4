"""Checkpoints whose bytes are not those that were saved: seen, named, and passed over."""

import dataclasses
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax import checkpoints
from spct_jax.checkpoints import array_digests, steps, train_state
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.models import decoder, sizes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_a_digest_sees_one_bit_and_every_change_of_order(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 2 if dtype == "bool" else 100, (4, 6, 8)), dtype)
    x = x.at[0, 0, 0].set(jnp.zeros((), dtype))
    changed = [x[::-1], x[:, ::-1], x[..., ::-1], jnp.concatenate([x[2:], x[:2]]), x[np.array([0, 2, 1, 3])]]
    changed += [x.swapaxes(1, 2).reshape(x.shape), x.at[0, 0, 0].set(jnp.ones((), dtype))]
    found = [array_digests.of_tree({"x": y})["x"][dtype] for y in (x, *changed)]
    assert len(set(found)) == len(found)


def test_a_digest_does_not_depend_on_the_mesh():
    x = jnp.arange(64.0).reshape(8, 8)
    split = jax.device_put(x, jax.sharding.NamedSharding(jax.make_mesh((2,), ("d",)), jax.P("d")))
    assert not split.is_fully_replicated and array_digests.of_tree(split) == array_digests.of_tree(x)


def test_the_digest_of_what_a_reader_casts_to_is_saved_too():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    x = bits.view(np.float32)  # subnormal numbers, infinities and NaN among them
    cast = jnp.asarray(x).astype(jnp.bfloat16)
    recorded = array_digests.of_tree({"x": x})
    assert array_digests.differing(recorded, {"x": x}) is None
    assert array_digests.differing(recorded, {"x": cast}) is None
    assert (
        array_digests.of_tree({"x": cast})["x"]["float32"]
        == array_digests.of_tree({"x": cast.astype(jnp.float32)})["x"]["float32"]
    )


PARAMS = {"a": jnp.arange(1000.0), "b": jnp.arange(1000.0) * 2}
TARGET = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    for name, x in PARAMS.items()
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("written")
    with steps.manager(directory, keep=3) as manager:
        for step in (1, 2):
            steps.save(manager, step, jax.tree.map(lambda x, s=step: x + s, PARAMS), PARAMS, {"tokens": 5.0})
    return directory


@pytest.fixture
def saved(written, tmp_path):
    shutil.copytree(written, tmp_path / "model")
    return tmp_path / "model"


def read(directory):
    return steps.read_newest(directory, {"params": TARGET, "opt_state": TARGET})


def test_arrays_exchanged_between_two_names_are_seen(saved, capsys):
    other = saved.parent / "other"
    with steps.manager(other) as manager:
        steps.save(manager, 2, {"a": PARAMS["b"] + 2, "b": PARAMS["a"] + 2}, PARAMS, {"tokens": 5.0})
    shutil.rmtree(saved / "checkpoints/2/params")
    shutil.copytree(other / "checkpoints/2/params", saved / "checkpoints/2/params")
    assert read(saved).step == 1
    assert "checkpoint 2 is damaged (array params/a is not what was saved)" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"tree_metadata": 3}', b'{"tokens": 6.0}'])
@pytest.mark.parametrize("name", ["params/_METADATA", "progress/metadata", "digests/metadata"])
def test_malformed_metadata_is_damage_and_no_traceback(saved, name, content):
    (saved / "checkpoints/2" / name).write_bytes(content)
    assert read(saved).step == 1


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"commit_timestamp_nsecs": "x"}'])
def test_a_run_writes_on_beside_a_step_whose_own_metadata_is_malformed(saved, step, content):
    (saved / f"checkpoints/{step}/_CHECKPOINT_METADATA").write_bytes(content)
    assert train_state.restore_newest(train_state.TrainState(TARGET, TARGET), saved)[0] in (1, 2)
    with steps.manager(saved, keep=1, keep_hours=1e-9) as manager:
        steps.save(manager, 3, PARAMS)
    assert steps.listed(saved)[0] == 3


def test_a_half_deleted_step_is_passed_over(saved):
    files = sorted(p for p in (saved / "checkpoints/2").rglob("*") if p.is_file())
    for path in files:
        path.unlink()
        found = read(saved)
        np.testing.assert_array_equal(found.trees["params"]["a"], PARAMS["a"] + found.step)
    assert found.step == 1
    shutil.rmtree(saved / "checkpoints/2")
    assert read(saved).step == 1


def test_a_fault_that_is_not_of_the_bytes_is_not_called_damage(saved, monkeypatch, capsys):
    def refuse(*_, **__):
        raise ValueError("Checkpoint path should be absolute")

    monkeypatch.setattr(steps.ocp.StandardCheckpointHandler, "restore", refuse)
    with pytest.raises(ValueError, match="absolute"):
        read(saved)
    assert "damaged" not in capsys.readouterr().err


def test_relative_paths_are_read(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    assert read(pathlib.Path("model")).step == 2


def test_another_shape_is_an_error_that_names_the_parameter(saved):
    target = TARGET | {"a": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=TARGET["a"].sharding)}
    with pytest.raises(InputError, match=r"parameter a is \(1000,\) in the checkpoint, \(3,\) by the config"):
        steps.read_newest(saved, {"params": target})


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
