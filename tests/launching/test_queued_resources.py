import shlex

import pytest
from launchers import launch

from spct_jax.errors import InputError
from spct_jax.launching import queued_resources
from spct_jax.launching.queued_resources import Answer, Request, State
from spct_jax.launching.run import Run
from spct_jax.runtime import slices


def a_request(topology="v5p:2x2x4", count=1, **more):
    return Request(Run("r", "train", ("--workdir=w",), slices.parse(topology), count), "z", **more)


@pytest.mark.parametrize(
    ("topology", "count", "options", "command"),
    [
        ("v5p:2x2x4", 1, {}, "--accelerator-type=v5p-32 --runtime-version=v2-alpha-tpuv5 --node-id=r"),
        (
            "v6e:4x4",
            3,
            {"provisioning": "spot", "project": "p"},
            "--project=p --accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e --node-count=3 --node-prefix=r --spot",
        ),
        (
            "v5e:2x4",
            1,
            {"provisioning": "reserved", "valid_hours": 6, "internal_ip": True, "runtime": "x"},
            "--accelerator-type=v5litepod-8 --runtime-version=x --node-id=r --reserved --valid-until-duration=6h "
            "--internal-ips",
        ),
        (
            "v4:2x2x4",
            1,
            {},
            "--type=v4 --topology=2x2x4 --runtime-version=tpu-ubuntu2204-base --node-id=r",
        ),
    ],
)
def test_slices_are_asked_for_by_the_names_of_the_tpu_vm_api(topology, count, options, command):
    wanted = f"gcloud compute tpus queued-resources create r --zone=z {command}"
    assert a_request(topology, count, **options).create() == wanted.split()


def test_flex_start_is_asked_for_with_how_long_it_is_wanted():
    command = a_request("v6e:4x4", provisioning="flex-start", run_hours=12).create()
    assert command[:5] == ["gcloud", "alpha", "compute", "tpus", "queued-resources"]
    assert command[-2:] == ["--provisioning-model=flex-start", "--max-run-duration=12h"]


@pytest.mark.parametrize(
    ("topology", "options", "says"),
    [
        ("tpu7x:2x2x1", {}, "use launch/gke.py"),
        ("v5p:4x4x16", {}, "no name for it"),
        ("v6e:4x4", {"provisioning": "flex-start"}, "needs --run_hours"),
        ("v6e:4x4", {"run_hours": 3}, "flex-start only"),
    ],
)
def test_what_cannot_be_had_as_a_tpu_vm_is_named(topology, options, says):
    with pytest.raises(InputError, match=says):
        a_request(topology, **options)


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([(1, "", "NOT_FOUND: it is not there")], State.ABSENT),
        ([(0, "WAITING_FOR_RESOURCES")], State.WAITING),
        ([(0, "PROVISIONING")], State.WAITING),
        ([(0, "SUSPENDED")], State.LOST),
        ([(0, "SUSPENDING")], State.LOST),
        ([(0, "FAILED")], State.LOST),
        ([(0, "")], State.LOST),
        ([(0, "ACTIVE"), (0, "READY"), (0, "READY")], State.READY),
        ([(0, "ACTIVE"), (0, "READY"), (0, "PREEMPTED")], State.LOST),
        ([(0, "ACTIVE"), (0, "READY"), (1, "", "NOT_FOUND")], State.LOST),
        ([(0, "ACTIVE"), (0, "READY"), (0, "CREATING")], State.WAITING),
    ],
)
def test_what_is_neither_waiting_nor_ready_is_lost(answers, state):
    left = [Answer(*answer) for answer in answers]
    assert queued_resources.state(a_request(count=2), lambda command: left.pop(0)) is state and not left


def test_every_verb_prints_what_it_would_run():
    flags = ("--zone=z", "--topology=v5e:2x4", "--slices=2", "--bucket=gs://b", "--config=experiments/tiny.py", "--delete")
    printed = launch("tpu_vm", "watch", *flags, "--config.rl.steps=5", "--dry_run")
    assert printed.returncode == 0, printed.stderr
    commands = [shlex.split(line) for line in printed.stdout.splitlines()]
    run = Run(
        "tiny-train",
        "train",
        (
            "--workdir=gs://b/tiny-train",
            "--config=experiments/tiny.py",
            "--config.rl.steps=5",
            "--config.mesh.strategy=multislice",
            "--config.mesh.slices=2",
            "--profile_port=9012",
        ),
        slices.parse("v5e:2x4"),
        2,
        variables=(("JAX_COMPILATION_CACHE_DIR", "gs://b/compiled"),),
    )
    request = Request(run, "z")
    assert commands[0] == request.create() and commands[-1] == request.delete()
    for node in ("tiny-train-0", "tiny-train-1"):
        for command in (*request.deploy(node, queued_resources.ARCHIVE), request.start(node), request.status(node)):
            assert command in commands


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "usage: tpu_vm.py"),
        (("start",), "unknown verb 'start'; usage"),
        (("run", "--topology=v5e:2x4"), "--zone"),
        (("watch", "--topology=v5e:2x4", "--poll_seconds=nan", "--dry_run"), "--poll_seconds=nan: not from 0 to 86,400"),
    ],
)
def test_a_verb_a_zone_and_numbers_are_needed(arguments, says):
    done = launch("tpu_vm", *arguments)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
