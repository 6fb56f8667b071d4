import json

import pytest
import strict_crd
import yaml
from launchers import launch, stand_in

FOUR = ("--config=experiments/gemma2_27b.py", "--topology=v5p:4x4x4", "--image=registry/spct:1", "--bucket=gs://ours")
KUBECTL = """import json, pathlib, sys
pathlib.Path({seen!r}).write_text(json.dumps([sys.argv[1:], sys.stdin.read()]))
sys.exit({status})
"""


def test_what_is_printed_is_what_is_applied(tmp_path):
    changed = ("--config.sft.accumulate=4", '--config.stages=("sft",)', "--slices=2", "--env=A=b c")
    printed = launch("gke", *FOUR, *changed, "--dry_run")
    assert printed.returncode == 0, printed.stderr
    manifest = yaml.safe_load(printed.stdout)
    strict_crd.validator().validate(manifest)
    container = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert manifest["metadata"]["name"] == "gemma2-27b-train"
    assert container["command"] == [
        "bash",
        "launch/entrypoint.sh",
        "train",
        "--workdir=gs://ours/gemma2-27b-train",
        "--config=experiments/gemma2_27b.py",
        "--config.sft.accumulate=4",
        '--config.stages=("sft",)',
        "--config.mesh.strategy=multislice",
        "--config.mesh.slices=2",
        "--profile_port=9012",
    ]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["A"] == "b c" and environment["JAX_COMPILATION_CACHE_DIR"] == "gs://ours/compiled"
    assert "data_parallel" in environment["LIBTPU_INIT_ARGS"]

    stand_in(tmp_path / "bin", "kubectl", KUBECTL.format(seen=str(tmp_path / "seen"), status=0))
    applied = launch("gke", *FOUR, *changed, "--apply", path=tmp_path / "bin")
    assert applied.returncode == 0, applied.stderr
    assert json.loads((tmp_path / "seen").read_text()) == [["create", "--filename=-"], printed.stdout]


def test_a_dry_run_needs_no_more_than_experiment_and_topology():
    printed = launch("gke", *FOUR[:2], "--dry_run")
    pod = yaml.safe_load(printed.stdout)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "IMAGE" and "--workdir=gs://BUCKET/gemma2-27b-train" in container["command"]
    applied = launch("gke", *FOUR[:2], FOUR[3], "--apply")
    assert applied.returncode == 2 and applied.stderr.startswith("error: --image: give the image")


def test_a_field_reaches_the_hosts_however_its_flag_is_written():
    usual = ["--topology=v5e:2x4", "--config=experiments/tiny.py", "--config.rl.steps=3", "--config.seed=7"]
    unusual = ["--topology", "v5e:2x4", "-config=experiments/tiny.py", "--config.rl.steps", "3", "-config.seed", "7"]
    one, other = (launch("gke", *flags, "--noconfig.rejection.hinted", "--dry_run") for flags in (usual, unusual))
    assert one.returncode == 0 and one.stdout == other.stdout


def test_a_cluster_that_refuses_is_one_line_and_exit_2(tmp_path):
    stand_in(tmp_path / "bin", "kubectl", KUBECTL.format(seen=str(tmp_path / "seen"), status=1))
    done = launch("gke", *FOUR, "--apply", path=tmp_path / "bin")
    assert done.returncode == 2 and done.stderr == "error: kubectl refused it (see above)\n"


def test_the_judge_gets_what_stands_behind_the_dashes():
    flags = ("--program=judge", "--topology=v5e:2x4", "--image=i")
    given = ["--checkpoint=gs://ours/m", "--input=gs://ours/a b.jsonl", "--output=gs://ours/v.jsonl", "--k=8"]
    done = launch("gke", *flags, "--", *given)
    assert done.returncode == 0, done.stderr
    manifest = yaml.safe_load(done.stdout)
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert manifest["metadata"]["name"] == "v-judge" and pod["containers"][0]["command"][2:] == ["judge", *given]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config.rl.stepz=5"], "did you mean --config.rl.steps?"),
        (["--", "--config.rl.steps=5"], "--config.rl.steps=5: fields of the experiment stand before --"),
        (["--", "--num_process=5"], "--program=train: Unknown command line flag 'num_process'"),
        (["--topology=v5p-128"], "did you mean v5p:4x4x4?"),
        (["--config=/etc/hostname"], "/etc/hostname"),
        (["--config.rl.reward=nosuch.py:graded"], "--config.rl.reward: nosuch.py names no file from the repository"),
        (["--config.rl.reward=graded"], "--config.rl.reward=graded: expected FILE.py:FUNCTION"),
        (
            ["--config.prompt.template=/etc/hostname"],
            "--config.prompt.template: /etc/hostname names no file from the",
        ),
        (["--slices=2", "--config.mesh.slices=4", "--config.mesh.strategy=multislice"], "laid out for config.mesh.slices=4"),
        (["--bucket=ours"], "--bucket=ours: expected gs://BUCKET"),
        (["--bucket=gs:///ours"], "--bucket=gs:///ours: not the name of anything in a bucket"),
        (["--workdir=gs://ours/../theirs"], "--workdir=gs://ours/../theirs: not the name of anything in a bucket"),
        (["--workdir=/ours/x", "--apply"], "--workdir=/ours/x: would be on the disks of the pods"),
        (["--workdir=s3://ours/x"], "--workdir=s3://ours/x: a URL, but only local paths"),
        (["--image=registry/spct 1"], "--image=registry/spct 1: not the name of an image"),
        ([f"--max_restarts={1 << 31}"], "--max_restarts=2147483648"),
    ],
)
def test_a_mistake_is_found_before_anything_waits_for_chips(flags, says):
    done = launch("gke", *FOUR, *flags)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("error: ")
    assert says in done.stderr and done.stderr.count("\n") == 1
