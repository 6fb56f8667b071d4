"""Which records of a run fit into its model; those that do not are counted, or stop the run."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from spct_jax.config import BASELINES
from spct_jax.data import fields, index
from spct_jax.data.batches import Example
from spct_jax.data.comparison import Comparison
from spct_jax.data.config import SPLITS, DataConfig
from spct_jax.data.index import Records
from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.reward_models import bradley_terry
from spct_jax.reward_models.cloud import responses_apart
from spct_jax.runtime import distributed
from spct_jax.training.context import Run
from spct_jax.training.mixture import Pool

VERDICTS_READ = 256
"""How many demonstrations are looked at, from all over the file."""
TOO_LONG = {-1: "prompt", -2: "response"}
"""What of a comparison does not fit, by the code that a survey keeps in place of its number of responses."""


def _prompted(run: Run) -> dict[str, bool]:
    """Which prompts a comparison of several responses has in addition to the plain one: hinted ones, those of the meta RM."""
    hinted = run.config.rejection.hinted and "rejection" in run.config.stages
    return {"hinted": hinted, "meta": "meta_rm" in run.config.stages}


def _is_judged(run: Run) -> bool:
    """Whether a policy judges comparisons; scalar models of responses do without its prompts."""
    return not {"btrm", "pairrm", "evaluate"}.issuperset(run.config.stages)


def measure_comparison(run: Run, comparison: Comparison) -> int:
    """The number of responses if all that the stages read of the comparison is within the limits, else a code of `TOO_LONG`.

    A prompt must fit in whatever order it shows the responses. Only scalar reward models read responses on their own.
    """
    data, prompted, stages = run.config.data, _prompted(run), run.config.stages
    prompted["hinted"] &= comparison.n > 1
    if _is_judged(run) and not run.prompter.fits(comparison, **prompted, limit=data.max_prompt):
        return -1
    if "cloud" in stages:
        prompts = [run.prompter.encode(single, (0,)) for single in responses_apart(comparison)]
        if max(map(len, prompts)) > data.max_prompt:
            return -1
    if "btrm" in stages or "pairrm" in stages:
        prompt, responses = bradley_terry.encode(run.prompter.tokenizer, comparison)
        if len(prompt) > data.max_prompt:
            return -1
        if max(map(len, responses)) > data.max_completion:
            return -2
    return comparison.n


def survey(run: Run, name: str, measure: Callable[[Any], int]) -> Int[np.ndarray, " N"]:
    """`measure` of each record of `dataset.<name>`, kept on disk; may depend only on the record, its prompts and the limits."""
    data = run.config.data
    baselines = [stage for stage in run.config.stages if stage in BASELINES]
    asked = f"{_prompted(run)} {baselines}" if baselines else _prompted(run)
    asked = asked if _is_judged(run) else f"{asked} without a policy"
    stamp = f"{run.prompter.digest} {data.max_prompt} {data.max_completion} {asked} over all orders"
    return index.survey(getattr(run.dataset, name), measure, run.workdir / "data" / f"{name}.survey", stamp)


def drop_misfits(run: Run) -> Run:
    """The run without comparisons that are too long, which are counted in `dataset.reports`.

    Raises:
      InputError: there is one and `data.on_bad` is `fatal`, or no comparison of a split is left.
    """
    data, kept = run.config.data, {}
    reports = dict(run.dataset.reports)
    for split in SPLITS:
        comparisons, name = getattr(run.dataset, split), fields.report_name(data, split)
        responses = survey(run, split, functools.partial(measure_comparison, run))
        fitting = responses > 0
        kept[split] = comparisons[np.flatnonzero(fitting)]
        if split == "train":
            kept["responses"] = responses[fitting]
        if fitting.all():
            continue
        if data.on_bad == "fatal" or not fitting.any():
            first = int(np.argmin(fitting))
            what = f"{TOO_LONG[int(responses[first])]} of {comparisons[first].id!r}"
            none = "" if data.on_bad == "fatal" else f"config.data.{split}: none of {len(comparisons):,} comparisons fits; "
            raise InputError(f"{none}{comparisons.where(first) or name}: {_too_long(what, data)}")
        reports[name] = dataclasses.replace(reports[name], used=len(kept[split]), skipped=dict(reports[name].skipped))
        for code, what in TOO_LONG.items():
            if count := int((responses == code).sum()):
                reports[name].skipped[f"{what} too long"] = count
    _drop_other_sizes(run, kept, reports)
    return dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, **kept, reports=reports))


def _too_long(what: str, data: DataConfig) -> str:
    """That a prompt, or else a response or completion, is longer than its limit."""
    limit = "max_prompt" if what.startswith("prompt") else "max_completion"
    return f"{what} is longer than data.{limit} ({getattr(data, limit)} tokens)"


def _drop_other_sizes(run: Run, kept: dict[str, Any], reports: dict[str, ReadReport]) -> None:
    """Takes the training comparisons whose number of responses `data.responses` excludes out of what is kept."""
    data, responses = run.config.data, kept["responses"]
    wanted = (responses >= data.responses[0]) & (responses <= data.responses[1])
    if wanted.all():
        return
    if not wanted.any():
        raise InputError(
            f"config.data.responses: no training comparison has {data.responses[0]} to {data.responses[1]} responses"
        )
    kept |= {"train": kept["train"][np.flatnonzero(wanted)], "responses": responses[wanted]}
    name = fields.report_name(data, "train")
    report = reports[name]
    skipped = {**report.skipped, "fewer or more responses than data.responses": int((~wanted).sum())}
    reports[name] = dataclasses.replace(report, used=int(wanted.sum()), skipped=skipped)


def demonstrations(run: Run, name: str) -> tuple[Pool, dict[str, int]]:
    """The demonstrations of `dataset.<name>` that fit, and how many do not fit, by reason.

    Raises:
      InputError: a row of a file does not fit and `data.on_bad` is `fatal`, or none of them does.
    """
    data, tokenizer, shown = run.config.data, run.prompter.tokenizer, getattr(run.dataset, name)
    reasons = {"prompt too long": 0, "completion too long": -1}

    def tokens(demonstration):
        return tokenizer.encode_turns(demonstration.turns), [*map(tokenizer.encode_completion, demonstration.completions)]

    def measure(demonstration):
        # What is too long by its characters alone is not tokenised.
        if tokenizer.min_tokens(sum(len(turn.content.strip()) for turn in demonstration.turns)) > data.max_prompt:
            return reasons["prompt too long"]
        if tokenizer.min_tokens(max(map(len, demonstration.completions))) > data.max_completion:
            return reasons["completion too long"]
        if tokenizer.count_turns(demonstration.turns) > data.max_prompt:
            return reasons["prompt too long"]
        fits = all(tokenizer.count_completion(text) <= data.max_completion for text in demonstration.completions)
        return len(demonstration.completions) if fits else reasons["completion too long"]

    sizes = survey(run, name, measure)
    misfits = np.flatnonzero(sizes <= 0)
    if data.on_bad == "fatal" and len(misfits) and (where := shown.where(first := int(misfits[0]))):
        what = next(reason for reason, code in reasons.items() if code == sizes[first]).removesuffix(" too long")
        raise InputError(f"{where}: {_too_long(what, data)}")
    examples = Records(lambda i: Example(f"{name} {i}", int(sizes[i]), lambda: tokens(shown[i])), np.flatnonzero(sizes > 0))
    skipped = {reason: int((sizes == code).sum()) for reason, code in reasons.items() if (sizes == code).any()}
    if len(sizes) and len(misfits) == len(sizes):
        raise InputError(f"config.data.{name}: none of its demonstrations fits {skipped}")
    return Pool(examples, sizes[sizes > 0], shown[np.flatnonzero(sizes > 0)].shares), skipped


def check_verdicts(run: Run) -> None:
    """Looks at how demonstrations end; says so if some of them are no verdicts.

    Raises:
      InputError: none is one, so that nothing could be read of what the policy learns to write.
    """
    shown, read = run.dataset.demonstrations, run.prompter.is_verdict
    looked = np.unique(np.linspace(0, len(shown) - 1, min(VERDICTS_READ, len(shown))).astype(int))
    other = [int(i) for i in looked if not all(map(read, shown[i].completions))]
    if not other:
        return
    template, where = run.prompter.template, shown.where(other[0]) or "config.data.demonstrations"
    box = (
        r"\boxed{N} that names a response"
        if run.prompter.chooses
        else rf"\boxed{{..}} of scores from {template.low} to {template.high}"
    )
    after = f" after {template.parts[-1]}:" if template.parts else ""
    said = f"{where}: a completion does not end as the template {run.config.prompt.template} asks, in a {box}{after}"
    if len(other) == len(looked):
        raise InputError(f"{said}; nor does any other of the {len(looked)} demonstrations looked at")
    distributed.say(f"{said}; nor do {len(other) - 1} others of the {len(looked)} demonstrations looked at")
