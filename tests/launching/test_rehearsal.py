"""What launchers render is run here as GKE and TPU VMs would run it: two hosts of two devices, one of them killed."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import limits
import pytest
import yaml
from launchers import ROOT, launch

from spct_jax.errors import InputError
from spct_jax.launching import rehearsal

SMALL = (
    '--config.stages=("sft",)',
    "--config.mesh.cpu_devices=2",
    "--config.mesh.strategy=fsdp",
    "--config.mesh.heartbeat_seconds=60",
    "--config.model.num_layers=1",
    "--config.data.toy.train=16",
    "--config.data.toy.development=8",
    "--config.data.toy.test=8",
    "--config.data.toy.demonstrations=32",
    "--config.data.toy.general=8",
    "--config.sft.steps=4",
    "--config.sft.batch_size=8",
    "--config.checkpoint.every_steps=1",
)
FLAGS = ("--config=experiments/tiny.py", "--topology=v5p:2x2x2", *SMALL)


def local(*arguments, **variables):
    """The local launcher, with its output in a pipe."""
    command = [sys.executable, ROOT / "launch" / "local.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.Popen(command, cwd=ROOT, env=environment | variables, stderr=subprocess.PIPE, stdout=-3, text=True)


def children(pid):
    """Processes that a process has started."""
    return [
        int(child) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def ran(log):
    """The commands that entry points say they started."""
    return [shlex.split(line) for line in re.findall(r"^launch: starts at \S+: (.*)$", log, re.MULTILINE)]


def last_digests(workdir):
    """(step, digests of all parameters and of the optimiser's state) of the last checkpoint."""
    step = max(path for path in (workdir / "sft" / "checkpoints").iterdir() if path.name.isdigit())
    saved = json.loads((step / "digests" / "metadata").read_text())
    return step.name, saved["params"], saved["opt_state"]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a host in /proc")
def test_what_is_rendered_runs_and_a_host_that_is_killed_changes_no_bit(tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    rendered = launch("gke", *FLAGS, "--image=i", f"--workdir={killed}", "--dry_run", anew=True)
    (tmp_path / "jobset.yaml").write_text(rendered.stdout)
    run = local(f"--jobset={tmp_path / 'jobset.yaml'}", "--grace=1")
    until(lambda: any((killed / "sft" / "checkpoints").glob("[1-9]")), run)
    (victim,) = children(children(run.pid)[1])
    os.kill(victim, signal.SIGKILL)
    log = run.communicate(timeout=limits.SECONDS)[1]
    assert run.returncode == 0, log
    assert "restart 1 of 10" in log
    container = yaml.safe_load(rendered.stdout)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ][0]
    as_rendered = ["python", "-m", "spct_jax.train", *container["command"][3:]]
    assert len(ran(log)) >= 4 and all(command == as_rendered for command in ran(log))  # two hosts, two lives

    printed = launch("tpu_vm", "run", "--zone=z", *FLAGS, f"--workdir={undisturbed}", "--dry_run", anew=True).stdout
    (script,) = re.findall(r"^.*worker.sh start .*$", printed, re.MULTILINE)
    (remote,) = [part.removeprefix("--command=") for part in shlex.split(script) if part.startswith("--command=")]
    variables, _, command = remote.partition(" -- ")
    told = dict(one.split("=", 1) for one in shlex.split(variables)[3:])
    with local("--platform=tpu_vm", "--processes=2", "--", *shlex.split(command), **told) as run:
        log = run.communicate(timeout=limits.SECONDS)[1]
    assert run.returncode == 0, log
    as_printed = ["python", "-m", "spct_jax.train", *shlex.split(command)[3:]]
    assert len(ran(log)) >= 2 and all(command == as_printed for command in ran(log))

    assert last_digests(killed) == last_digests(undisturbed)
    assert last_digests(killed)[0] == "4"


def until(holds, run):
    """Waits until something holds while a process runs."""
    deadline = time.monotonic() + limits.SECONDS
    while not holds():
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


JOB = rehearsal.Job(["c"], {"A": "b", "JAX_PLATFORMS": "tpu,cpu"}, 2, 2, rehearsal.usual_action, 0)


def test_processes_on_gke_are_told_of_each_other_by_variables():
    with rehearsal.metadata_servers("gke", 2, 2) as servers:
        made = rehearsal.processes(JOB, "gke", 1234, servers)
    told = [process.environment for process in made]
    assert [(t["TPU_WORKER_ID"], t["MEGASCALE_SLICE_ID"]) for t in told] == [("0", "0"), ("1", "0"), ("0", "1"), ("1", "1")]
    assert {t["TPU_WORKER_HOSTNAMES"] for t in told} == {"localhost,localhost"} and {t["A"] for t in told} == {"b"}
    assert {t["MEGASCALE_NUM_SLICES"] for t in told} == {"2"} and {t["JAX_PLATFORMS"] for t in told} == {"cpu"}
    one = rehearsal.Job(["c"], {}, 1, 1, rehearsal.usual_action, 0)
    with rehearsal.metadata_servers("gke", 1, 1) as servers:
        assert not any(name.startswith("MEGASCALE") for name in rehearsal.processes(one, "gke", 1, servers)[0].environment)


def ask(server, name, **headers):
    request = urllib.request.Request(f"http://{server.address}/computeMetadata/v1/instance/attributes/{name}", headers=headers)
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).read().decode()


def test_processes_on_tpu_vms_are_told_of_each_other_by_the_metadata_server():
    google = {"Metadata-Flavor": "Google"}
    with rehearsal.metadata_servers("tpu_vm", 2, 2) as servers:
        assert [ask(server, "agent-worker-number", **google) for server in servers] == ["0", "1", "0", "1"]
        assert ask(servers[3], "worker-network-endpoints", **google) == "localhost,localhost"
        assert "MEGASCALE_SLICE_ID: '1'" in ask(servers[3], "tpu-env", **google).splitlines()
        for name, headers in (("no-such-attribute", google), ("agent-worker-number", {})):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                ask(servers[0], name, **headers)


@pytest.mark.parametrize("text", ["", "a: [", "kind: Pod", "spec: {replicatedJobs: [{}, {}]}"])
def test_a_file_that_is_no_jobset_is_named(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match="x.yaml: not a JobSet"):
        rehearsal.read_jobset(str(tmp_path / "x.yaml"))


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["failurePolicy"].update(maxRestarts="4"),
        lambda spec: spec["failurePolicy"].update(maxRestarts=-1),
        lambda spec: spec["failurePolicy"].update(rules=[{}]),
        lambda spec: spec["replicatedJobs"][0].update(replicas=0),
        lambda spec: spec["replicatedJobs"][0]["template"]["spec"].update(completions=2.5),
        lambda spec: container(spec)["command"].append(7),
        lambda spec: container(spec)["env"].append({"name": "A", "value": 7}),
    ],
)
def test_a_jobset_with_a_value_of_another_kind_is_named(tmp_path, change):
    manifest = yaml.safe_load(launch("gke", *FLAGS, "--dry_run").stdout)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(manifest))
    assert rehearsal.read_jobset(str(tmp_path / "x.yaml")).hosts == 2
    change(manifest["spec"])
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(InputError, match="x.yaml: not a JobSet"):
        rehearsal.read_jobset(str(tmp_path / "x.yaml"))


def container(spec):
    return spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]


def test_a_jobset_that_is_not_there_is_one_line_and_status_2(tmp_path):
    run = local(f"--jobset={tmp_path / 'none.yaml'}")
    assert run.communicate()[1] == f"local.py: error: {tmp_path / 'none.yaml'}: No such file or directory\n"
    assert run.returncode == 2


@pytest.mark.parametrize(("body", "status", "lives"), [("exit 2", 2, 1), ("[[ $lives -gt 2 ]] || exit 75", 0, 3)])
def test_the_policy_of_a_jobset_decides_what_becomes_of_a_run(tmp_path, body, status, lives):
    rendered = launch("gke", *FLAGS, "--topology=v5e:2x2", "--image=i", "--workdir=w")
    manifest = yaml.safe_load(rendered.stdout)
    counted = f"echo life >> {tmp_path / 'lives'}; lives=$(grep -c life {tmp_path / 'lives'}); {body}"
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["containers"][0]["command"] = ["bash", "-c", counted.replace("$(", "$$(")]
    (tmp_path / "jobset.yaml").write_text(yaml.safe_dump(manifest))
    with local(f"--jobset={tmp_path / 'jobset.yaml'}") as run:
        log = run.communicate(timeout=limits.SECONDS)[1]
    assert run.returncode == status, log
    assert (tmp_path / "lives").read_text().count("life") == lives
