import contextlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

from spct_jax import config as config_lib
from spct_jax.errors import InputError
from spct_jax.launching import run as run_lib
from spct_jax.launching.flags import check_arguments
from spct_jax.runtime import slices

JUDGE = ("--checkpoint=gs://b/m", "--input=gs://b/x.jsonl", "--output=gs://b/y.jsonl")
EVALUATE = ("--output=gs://b/out", "--benchmark=rmb")


@pytest.mark.parametrize(
    ("program", "about", "name"),
    [
        ("train", "experiments/gemma2_27b.py", "gemma2-27b-train"),
        ("train", "experiments/gemma3_1b.py:meta_rm", "gemma3-1b-meta-rm-train"),
        ("train", "tiny", "tiny-train"),
        ("train", "a/My Own__v2.1.py", "my-own-v2-1-train"),
        ("judge", "gs://ours/verdicts/hh.jsonl", "hh-judge"),
        ("judge", "-", "judge"),
        ("evaluate", "gs://ours/rewardbench/", "rewardbench-evaluate"),
    ],
)
def test_a_run_is_named_after_its_experiment_or_its_output(program, about, name):
    assert run_lib.check_name(run_lib.default_name(program, about)) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "a_b", "a-", "-a", "a b", "a" * 64, "a\n"])
def test_names_are_those_of_rfc_1123(name):
    with pytest.raises(InputError, match="--name="):
        run_lib.check_name(name)


def test_one_slice_is_compiled_as_planned_and_own_variables_win():
    one = run_lib.Run(
        "r", "train", (), slices.parse("v5e:4x4"), libtpu_arguments="--a=1", variables=(("JAX_PLATFORMS", "tpu"),)
    )
    assert one.environment["LIBTPU_INIT_ARGS"] == "--a=1" and one.environment["JAX_PLATFORMS"] == "tpu"
    assert "LIBTPU_INIT_ARGS" not in run_lib.Run("r", "train", (), slices.parse("v5e:4x4")).environment
    two = run_lib.Run("r", "train", (), slices.parse("v5e:4x4"), 2, "--a=1").environment["LIBTPU_INIT_ARGS"].split()
    assert two[-1] == "--a=1" and len(two) == 3


def test_variables_are_names_and_values():
    assert run_lib.variables(["A=b=c", "B="]) == (("A", "b=c"), ("B", ""))
    for wrong in ("A", "=b", "1A=b", "A B=c"):
        with pytest.raises(InputError, match=f"--env={wrong}: expected NAME=VALUE"):
            run_lib.variables([wrong])


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("judge", ("--input=gs://b/x.jsonl", "--kk=3"), "--program=judge: Unknown command line flag 'kk'"),
        ("judge", ("--input=gs://b/x.jsonl", "--k=a"), "--program=judge: flag --k=a: invalid literal"),
        ("judge", ("--input=gs://b/x.jsonl", "--k", "3", "8"), "--program=judge: unexpected argument '8'"),
        ("judge", ("--input=gs://b/x.jsonl", "--output=gs://b/y.jsonl"), "--program=judge: --checkpoint is needed"),
        ("judge", (*JUDGE, "--k=0"), r"--program=judge: --k: 0 is not in \[1, "),
        ("judge", (*JUDGE, "--k=8", "--k_meta=16"), "--program=judge: --k_meta: 16 is more than the 8 samples of k"),
        ("judge", (*JUDGE, "--max_prompt=512"), None),
        ("judge", (*JUDGE[:2], "--explain=7"), None),
        ("evaluate", (*EVALUATE, "--temperature=-1"), "--program=evaluate: --temperature: -1.0 is not in"),
        ("evaluate", (*EVALUATE, "--k=1,8", "--k_meta=4"), None),
        ("evaluate", (*EVALUATE, "--k_meta=16"), None),
        ("evaluate", (*EVALUATE, "--k=1,8", "--k_meta=8"), "--program=evaluate: --k_meta: 8 is not below any number of votes"),
        ("evaluate", (*EVALUATE, "--k=0"), "--program=evaluate: --k=0: not integers from 1 to 65536"),
        ("train", ("--workdir=gs://b/w", "--profile_prt=1"), "--program=train: Unknown command line flag 'profile_prt'"),
        ("evaluate", ("--output=gs://b/out",), "--program=evaluate: --benchmark must be given"),
        ("evaluate", (*EVALUATE, "--nogreedy"), None),
    ],
)
def test_a_programs_flags_are_checked_before_anything_waits_for_chips(program, arguments, said):
    with pytest.raises(InputError, match=f"^{said}") if said else contextlib.nullcontext():
        check_arguments(program, arguments)


def test_the_experiments_flags_are_passed_on_and_the_mesh_is_told_of_slices():
    config = config_lib.tiny()
    argv = ["gke.py", "--topology=v5e:4x4", f"--config={run_lib.ROOT}/experiments/tiny.py:btrm", "--config.rl.steps=3"]
    arguments = run_lib.train_arguments([*argv, "--noconfig.meta_rm.enabled"], config, "gs://b/r", 1)
    assert arguments[0] == "--workdir=gs://b/r" and arguments[-1] == "--profile_port=9012"
    passed = ("--config=experiments/tiny.py:btrm", "--config.rl.steps=3", "--noconfig.meta_rm.enabled")
    assert arguments[1:-1] == passed
    mesh = run_lib.train_arguments(argv, config, "w", 2)[3:-1]
    assert mesh == ("--config.mesh.strategy=multislice", "--config.mesh.slices=2")
    config.mesh.slices = 2
    assert run_lib.train_arguments(argv, config, "w", 2)[3:-1] == ()
    with pytest.raises(InputError, match="not in the repository"):
        run_lib.train_arguments([f"--config={pathlib.Path('/').absolute()}etc/x.py"], config, "w", 2)


@pytest.mark.parametrize(
    ("topology", "count", "mesh", "said"),
    [
        ("v5e:2x4", 2, {}, None),
        ("v5e:4x4", 2, {}, "2 x v5e:4x4: config.rft.batch_size: a batch of 48 cannot be split over 32 devices"),
        ("v5e:4x4", 2, {"strategy": "multislice", "tensor": 2}, None),
        ("tpu7x:2x2x4", 1, {}, "tpu7x:2x2x4: config.rft.batch_size: a batch of 48 cannot be split over 32 devices"),
        ("tpu7x:2x2x4", 1, {"strategy": "tensor", "tensor": 2}, None),
        (
            "v4:2x2x1",
            1,
            {"strategy": "fsdp_tensor", "tensor": 8},
            "v4:2x2x1: 4 devices cannot be arranged in slices=1 and tensor=8",
        ),
        (
            "v5e:2x4",
            1,
            {"strategy": "multislice", "slices": 2},
            "--slices=1: the experiment is laid out for config.mesh.slices=2",
        ),
    ],
)
def test_what_does_not_fit_the_devices_is_said_before_anything_waits_for_them(topology, count, mesh, said):
    config = config_lib.tiny()
    config.mesh = config_lib.MeshConfig(**mesh)
    with pytest.raises(InputError, match=re.escape(said)) if said else contextlib.nullcontext():
        run_lib.check_devices(config, slices.parse(topology), count)


@pytest.mark.tpu_compiler
def test_the_tpu_compiler_knows_its_flags():
    two = run_lib.Run("r", "train", (), slices.parse("v5e:2x2"), 2)
    code = "from spct_jax.runtime import hardware as h; h.prepare(h.CHIPS['v5e']); h.slice_devices('v5e:2x2', 2)"
    for wrong, status in (("", 0), (" --xla_no_such_flag=1", 1)):
        environment = os.environ | {"LIBTPU_INIT_ARGS": two.environment["LIBTPU_INIT_ARGS"] + wrong}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert bool(done.returncode) == bool(status), done.stderr
