"""What every stage needs of the data, looked for before the first step of the first one."""

from spct_jax.errors import InputError
from spct_jax.evaluation import accuracy
from spct_jax.training import sft
from spct_jax.training.run import Run


def check(run: Run) -> None:
    """Raises InputError naming the field where a stage would find nothing to work on, or settings that do not go together."""
    stages, data = run.config.stages, run.config.data
    toy = "" if data.train else "toy."
    if "sft" in stages:
        parts, skipped = sft.demonstrations(run, "demonstrations", "general")
        if not any(len(examples) for examples, _ in parts):
            reason = f"none fits: {skipped}" if skipped else "there are none"
            raise InputError(f"config.data.{toy}demonstrations: sft needs demonstrations ({reason})")
    for stage in ("rejection", "rft", "rl", "meta_rm"):
        if stage in stages and not len(run.dataset.train):
            raise InputError(f"config.data.{toy}train: {stage} needs comparisons, and there are none")
    if "evaluate" in stages:
        split = run.config.evaluation.split
        if not len(getattr(run.dataset, split)):
            raise InputError(
                f"config.data.{toy}{split}: evaluate needs comparisons of config.evaluation.split={split!r}, and there are none"
            )
        for name, _, k, temperature in accuracy.passes(run):
            try:
                accuracy.options_of(run, k, temperature, guided=k > 1 and "meta_rm" in stages)
            except InputError as error:
                raise InputError(f"config.evaluation: {error} ({name})") from None
