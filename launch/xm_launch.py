r"""An XManager experiment: training, once or as a sweep, on TPU slices of a GKE cluster.

    xmanager launch launch/xm_launch.py -- --xp_config=experiments/gemma2_2b.py --topology=v5e:4x4 --bucket=gs://BUCKET \
      --image=REGISTRY/NAME:TAG --sweep=rl.kl_beta=0.01,0.08 --sweep=seed=0,1

Packages this repository as launch/Dockerfile says, pushes it as --image, and adds a work unit for every experiment of
--xp_config and every combination of swept fields; each is submitted as the JobSet that launch/gke.py would print. --dry_run
prints them. --local runs them here instead, on the CPU, without a container. See docs/launch.md.
"""

import dataclasses
import itertools
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags

try:
    import attr
    from xmanager import xm, xm_local
    from xmanager.xm import utils
    from xmanager.xm_local import registry
except ModuleNotFoundError as error:
    print(f"error: needs XManager (pip install 'spct_jax[launch]'): {error}", file=sys.stderr)
    sys.exit(2)

from spct_jax import cli
from spct_jax.errors import InputError
from spct_jax.launching import jobset, kubectl
from spct_jax.launching import run as run_lib
from spct_jax.launching.cluster import Cluster, ClusterFlags
from spct_jax.launching.flags import RunFlags
from spct_jax.launching.run import Run

RUN = RunFlags(flags.FLAGS)
CLUSTER = ClusterFlags(flags.FLAGS)
CONFIGS = flags.DEFINE_list("xp_config", ["experiments/tiny.py"], "Experiments: FILE.py[:ARGUMENT], with commas between.")
OVERRIDES = flags.DEFINE_multi_string("override", [], "FIELD=VALUE of all experiments, such as rl.steps=80.")
SWEEP = flags.DEFINE_multi_string("sweep", [], "FIELD=VALUE,VALUE..: a work unit each; of several --sweep, each combination.")
LOCAL = flags.DEFINE_bool("local", False, "Run here, on the CPU, without a container.")


@attr.s(auto_attribs=True)
class JobSetExecutor(xm.Executor):
    """Slices of a GKE cluster, had as a JobSet."""

    run: Run
    """Its arguments are those of the job."""
    cluster: Cluster

    Spec = xm_local.KubernetesSpec

    @classmethod
    async def launch(cls, local_experiment_unit: xm.ExperimentUnit, job_group: xm.JobGroup) -> list:
        """Submits every job of a group; the cluster looks after them, so there is nothing to wait for here."""
        for job in xm.job_operators.flatten_jobs(job_group):
            kubectl.create(manifest_of(job))
        return []


registry.register(JobSetExecutor, launch=JobSetExecutor.launch)


def manifest_of(job: xm.Job) -> dict[str, Any]:
    """The JobSet of a job whose image is packaged."""
    arguments = xm.merge_args(job.executable.args, job.args).to_list(utils.ARGV_ESCAPER)
    more = tuple((job.executable.env_vars | job.env_vars).items())
    run = job.executor.run
    run = dataclasses.replace(run, arguments=tuple(arguments), variables=run.variables + more)
    return jobset.render(run, dataclasses.replace(job.executor.cluster, image=job.executable.image_path))


def swept(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of `FIELD=VALUE,VALUE..`, as `--config.FIELD=VALUE` each; commas inside brackets separate nothing.

    Raises:
      InputError: a text has another form.
    """
    choices = []
    for text in texts:
        field, equals, values = text.partition("=")
        found = [value.strip() for value in re.split(r",(?![^(\[]*[)\]])", values)]
        if not equals or not field or not all(found):
            raise InputError(f"--sweep={text}: expected FIELD=VALUE,VALUE..")
        choices.append([f"--config.{field.removeprefix('config.')}={value}" for value in found])
    return list(itertools.product(*choices))


def runs() -> list[Run]:
    """What the flags ask for: each experiment with each combination; all are read and checked before any is launched."""
    fixed = []
    for text in OVERRIDES.value:
        if "=" not in text:
            raise InputError(f"--override={text}: expected FIELD=VALUE")
        fixed.append(f"--config.{text.removeprefix('config.')}")
    points = [[f"--config={path}", *fixed, *chosen] for path in CONFIGS.value for chosen in swept(SWEEP.value)]
    if not points:
        raise InputError("--xp_config: no experiment")
    several = len(points) > 1
    return [RUN.run(cli.read_config(argv), argv, (), f"-{number}" * several) for number, argv in enumerate(points, start=1)]


def add(experiment: xm.Experiment, wanted: Sequence[Run], cluster: Cluster) -> None:
    """Packages the repository once and adds a work unit for every run."""
    if LOCAL.value:
        path = str(run_lib.ROOT / run_lib.ENTRYPOINT)
        packageable = xm.Packageable(xm.Binary(path), xm_local.Local.Spec(), env_vars={"JAX_PLATFORMS": "cpu"})
    else:
        file = xm.Dockerfile(str(run_lib.ROOT), str(run_lib.ROOT / "launch" / "Dockerfile"))
        packageable = xm.Packageable(file, JobSetExecutor.Spec(push_image_tag=cluster.image))
    [executable] = experiment.package([packageable])
    for run in wanted:
        if LOCAL.value:
            job = xm.Job(executable, xm_local.Local(), run.name, args=[run.program, *run.arguments])
        else:
            job = xm.Job(executable, JobSetExecutor(run, cluster), run.name, args=list(run.arguments))
        experiment.add(job)


def launch() -> None:
    """Launches what the flags ask for, or prints it."""
    wanted = runs()
    cluster = CLUSTER.cluster(RUN) if not LOCAL.value else None
    if RUN.dry_run and not LOCAL.value:
        print("---\n".join(kubectl.to_yaml(jobset.render(run, cluster)) for run in wanted), end="")
        return
    for run in wanted if not LOCAL.value else ():
        jobset.check_kept(run)
    with xm_local.create_experiment(experiment_title=run_lib.default_name("sweep", CONFIGS.value[0])) as experiment:
        add(experiment, wanted, cluster)


def main(_) -> None:
    """Entry of `xmanager launch`."""
    os.chdir(run_lib.ROOT)
    try:
        launch()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
