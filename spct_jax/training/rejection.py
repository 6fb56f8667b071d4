"""Rejection sampling (paper section 3.1): which of the policy's own verdicts the next fine-tuning learns from.

Every comparison is drawn on N_RFT times as it is, and once more with the best response told (hinted). A draw is kept when it
is correct (Eq. 10); a comparison all of whose unhinted draws are correct is too easy and dropped whole. A hinted draw becomes
a target for the prompt without the hint, so all kept draws of a comparison share one prompt.
"""

import tqdm

from spct_jax import distributed, files
from spct_jax.grm import orders, rewards
from spct_jax.sampling import grouped, rollouts
from spct_jax.sampling.rollouts import Rollout
from spct_jax.training import meter
from spct_jax.training.run import Run


def correct(run: Run, rollout: Rollout) -> list[bool]:
    """Eq. 10 for each completion of a rollout."""
    truth = run.comparison(rollout.id).scores
    return [rewards.is_correct(s, truth) for s in rollout.scores]


def retain(unhinted: list[bool], hinted: list[bool], *, drop_too_easy: bool) -> tuple[list[int], list[int]]:
    """Indices of kept unhinted and hinted draws of one comparison, from which of them are correct."""
    if drop_too_easy and all(unhinted):
        return [], []
    return [i for i, right in enumerate(unhinted) if right], [i for i, right in enumerate(hinted) if right]


def run_rejection(run: Run) -> dict[str, float]:
    """Draws on the training comparisons with the cold-start policy, a part at a time; finished parts are not redrawn."""
    config = run.config.rejection
    directory = run.workdir / "rejection"
    directory.mkdir(exist_ok=True)
    progress = directory / "progress.json"
    earlier = files.read_json(progress) if progress.exists() else {}
    watch = meter.Stopwatch(earlier)
    comparisons = run.dataset.train[: config.problems or None]
    stored = run.params_of(run.policy_before("rejection"), layout=run.rollout_layout)
    params = grouped.place_params(stored, layout=run.rollout_layout, rollout=run.rollout_layout, config=run.model)
    starts = range(0, len(comparisons), config.batch_size)
    for start in tqdm.tqdm(starts, "rejection", unit="batch", disable=not distributed.is_first()):
        batch = comparisons[start : start + config.batch_size]
        for hinted in (False, True) if config.hinted else (False,):
            path = _part(run, hinted, start)
            if distributed.agree(path.exists()):
                continue
            drawn = _draw(run, params, [c for c in batch if c.n > 1] if hinted else batch, hinted=hinted)
            rollouts.write(path, drawn)
            files.write_json(progress, watch.read())
        distributed.PREEMPTION.check()
    distributed.barrier("rejection")

    counts = {
        "tokens": 0,
        "draws": 0,
        "correct": 0,
        "malformed": 0,
        "too_easy": 0,
        "kept": 0,
        "kept_hinted": 0,
        "comparisons_kept": 0,
    }
    for _, plain, told in _drawn(run):
        unhinted = correct(run, plain)
        kept, kept_hinted = retain(unhinted, correct(run, told) if told else [], drop_too_easy=config.drop_too_easy)
        counts["tokens"] += sum(len(c) for r in (plain, told) if r for c in r.completions)
        counts["draws"] += len(unhinted)
        counts["correct"] += sum(unhinted)
        counts["malformed"] += sum(s is None for s in plain.scores)
        counts["too_easy"] += all(unhinted)
        counts["kept"] += len(kept)
        counts["kept_hinted"] += len(kept_hinted)
        counts["comparisons_kept"] += bool(kept or kept_hinted)
    timing = watch.read()
    busy = max(timing["seconds"] - timing["compile_seconds"], 1e-9)
    return {**timing, "steps": len(starts), "tokens_per_second": counts["tokens"] / busy, **counts}


def retained_examples(run: Run) -> list[tuple[str, list[int], list[tuple[int, ...]]]]:
    """RFT examples (id, prompt tokens without the hint, kept completions), one per comparison that keeps any."""
    examples = []
    for comparison, plain, told in _drawn(run):
        kept, kept_hinted = retain(
            correct(run, plain),
            correct(run, told) if told else [],
            drop_too_easy=run.config.rejection.drop_too_easy,
        )
        completions = [plain.completions[i] for i in kept] + [told.completions[i] for i in kept_hinted]
        if completions:
            examples.append((comparison.id, run.prompter.encode(comparison, plain.order), completions))
    return examples


def unhinted_draws(run: Run) -> list[Rollout]:
    """All draws without a hint, correct or not: the meta RM learns from both."""
    return [plain for _, plain, _ in _drawn(run)]


def _drawn(run: Run):
    """(comparison, its unhinted rollout, its hinted rollout or None); a single response has nothing to hint at."""
    config = run.config.rejection
    comparisons = run.dataset.train[: config.problems or None]
    for start in range(0, len(comparisons), config.batch_size):
        batch = comparisons[start : start + config.batch_size]
        told = {r.id: r for r in rollouts.read(_part(run, True, start))} if config.hinted else {}
        for comparison, plain in zip(batch, rollouts.read(_part(run, False, start)), strict=True):
            yield comparison, plain, told.get(comparison.id)


def _draw(run: Run, params, batch, *, hinted: bool) -> list[Rollout]:
    config = run.config.rejection
    samples = 1 if hinted else config.samples
    seen = [orders.random_order(c.n, run.config.seed, c.id, 0) for c in batch]
    out = grouped.draw_rows(
        run.rollout_layout,
        params,
        run.model,
        [run.prompter.encode(c, o, hinted=hinted) for c, o in zip(batch, seen, strict=True)],
        grouped.sample_keys(run.key("rejection", int(hinted)), batch, samples),
        rows=config.batch_size,
        temperature=config.temperature,
        limits=run.limits,
    )
    return [run.prompter.read(c, o, tokens) for c, o, tokens in zip(batch, seen, grouped.token_lists(out), strict=True)]


def _part(run: Run, hinted: bool, start: int):
    return run.workdir / "rejection" / f"{'hinted' if hinted else 'unhinted'}-{start:06d}.jsonl"
