import copy
import csv
import pathlib
import re

import pytest
import strict_crd
import yaml

from spct_jax.errors import InputError
from spct_jax.launching import jobset, rehearsal
from spct_jax.launching.cluster import Cluster
from spct_jax.launching.run import Run
from spct_jax.runtime import slices

TABLE = pathlib.Path(__file__).parents[1] / "fixtures" / "launch" / "tpu_topologies.csv"
OURS = {"v5litepod": "v5e", "tpu7": "tpu7x"}


def a_run(topology="v5e:4x4", count=1, program="train", arguments=("--workdir=gs://b/r",), **more):
    return Run("r", program, arguments, slices.parse(topology), count, **more)


def pod_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def crd():
    return strict_crd.validator()


def test_every_topology_renders_a_jobset_that_the_api_knows_for_one_and_two_slices(crd):
    topologies = {(OURS.get(row["chip"], row["chip"]), row["topology"]) for row in csv.DictReader(TABLE.open())}
    assert len(topologies) > 1600
    for chip, topology in sorted(topologies):
        for count in (1, 2):
            manifest = jobset.render(a_run(f"{chip}:{topology}", count), Cluster("image"))
            crd.validate(manifest)
            job = manifest["spec"]["replicatedJobs"][0]
            hosts = slices.parse(f"{chip}:{topology}").hosts
            assert (job["replicas"], job["template"]["spec"]["completions"]) == (count, hosts)


EVERYTHING = Cluster(
    "registry/image:1",
    namespace="team",
    spot=True,
    queue="tpus",
    priority="high",
    service_account="trainer",
    placement_policy="cubes",
    max_restarts=3,
)


@pytest.mark.parametrize("program", ["train", "judge", "evaluate"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("cluster", [Cluster("image", reservation="ours"), EVERYTHING], ids=["reserved", "spot"])
def test_every_program_with_every_option_is_known_to_the_api_and_survives_yaml(crd, program, count, cluster):
    run = a_run("v5p:2x2x4", count, program, ("--x=a 'b' \"c\"", "--y=: {}", "--z=3"), variables=(("XLA_FLAGS", "--a=1 --b"),))
    manifest = jobset.render(run, cluster)
    crd.validate(manifest)
    text = yaml.safe_dump(manifest)
    assert yaml.safe_load(text) == manifest and "&id" not in text
    container = pod_of(manifest)["containers"][0]
    assert container["command"] == ["bash", "launch/entrypoint.sh", program, *run.arguments]
    assert {one["name"]: one["value"] for one in container["env"]} == run.environment


def test_the_strict_schema_finds_fields_that_the_api_does_not_know(crd):
    manifest = jobset.render(a_run(), Cluster("image"))
    for spoil in (
        lambda m: m["spec"].update(maxRestarts=1),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].update(action="Restart"),
        lambda m: pod_of(m).update(tolerationz=[]),
        lambda m: pod_of(m)["containers"][0].update(env=[{"name": "A", "values": "b"}]),
        lambda m: m["spec"]["replicatedJobs"][0].pop("name"),
        lambda m: m["metadata"].update(name="a_b"),
    ):
        spoiled = copy.deepcopy(manifest)
        spoil(spoiled)
        assert list(crd.iter_errors(spoiled))


def test_spot_machines_queue_and_account_are_asked_for():
    manifest = jobset.render(a_run("tpu7x:2x2x2", 2), EVERYTHING)
    pod = pod_of(manifest)
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "tpus", "kueue.x-k8s.io/priority-class": "high"}
    assert manifest["metadata"]["annotations"] == {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu7x",
        "cloud.google.com/gke-tpu-topology": "2x2x2",
        "cloud.google.com/gke-spot": "true",
        "cloud.google.com/placement-policy-name": "cubes",
    }
    assert {"key": "cloud.google.com/gke-spot", "operator": "Exists"} in pod["tolerations"]
    assert pod["serviceAccountName"] == "trainer" and pod["terminationGracePeriodSeconds"] == 25
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    usual = pod_of(jobset.render(a_run(), Cluster("image")))
    assert usual["terminationGracePeriodSeconds"] == 600 and "serviceAccountName" not in usual
    assert set(usual["nodeSelector"]) == {"cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology"}


def test_wrong_input_ends_the_run_and_being_told_to_stop_does_not_count():
    manifest = jobset.render(a_run(), Cluster("image", max_restarts=4))
    assert rehearsal.action(manifest, 2) == "FailJobSet"
    assert rehearsal.action(manifest, 75) == "RestartJobSetAndIgnoreMaxRestarts"
    assert rehearsal.action(manifest, 137, "DisruptionTarget") == "RestartJobSetAndIgnoreMaxRestarts"
    assert rehearsal.action(manifest, 2, "DisruptionTarget") == "FailJobSet"
    assert {rehearsal.action(manifest, status) for status in (1, 22, 134, 137, 175)} == {"RestartJobSet"}
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 4 and policy["restartStrategy"] == "BlockingRecreate"
    # What the API server demands of rules' names.
    assert all(re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"]) for rule in policy["rules"])
    assert manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["backoffLimit"] == 0


def test_what_kubernetes_would_read_as_a_variable_is_kept_from_it():
    run = a_run(arguments=("--a=$(HOME)", "--b=$$", "--c=$1"), variables=(("V", "$(X)"),))
    container = pod_of(jobset.render(run, Cluster("image")))["containers"][0]
    assert container["command"][3:] == ["--a=$$(HOME)", "--b=$$$$", "--c=$1"]
    assert {"name": "V", "value": "$$(X)"} in container["env"]


def test_names_of_pods_stay_within_what_a_name_may_be():
    long = "a" * 46
    jobset.render(Run(long, "train", (), slices.parse("v5e:4x4")), Cluster("image"))
    assert len(f"{long}-slice-0-3-abcde") <= 63
    with pytest.raises(InputError, match="--name=aaa"):
        jobset.render(Run(long + "aa", "train", (), slices.parse("v5p:4x4x4"), 2), Cluster("image"))
    with pytest.raises(InputError, match="--name=My_Run"):
        jobset.render(Run("My_Run", "train", (), slices.parse("v5e:4x4")), Cluster("image"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": ""}, "--image"),
        ({"spot": True, "reservation": "r"}, "--spot and --reservation"),
        ({"priority": "high"}, "--priority needs --queue"),
        ({"queue": "My Queue"}, "--queue=My Queue"),
    ],
)
def test_options_that_cannot_be_are_named(options, says):
    with pytest.raises(InputError, match=says):
        Cluster(**{"image": "i"} | options)
