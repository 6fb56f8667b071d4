"""Rejection sampling (paper section 3.1): which of the policy's own verdicts the next fine-tuning learns from.

Every comparison is drawn on N_RFT times as it is, and once more with the best response told (hinted). A draw is kept when it
is correct (Eq. 10), but where all unhinted draws of a comparison are, it is too easy and they are dropped; a hinted draw is
dropped only when it is wrong. A hinted draw becomes a target for the prompt without the hint, so all kept draws of a comparison
share one prompt.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tqdm

from spct_jax import distributed, files
from spct_jax.data import batches
from spct_jax.data.batches import Example
from spct_jax.grm import rewards
from spct_jax.sampling import rollouts
from spct_jax.sampling.rollouts import Rollout
from spct_jax.training import drawing, meter
from spct_jax.training.run import Run


def correct(rollout: Rollout) -> list[bool]:
    """Eq. 10 for each completion of a rollout."""
    return [rewards.is_correct(s, rollout.truth) for s in rollout.scores]


def retain(unhinted: list[bool], hinted: list[bool], *, drop_too_easy: bool) -> tuple[list[int], list[int]]:
    """Indices of kept unhinted and hinted draws of one comparison, from which of them are correct."""
    too_easy = drop_too_easy and all(unhinted)
    return [i for i, right in enumerate(unhinted) if right and not too_easy], [i for i, right in enumerate(hinted) if right]


def run_rejection(run: Run) -> dict[str, float]:
    """Draws on the training comparisons with the cold-start policy, a part at a time; finished parts are not redrawn."""
    config = run.config.rejection
    directory = run.workdir / "rejection"
    directory.mkdir(exist_ok=True)
    progress = directory / "progress.json"
    earlier = files.read_json(progress) if progress.exists() else {}
    watch = meter.Stopwatch(earlier)
    params = run.to_draw_with(run.policy_before("rejection"))
    parts = list(_batches(run))
    for start, numbers in tqdm.tqdm(parts, "rejection", unit="batch", disable=not distributed.is_first()):
        for hinted in (False, True) if config.hinted else (False,):
            path = _part(run, hinted, start)
            if distributed.agree(path.exists()):
                continue
            rollouts.write(path, _draw(run, params, numbers, hinted=hinted))
            files.write_json(progress, watch.read())
        distributed.PREEMPTION.check()
    distributed.barrier("rejection")

    counts = {
        "tokens": 0,
        "draws": 0,
        "correct": 0,
        "malformed": 0,
        "truncated": 0,
        "too_easy": 0,
        "kept": 0,
        "kept_hinted": 0,
        "comparisons_kept": 0,
    }
    for _, plain, told in _drawn(run):
        unhinted = correct(plain)
        kept, kept_hinted = retain(unhinted, correct(told) if told else [], drop_too_easy=config.drop_too_easy)
        counts["tokens"] += sum(len(c) for r in (plain, told) if r for c in r.completions)
        counts["draws"] += len(unhinted)
        counts["correct"] += sum(unhinted)
        counts["malformed"] += sum(s is None for s in plain.scores)
        counts["truncated"] += sum(plain.truncated)
        counts["too_easy"] += all(unhinted)
        counts["kept"] += len(kept)
        counts["kept_hinted"] += len(kept_hinted)
        counts["comparisons_kept"] += bool(kept or kept_hinted)
    timing = watch.read()
    busy = max(timing["seconds"] - timing["compile_seconds"], 1e-9)
    return {**timing, "steps": len(parts), "tokens_per_second": counts["tokens"] / busy, **counts}


def retained_examples(run: Run) -> list[Example]:
    """RFT examples, prompts without the hint, one per comparison that keeps any of its completions."""
    examples = []
    for number, plain, told in _drawn(run):
        kept, kept_hinted = retain(
            correct(plain), correct(told) if told else [], drop_too_easy=run.config.rejection.drop_too_easy
        )
        completions = [plain.completions[i] for i in kept] + [told.completions[i] for i in kept_hinted]
        if completions:
            examples.append(run.example(number, plain, completions))
    return examples


def unhinted_draws(run: Run) -> list[tuple[int, Rollout]]:
    """(number of the comparison, its draws without a hint), correct or not: the meta RM learns from both."""
    return [(number, plain) for number, plain, _ in _drawn(run)]


def solved(run: Run) -> np.ndarray:
    """Numbers of the training comparisons whose unhinted draws are all correct, ascending."""
    return np.array(sorted(number for number, plain, _ in _drawn(run) if all(correct(plain))), np.int64)


def _batches(run: Run) -> Iterator[tuple[int, list[int]]]:
    """(how many come before, numbers) of the comparisons that are drawn on together."""
    config = run.config.rejection
    chosen = batches.sample(run.config.seed, "rejection", len(run.dataset.train), config.problems).tolist()
    for start in range(0, len(chosen), config.batch_size):
        yield start, chosen[start : start + config.batch_size]


def _drawn(run: Run) -> Iterator[tuple[int, Rollout, Rollout | None]]:
    """(number of a comparison, its unhinted rollout, its hinted one); a single response has nothing to hint at."""
    for start, numbers in _batches(run):
        told = iter(rollouts.read(_part(run, True, start)) if run.config.rejection.hinted else ())
        for number, plain in zip(numbers, rollouts.read(_part(run, False, start)), strict=True):
            # By position, since a line's number may be another line's id.
            yield number, plain, next(told, None) if run.dataset.responses[number] > 1 else None


def _draw(run: Run, params: Any, numbers: list[int], *, hinted: bool) -> list[Rollout]:
    config = run.config.rejection
    if hinted:
        numbers = [number for number in numbers if run.dataset.responses[number] > 1]
    if not numbers:
        return []
    key, samples = run.key("rejection", int(hinted)), 1 if hinted else config.samples
    limits = {"rows": config.batch_size, "temperature": config.temperature}
    return drawing.draw(run, params, numbers, key, samples=samples, hinted=hinted, **limits)[0]


def _part(run: Run, hinted: bool, start: int):
    return run.workdir / "rejection" / f"{'hinted' if hinted else 'unhinted'}-{start:06d}.jsonl"
