"""Checkpoints whose bytes are not those that were saved: seen, named, and passed over."""

import pathlib
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from spct_jax.checkpoints import restore, steps, train_state
from spct_jax.errors import InputError

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
    return restore.read_newest(directory, {"params": TARGET, "opt_state": TARGET})


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

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", refuse)
    with pytest.raises(ValueError, match="absolute"):
        read(saved)
    assert "damaged" not in capsys.readouterr().err


def test_relative_paths_are_read(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    assert read(pathlib.Path("model")).step == 2


def test_another_shape_is_an_error_that_names_the_parameter(saved):
    target = TARGET | {"a": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=TARGET["a"].sharding)}
    with pytest.raises(InputError, match=r"parameter a is \(1000,\) in the checkpoint, \(3,\) by the config"):
        restore.read_newest(saved, {"params": target})


def test_what_is_counted_on_while_a_step_is_written_does_not_change_it(tmp_path):
    progress = {"sums": {"loss": [1.0, 1.0]}}
    written = threading.Event()
    save = ocp.JsonCheckpointHandler._save_fn

    async def late(self, *args):
        written.wait(5)
        await save(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ocp.JsonCheckpointHandler, "_save_fn", late)
        with steps.manager(tmp_path) as manager:
            steps.save(manager, 1, PARAMS, None, progress)
            progress["sums"]["loss"] = [2.0, 2.0]
            written.set()
    assert restore.read_newest(tmp_path, {"params": TARGET}).progress == {"sums": {"loss": [1.0, 1.0]}}
