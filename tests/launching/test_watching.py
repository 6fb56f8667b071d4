"""A run on TPU VMs from request to end, on a cloud that is played on this machine."""

import time

import pytest
from fake_cloud import FakeCloud

from spct_jax.launching import watching
from spct_jax.launching.queued_resources import GcloudError, Request
from spct_jax.launching.run import Run
from spct_jax.launching.watching import Watch
from spct_jax.runtime import slices

COUNTED = 'echo life >> "$HOME/../lives"; lives=$(grep -c life "$HOME/../lives");'
"""Bash that counts how often the command was started, over all hosts."""


@pytest.fixture(autouse=True)
def small_archive(monkeypatch, tmp_path):
    """Copying needs the scripts only."""
    monkeypatch.setattr(watching.queued_resources, "COPIED", ("launch",))


def a_request(topology="v5e:4x4", count=1, **more):
    run = Run("r", "train", ("--workdir=gs://b/r", "--config.x=a 'b'"), slices.parse(topology), count)
    return Request(run, "us-east5-a", **more)


def watch(cloud, request, said=None):
    return Watch(request, cloud, (said if said is not None else []).append, seconds=0.01)


def verbs(cloud):
    """What was asked of the requests, without looking at them."""
    asked = [call[call.index("queued-resources") + 1] for call in cloud.calls if "queued-resources" in call]
    return [verb for verb in asked if verb != "describe"]


def test_a_run_goes_from_request_to_end_on_all_hosts_of_all_slices(tmp_path):
    waiting = ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING", "ACTIVE"]
    cloud = FakeCloud(tmp_path / "cloud", 4, 'echo "ran $*; $JAX_PLATFORMS"', waiting)
    request, said = a_request(count=2), []
    assert watch(cloud, request, said).run(max_restarts=0) == 0
    assert verbs(cloud) == ["create"] and said.count("waiting for the slices") == 1
    for node in ("r-0", "r-1"):
        assert len(cloud.homes(node)) == 4
        for home in cloud.homes(node):
            log = (home / ".spct_jax" / "log").read_text()
            assert "ran -m spct_jax.train --workdir=gs://b/r --config.x=a 'b'; tpu,cpu" in log
            assert (home / ".spct_jax" / "ended").read_text() == "0\n"


def test_slices_that_are_lost_are_asked_for_again_and_the_run_goes_on(tmp_path):
    body = COUNTED + ' if [[ $lives -le 2 ]]; then touch "$HOME/../running"; sleep 60; fi'
    cloud = FakeCloud(tmp_path / "cloud", 1, body, ["WAITING_FOR_RESOURCES", "ACTIVE"])
    request, said = a_request("v5e:2x4", 2), []
    one = watch(cloud, request, said)
    one.until_ready()
    one.deploy()
    one.start()
    assert one.statuses() == ["running", "running"]
    cloud.states = ["SUSPENDED", "WAITING_FOR_RESOURCES", "ACTIVE"]
    assert one.run(max_restarts=0) == 0
    assert verbs(cloud) == ["create", "delete", "create"] and "the slices are lost" in said


@pytest.mark.parametrize("left", ["PREEMPTED", "TERMINATED", "STOPPED", "a state that nobody has heard of"])
def test_a_vm_that_is_not_ready_is_lost_whatever_its_request_says(tmp_path, left):
    cloud = FakeCloud(tmp_path / "cloud", 1, "exit 0")
    request = a_request("v5e:2x4", 2)
    watch(cloud, request).until_ready()
    cloud.nodes_are["r-1"] = left
    assert watch(cloud, request).run(max_restarts=0) == 0
    assert verbs(cloud) == ["create", "delete", "create"]


@pytest.mark.parametrize(
    ("body", "max_restarts", "status", "lives"),
    [
        ("exit 2", 5, 2, 1),
        ("exit 1", 2, 1, 3),
        ("[[ $lives -gt 3 ]] || exit 75", 0, 0, 4),  # to be told to stop does not count
        ("[[ $lives -gt 1 ]] || exit 139", 1, 0, 2),
    ],
)
def test_how_a_run_ends_says_whether_it_is_started_again(tmp_path, body, max_restarts, status, lives):
    cloud = FakeCloud(tmp_path / "cloud", 1, f"{COUNTED} {body}")
    assert watch(cloud, a_request("v5e:2x4")).run(max_restarts) == status
    assert (tmp_path / "cloud" / "lives").read_text().count("life") == lives


def test_a_run_that_was_over_before_is_started_with_what_is_in_the_repository_now(tmp_path):
    cloud = FakeCloud(tmp_path / "cloud", 1, f"{COUNTED} [[ $lives -gt 1 ]] || exit 2")
    assert watch(cloud, a_request("v5e:2x4")).run(max_restarts=0) == 2
    copied = sum("scp" in call for call in cloud.calls)
    assert watch(cloud, a_request("v5e:2x4")).run(max_restarts=0) == 0
    assert sum("scp" in call for call in cloud.calls) == 2 * copied


def test_of_several_hosts_wrong_input_decides_then_being_told_to_stop():
    assert watching._worst(["ended 1", "ended 2", "ended 75"]) == 2
    assert watching._worst(["ended 1", "ended 75"]) == 75
    assert watching._worst(["ended 0", "ended 137"]) == 137
    assert watching._worst(["ended 0", "ended 0"]) == 0


def test_a_network_that_is_away_for_a_while_loses_nothing(tmp_path):
    cloud = FakeCloud(tmp_path / "cloud", 1, "exit 0")
    one = watch(cloud, a_request("v5e:2x4"), said := [])
    one.until_ready()
    cloud.refuse = 5
    assert one.run(max_restarts=0) == 0
    assert "cannot be told now: ERROR: the network is away" in said and verbs(cloud) == ["create"]
    cloud.refuse = 1000
    with pytest.raises(GcloudError, match="the network is away"):
        one.run(max_restarts=0)


def test_a_run_that_is_stopped_saves_and_says_how_it_ended(tmp_path):
    body = 'trap "exit 75" TERM; touch "$HOME/listens"; while true; do sleep 0.05; done'
    cloud = FakeCloud(tmp_path / "cloud", 2, body)
    one = watch(cloud, a_request("v5e:4x4"))
    one.until_ready()
    one.deploy()
    one.start()
    while not all((home / "listens").exists() for home in cloud.homes("r")):
        time.sleep(0.02)
    with pytest.raises(GcloudError, match="a run is under way"):
        one.start()
    assert one.stop(20) == ["ended 75", "ended 75"]


def test_what_runs_on_a_host_is_what_the_commands_say(tmp_path):
    request = a_request("v5e:2x4")
    cloud = FakeCloud(tmp_path / "cloud", 1, "env > $HOME/environment")
    assert watch(cloud, request).run(max_restarts=0) == 0
    environment = dict(line.split("=", 1) for line in (cloud.homes("r")[0] / "environment").read_text().splitlines())
    assert request.run.environment.items() <= environment.items()
    assert request.start("r") in cloud.calls and request.create() in cloud.calls
    started = (cloud.homes("r")[0] / ".spct_jax" / "log").read_text()
    assert r"python -m spct_jax.train --workdir=gs://b/r --config.x=a\ \'b\'" in started
