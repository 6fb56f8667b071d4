"""The XManager launcher with the real library, mocked where it would reach a builder of images or a cluster."""

import json
import os
import subprocess
import sys

import pytest
import strict_crd
import yaml
from launchers import ROOT, launch, stand_in

pytest.importorskip("xmanager", reason="needs xmanager (pip install -e '.[launch]')")
pytestmark = pytest.mark.xmanager

FLAGS = ("--topology=v5e:4x4", "--bucket=gs://ours", "--image=registry/spct:1", "--name=sweep")
SWEEP = (
    "--xp_config=experiments/gemma2_2b.py",
    "--override=rl.steps=80",
    "--sweep=seed=0,1",
    "--sweep=evaluation.k=(1, 8),(1,)",
)
KUBECTL = """import pathlib, sys
directory = pathlib.Path({directory!r})
(directory / f"{{len(list(directory.glob('*.yaml')))}}.yaml").write_text(sys.stdin.read())
"""
PYTHON = """import json, os, pathlib, sys
with open({seen!r}, "a") as file:
    file.write(json.dumps([sys.argv[1:], os.environ["JAX_PLATFORMS"]]) + "\\n")
"""
MOCKED = """
import sys
from unittest import mock
from absl import app
from xmanager.cli import cli
from xmanager.cloud import build_image, docker_lib

def build(path, dockerfile, tag, **_):
    print("built", path, dockerfile, tag)
    return tag

with mock.patch.object(build_image, "build_by_dockerfile", build), \\
        mock.patch.object(docker_lib, "is_docker_installed", lambda: False):
    app.run(cli.main, argv=["xmanager", "launch", "launch/xm_launch.py", "--", *sys.argv[1:]], flags_parser=cli._parse_flags)
"""


def xmanager(tmp_path, *flags, code=MOCKED):
    """`xmanager launch launch/xm_launch.py -- FLAGS`, with stand-ins for commands in `tmp_path/bin`."""
    (tmp_path / "home").mkdir(exist_ok=True)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home"), "PATH": path}
    command = [sys.executable, "-c", code, *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_a_sweep_submits_the_jobsets_that_a_dry_run_prints(tmp_path):
    stand_in(tmp_path / "bin", "kubectl", KUBECTL.format(directory=str(tmp_path)))
    done = xmanager(tmp_path, *FLAGS, *SWEEP)
    assert done.returncode == 0, done.stderr
    assert f"built {ROOT} {ROOT / 'launch' / 'Dockerfile'} registry/spct:1" in done.stdout
    submitted = [yaml.safe_load(path.read_text()) for path in sorted(tmp_path.glob("*.yaml"))]
    assert len(submitted) == 4
    crd = strict_crd.validator()
    swept = set()
    for manifest in submitted:
        crd.validate(manifest)
        command = command_of(manifest)
        assert f"--workdir=gs://ours/{manifest['metadata']['name']}" in command and "--config.rl.steps=80" in command
        swept.add(tuple(part for part in command if part.startswith(("--config.seed", "--config.evaluation"))))
    assert {name for (name, _) in swept} == {"--config.seed=0", "--config.seed=1"} and len(swept) == 4
    assert {k for (_, k) in swept} == {"--config.evaluation.k=(1, 8)", "--config.evaluation.k=(1,)"}

    printed = xmanager(tmp_path, *FLAGS, *SWEEP, "--dry_run")
    by_name = {manifest["metadata"]["name"]: manifest for manifest in submitted}
    assert {m["metadata"]["name"]: m for m in yaml.safe_load_all(printed.stdout)} == by_name
    assert sorted(by_name) == ["sweep-1", "sweep-2", "sweep-3", "sweep-4"]


def command_of(manifest):
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return pod["containers"][0]["command"]


def test_one_run_is_what_the_gke_launcher_prints(tmp_path):
    printed = xmanager(tmp_path, *FLAGS, "--xp_config=experiments/gemma2_2b.py", "--override=rl.steps=80", "--dry_run")
    other = launch("gke", *FLAGS, "--config=experiments/gemma2_2b.py", "--config.rl.steps=80")
    assert printed.returncode == other.returncode == 0 and printed.stdout == other.stdout


def test_a_local_rehearsal_runs_the_entry_point_for_every_work_unit(tmp_path):
    stand_in(tmp_path / "bin", "python", PYTHON.format(seen=str(tmp_path / "seen")))
    flags = ("--topology=v5e:4x4", f"--workdir={tmp_path / 'w'}", "--name=try", "--sweep=seed=3,4", "--local")
    done = xmanager(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    ran = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert {platforms for _, platforms in ran} == {"cpu"}
    assert sorted(command[:3] + command[4:5] for command, _ in ran) == [
        ["-m", "spct_jax.train", f"--workdir={tmp_path / 'w' / 'try-1'}", "--config.seed=3"],
        ["-m", "spct_jax.train", f"--workdir={tmp_path / 'w' / 'try-2'}", "--config.seed=4"],
    ]


EXPERIMENT = """
import json, sys
from absl import flags
from xmanager import xm_mock
sys.path.insert(0, "launch")
import xm_launch
flags.FLAGS(["x", *sys.argv[1:]])
experiment = xm_mock.MockExperiment()
with experiment:
    xm_launch.add(experiment, xm_launch.runs(), xm_launch.CLUSTER.cluster(xm_launch.RUN))
print(json.dumps([[job.name, job.args.to_list(str), type(job.executor).__name__] for job in experiment.launched_jobs]))
"""


def test_work_units_of_an_experiment_carry_their_arguments(tmp_path):
    done = xmanager(tmp_path, *FLAGS, "--xp_config=experiments/tiny.py,experiments/tiny.py:btrm", code=EXPERIMENT)
    assert done.returncode == 0, done.stderr
    assert [[name, arguments[1], kind] for name, arguments, kind in json.loads(done.stdout)] == [
        ["sweep-1", "--config=experiments/tiny.py", "JobSetExecutor"],
        ["sweep-2", "--config=experiments/tiny.py:btrm", "JobSetExecutor"],
    ]


MISTAKES = """
import sys
from absl import flags
sys.path.insert(0, "launch")
import xm_launch
from spct_jax.errors import InputError
for mistake in sys.argv[5:]:
    flags.FLAGS.unparse_flags()
    for name in ("sweep", "override"):
        flags.FLAGS[name].value = []
    flags.FLAGS(["x", *sys.argv[1:5], mistake])
    try:
        xm_launch.runs()
    except InputError as error:
        print(error)
"""


def test_mistakes_are_found_before_anything_is_packaged(tmp_path):
    mistakes = ("--sweep=seed", "--sweep=sead=0,1", "--override=seed", "--topology=v5e:3x3")
    done = xmanager(tmp_path, *FLAGS, *mistakes, code=MISTAKES)
    found = done.stdout.splitlines()
    assert found[0] == "--sweep=seed: expected FIELD=VALUE,VALUE.." and "did you mean --config.seed?" in found[1], done.stderr
    assert found[2] == "--override=seed: expected FIELD=VALUE" and "v5e has no such slice" in found[3]


def test_a_tokenizer_can_be_read_beside_the_library():
    """It wants another protobuf than the newest sentencepiece."""
    done = subprocess.run([sys.executable, "-c", "import spct_jax.data.tokenizer"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
