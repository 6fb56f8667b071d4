"""The train command, killed or damaged: started again, it ends bitwise as if it had not been."""

import functools
import json
import subprocess

import limits
import pytest
import study_modules

MICRO = [
    "--config.model.num_layers=1",
    "--config.data.toy.train=48",
    "--config.data.toy.test=24",
    "--config.data.toy.development=16",
    "--config.data.toy.demonstrations=64",
    "--config.data.toy.general=16",
    "--config.stages=('sft', 'rl')",
    "--config.sft.steps=2",
    "--config.sft.batch_size=8",
    "--config.rl.steps=2",
    "--config.rl.batch_size=8",
    "--config.checkpoint.every_steps=1",
]


@pytest.fixture
def kill_test():
    with study_modules.imported("kill_test") as (module,):
        yield module


def test_killed_and_restarted_by_a_relative_path_it_ends_bitwise_the_same(kill_test, tmp_path):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    kill_test.kills.run_undisturbed(calm, MICRO, kill_test.kills.Mesh())
    with kill_test.kills.Pod(killed, MICRO, [kill_test.kills.Mesh()]) as pod:
        pod.begin()
        for _ in pod.looks():
            if (pod.workdir / "rl" / "checkpoints" / "1").exists():
                break
        pod.kill(pod.pids)
        assert not (pod.workdir / "report.json").exists(), "the run was over before it could be killed"
        pod.begin()
        pod.end()
    assert set(kill_test.digests(pod.workdir)) == {"sft", "rl"}
    assert kill_test.compare(kill_test.kills.workdir_in(calm), pod.workdir) == []
    assert json.loads((pod.workdir / "rl" / "summary.json").read_text())["steps"] == 2
    assert "is damaged" not in pod.log.read_text()


def test_where_one_process_cannot_read_its_part_of_a_checkpoint_the_run_goes_on_from_an_earlier_one(kill_test, tmp_path):
    mesh = ("strategy=fsdp", "cpu_devices=1", "heartbeat_seconds=60")
    pair = kill_test.kills.Mesh(2, tuple(f"--config.mesh.{flag}" for flag in mesh))
    flags = ["--config.stages=('sft',)" if "stages" in flag else flag for flag in MICRO] + ["--config.sft.steps=3"]
    workdir = kill_test.kills.workdir_in(tmp_path)
    start = kill_test.kills.command(flags, pair, 1)
    again = functools.partial(subprocess.run, start, cwd=tmp_path, capture_output=True, text=True)
    assert again(timeout=limits.SECONDS).returncode == 0
    calm = kill_test.digests(workdir)
    (workdir / "sft" / "summary.json").unlink()
    part = workdir / "sft" / "checkpoints" / "3" / "params" / "ocdbt.process_1"
    largest = max((p for p in part.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    done = again(timeout=limits.SECONDS)
    assert done.returncode == 0 and "restart" not in done.stderr and "checkpoint 3 is damaged" in done.stderr, done.stderr
    assert kill_test.digests(workdir) == calm
    assert [p.name.partition("-")[0] for p in (workdir / "sft" / "damaged").iterdir()] == ["3"]
