"""A run from its configuration to its report: every stage in order, each resumable."""

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from spct_jax import checkpoints
from spct_jax.config import BASELINES, Config, check_positions, validate
from spct_jax.errors import InputError
from spct_jax.evaluation import evaluate
from spct_jax.grm import rewards
from spct_jax.grm.prompts import Prompter
from spct_jax.reporting import report
from spct_jax.runtime import distributed, memory
from spct_jax.sharding import bytes_per_device
from spct_jax.storage import files, locks, paths
from spct_jax.storage.paths import Path
from spct_jax.training import btrm, cloud, meta, pairrm, preference, provenance, rejection, rl, sft
from spct_jax.training.context import Run, make_layouts
from spct_jax.training.data import load_dataset, load_tokenizer, name_templates
from spct_jax.training.fitting import check_verdicts, demonstrations, drop_misfits
from spct_jax.training.parameters import LostStepsError, architecture

STAGES: dict[str, Callable[[Run], dict]] = {
    "sft": sft.run_sft,
    "rejection": rejection.run_rejection,
    "rft": sft.run_rft,
    "rl": rl.run_rl,
    "meta_rm": meta.run_meta_rm,
    "btrm": btrm.run_btrm,
    "pairrm": pairrm.run_pairrm,
    "cloud": cloud.run_cloud,
    "evaluate": evaluate.run_evaluation,
}


SMALL_MODEL = 2**26
"""Bytes of a model's parameters up to which holes in the memory of the host do no harm, see `memory.keep_large`."""


def prepare(config: Config, workdir: Path) -> Run:
    """Reads the data, trains or loads the tokenizer, and fixes the model's size.

    Raises:
      InputError: the configuration or a file is wrong, or `workdir` holds a run of another configuration.
    """
    validate(config)
    config, workdir = provenance.absolute(config), paths.absolute(workdir)
    check_positions(config, checkpoints.read_architecture(config.init_checkpoint) if config.init_checkpoint else config.model)
    layout, rollout_layout = make_layouts(config)
    config = name_templates(config)
    files.make_directory(workdir / "data")
    values = _claim(workdir, config)
    dataset = load_dataset(config, workdir / "data")
    tokenizer = load_tokenizer(config, dataset, workdir / "tokenizer.model")
    run = Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        prompter=Prompter(config.prompt, tokenizer),
        model=architecture(config, tokenizer),
        layout=layout,
        rollout_layout=rollout_layout,
        reward=rewards.load(config.rl.reward),
    )
    params = checkpoints.abstract_params(run.model, checkpoints.ModelKind.POLICY)
    if layout.platform == "cpu" and bytes_per_device(params, layout.params(params)) <= SMALL_MODEL:
        memory.keep_large()
    run = drop_misfits(run)
    provenance.check(config, workdir, values | provenance.fitting(run.dataset.train))
    files.write_json(workdir / "data.json", {name: dataclasses.asdict(r) for name, r in run.dataset.reports.items()})
    return run


def train(config: Config, workdir: Path) -> dict:
    """Runs every configured stage that has not finished yet and writes the report; returns it.

    Raises:
      InputError: as of `prepare`, or another run is under way in `workdir`, or what a stage needs is missing.
    """
    validate(config)  # before there is a directory
    rewards.load(config.rl.reward)
    workdir = paths.absolute(workdir)
    with locks.locked_directory(workdir):
        run = prepare(config, workdir)
        check(run)
        values = provenance.values(run.config, workdir) | provenance.fitting(run.dataset.train)
        for stage in run.config.stages:
            if not distributed.agree((workdir / stage / "summary.json").exists()):
                provenance.begin(stage, run.config, workdir, values)
                _finish(run, stage)
        return report.write_report(workdir) if distributed.is_first() else {}


def _finish(run: Run, stage: str) -> None:
    """Runs a stage to its end, and before it the last steps of an earlier one whose parameters are found damaged."""
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
    memory.end_stage()
    # Training stages have this share of their updates, others of their sampler.
    computed = {"padded_over_real": 1 / (1 - summary["padding"])} if summary.get("padding", 1) < 1 else {}
    summary = {**summary, **computed, "peak_memory_gib": round(memory.peak_gib(), 3)}
    files.write_json(run.workdir / stage / "summary.json", summary)
    distributed.barrier(f"end of {stage}")


def _claim(workdir: Path, config: Config) -> dict[str, Any]:
    """Keeps the configuration, once no stage that has begun has read another; returns its `provenance.values`.

    Raises:
      InputError: one has; it names the field.
    """
    values = provenance.values(config, workdir)
    provenance.check(config, workdir, values)
    path = workdir / "config.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    found = files.read_json(path) if distributed.agree(path.exists()) else {}
    if wanted != found:
        files.write_json(path, wanted)
    if not provenance.begun(workdir) and distributed.is_first():
        (workdir / "data" / "init_checkpoint.json").unlink(missing_ok=True)
        (workdir / "tokenizer.model").unlink(missing_ok=True)  # it may be of other demonstrations
    return values


def check(run: Run) -> None:
    """Raises InputError naming the field where a stage would find nothing to work on, or settings that do not go together."""
    stages, data = run.config.stages, run.config.data
    toy = "" if data.train else "toy."
    if "sft" in stages:
        if not any([demonstrations(run, name)[0].count for name in ("demonstrations", "general")]):
            raise InputError(f"config.data.{toy}demonstrations: sft needs demonstrations, and there are none")
    elif "rft" in stages:
        demonstrations(run, "general")
    for stage in ("rejection", "rft", "rl", "meta_rm", *BASELINES):
        if stage in stages and not len(run.dataset.train):
            raise InputError(f"config.data.{toy}train: {stage} needs comparisons, and there are none")
        if stage in stages and stage in BASELINES:
            preference.compared(run, stage)
    single = run.prompter.single
    if {"rejection", "rl"} & set(stages) and (run.dataset.responses == 1).any() and not single.low <= 0 < 1 <= single.high:
        raise InputError(
            f"config.prompt.single_template: {single.name} has scores from {single.low} to {single.high}, but of a single "
            "response the right ones are 0 and 1"
        )
    if "evaluate" in stages:
        evaluate.check(run)
    if "sft" in stages and {"rejection", "rl"} & set(stages):
        check_verdicts(run)
