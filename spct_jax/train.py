"""Trains a generative reward model from nothing to a report: `python -m spct_jax.train --workdir=DIR [--config=FILE.py]`."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable

from absl import flags

from spct_jax import cli, distributed, files, sharding
from spct_jax.config import Config
from spct_jax.errors import InputError
from spct_jax.evaluation import accuracy, report
from spct_jax.models import checkpoints
from spct_jax.sampling.rollouts import Prompter
from spct_jax.training import grpo, inputs, meta_rm, rejection, sft
from spct_jax.training.run import LostStepsError, Run, architecture, drop_misfits, load_dataset, load_tokenizer, name_templates
from spct_jax.validation import check_positions, validate

STAGES: dict[str, Callable[[Run], dict]] = {
    "sft": sft.run_sft,
    "rejection": rejection.run_rejection,
    "rft": sft.run_rft,
    "rl": grpo.run_rl,
    "meta_rm": meta_rm.run_meta_rm,
    "evaluate": accuracy.run_evaluation,
}


def prepare(config: Config, workdir: pathlib.Path) -> Run:
    """Reads the data, trains or loads the tokenizer, and fixes the model's size.

    Raises:
      InputError: the configuration or a file is wrong, or `workdir` holds a run of another configuration.
    """
    validate(config)
    config, workdir = inputs.absolute(config), workdir.absolute()
    check_positions(config, checkpoints.read_architecture(config.init_checkpoint) if config.init_checkpoint else config.model)
    layout = sharding.make_layout(config.mesh)
    sharding.check_batches(config, layout)
    workdir.mkdir(parents=True, exist_ok=True)
    _claim(workdir, config)
    config = name_templates(config)
    (workdir / "data").mkdir(exist_ok=True)
    dataset = load_dataset(config, workdir / "data")
    tokenizer = load_tokenizer(config, dataset, workdir / "tokenizer.model")
    run = Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        prompter=Prompter(config.prompt, tokenizer),
        model=architecture(config, tokenizer),
        layout=layout,
        rollout_layout=sharding.rollout_layout(layout, config.mesh),
    )
    run = drop_misfits(run)
    files.write_json(workdir / "data.json", {name: dataclasses.asdict(r) for name, r in run.dataset.reports.items()})
    return run


def train(config: Config, workdir: pathlib.Path) -> dict:
    """Runs every configured stage that has not finished yet and writes the report; returns it."""
    run = prepare(config, workdir)
    for stage in config.stages:
        if not distributed.agree((run.workdir / stage / "summary.json").exists()):
            _finish(run, stage)
    return report.write_report(run.workdir) if distributed.is_first() else {}


def _finish(run: Run, stage: str) -> None:
    """Runs a stage to its end, and before it the last steps of an earlier one whose parameters are found damaged."""
    (run.workdir / stage).mkdir(exist_ok=True)
    while True:
        try:
            summary = STAGES[stage](run)
        except LostStepsError as lost:
            if distributed.is_first():
                print(f"{lost}; the steps after it are trained again", file=sys.stderr)
                (run.workdir / lost.stage / "summary.json").unlink(missing_ok=True)
            _finish(run, lost.stage)
        else:
            break
    files.write_json(run.workdir / stage / "summary.json", summary)
    distributed.barrier(f"end of {stage}")


def _claim(workdir: pathlib.Path, config: Config) -> None:
    """Writes the configuration on the first start, compares it on every later one; what does not change the results may
    be another each time. Until a stage has begun all of it may, as after a slip.
    """
    path, tokenizer = workdir / "config.json", workdir / "tokenizer.model"
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    found = files.read_json(path) if distributed.agree(path.exists()) else {}
    differ = sorted((wanted.keys() | found.keys()) - {"mesh", "checkpoint", "profile_steps"})
    differ = [field for field in differ if wanted.get(field) != found.get(field)]
    if not differ:
        return
    if distributed.agree(any((workdir / stage).exists() for stage in STAGES)):
        raise InputError(f"{workdir}: holds a run with another config ({differ[0]} differs); choose another --workdir")
    files.write_json(path, wanted)
    if distributed.is_first():
        tokenizer.unlink(missing_ok=True)


def main(_) -> None:
    """Entry of `python -m spct_jax.train`."""
    config, workdir = flags.FLAGS.config, files.local_path(WORKDIR.value, "--workdir")
    validate(config)
    sharding.use_devices(config.mesh)
    distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, config.mesh.heartbeat_seconds)
    distributed.PREEMPTION.listen()
    distributed.end_together(lambda: _train_and_print(config, workdir))


def _train_and_print(config: Config, workdir: pathlib.Path) -> None:
    made = train(config, workdir)
    if not distributed.is_first():
        return
    for policy, figures in made["accuracy"].items():
        print(policy, "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    print(f"report: {workdir / 'report.md'}")


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; an interrupted run goes on in it.", required=True)
    COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of the first of several processes; a TPU pod needs none.")
    NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "How many processes there are.")
    PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Which of them this is, from 0.")
    cli.run(main, with_config=True)
