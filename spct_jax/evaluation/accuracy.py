"""The last stage of a run: greedy verdicts of every policy, votes of the last one with meta rewards, then the report.

Each pass over the problems is one file of verdicts, written part by part; a restarted run goes on after the last part.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from spct_jax import files
from spct_jax.data.comparison import Comparison
from spct_jax.data.sources import read_jsonl, write_jsonl
from spct_jax.errors import InputError
from spct_jax.sampling import engine
from spct_jax.training import loop, meta_rm
from spct_jax.training.run import Run

POLICIES = ("sft", "rft", "rl")


def run_evaluation(run: Run) -> dict[str, float]:
    """Writes `evaluate/<pass>.jsonl` for every pass and returns the stage's summary."""
    config = run.config.evaluation
    directory = run.workdir / "evaluate"
    directory.mkdir(exist_ok=True)
    comparisons = getattr(run.dataset, config.split)[: config.problems or None]
    if not comparisons:
        raise InputError(f"evaluate: the {config.split} split is empty (set config.data.{config.split})")
    write_jsonl(directory / "problems.jsonl", (_problem(c) for c in comparisons))
    progress = directory / "progress.json"
    earlier = files.read_json(progress) if progress.exists() else {}
    watch, tokens = loop.Stopwatch(earlier), earlier.get("tokens", 0)

    policies = [s for s in POLICIES if s in run.config.stages]
    passes = [(f"{p}_greedy", p, 1, 0.0) for p in policies]
    if policies and max(config.k) > 1:
        passes.append((f"{policies[-1]}_sampled", policies[-1], max(config.k), config.temperature))
        passes += [(f"{policies[-1]}_sampled_T{t}", policies[-1], max(config.k), t) for t in config.compare_temperatures]
    for name, policy, k, temperature in passes:
        for new in _run_pass(run, directory / name, comparisons, policy, k, temperature):
            tokens += new
            files.write_json(progress, {**watch.read(), "tokens": tokens})
    timing = watch.read()
    busy = max(timing["seconds"] - timing["compile_seconds"], 1e-9)
    return {**timing, "steps": len(passes), "tokens": tokens, "tokens_per_second": tokens / busy}


def _problem(c: Comparison) -> dict:
    return {"id": c.id, "query": c.query, "responses": list(c.responses), "scores": list(c.scores)}


def _run_pass(
    run: Run, path: pathlib.Path, comparisons: Sequence[Comparison], policy: str, k: int, temperature: float
) -> Iterator[int]:
    """Draws and scores k verdicts of every comparison; yields the tokens of each part."""
    target, parts = path.with_name(path.name + ".jsonl"), path.with_name(path.name + ".parts")
    if target.exists():
        return
    config = run.config.evaluation
    params = run.params_of(policy)
    meta_params = run.params_of("meta_rm") if k > 1 and "meta_rm" in run.config.stages else None
    keep_text = {c.id for c in comparisons[: config.texts]}
    parts.mkdir(exist_ok=True)
    records: dict[str, dict] = {}
    plan = [
        (limits, *planned)
        for limits, members in _by_limits(run, comparisons, k)
        for planned in engine.batches_of_rows(
            members, k, config.order, run.config.seed, slots=config.slots, multiple=run.mesh.size
        )
    ]
    for number, (limits, rows, branches, batch) in enumerate(tqdm.tqdm(plan, path.name, unit="batch")):
        part = parts / f"{number:05d}.jsonl"
        if not part.exists():
            made, tokens = _score_rows(run, params, meta_params, batch, rows, branches, temperature, limits)
            for record in made:
                if record["id"] not in keep_text:
                    record["samples"] = [s | {"text": None} for s in record["samples"]]
            write_jsonl(part, made)
            yield tokens
        records |= {record["id"]: record for _, record in read_jsonl(part)}
    write_jsonl(target, (records[c.id] for c in comparisons))
    for part in parts.iterdir():
        part.unlink()
    parts.rmdir()


def _by_limits(run: Run, comparisons: Sequence[Comparison], k: int) -> list[tuple[engine.Limits, list[Comparison]]]:
    """Comparisons by the shapes their verdicts are drawn in; a single draw is not worth programs of its own."""
    if k == 1:
        return [(run.limits, list(comparisons))]
    groups: dict[engine.Limits, list[Comparison]] = {}
    for comparison in comparisons:
        rows = engine.plan_rows(comparison, k, run.config.evaluation.order, run.config.seed)
        groups.setdefault(run.limits_of(comparison, {row.order for row in rows}), []).append(comparison)
    return sorted(groups.items(), key=lambda group: group[0].max_prompt)


def _score_rows(run, params, meta_params, batch, rows: int, branches: int, temperature: float, limits: engine.Limits):
    """Verdict records of the comparisons in one batch of rows, and how many tokens were drawn."""
    samples = np.zeros((len(batch), branches), np.uint32)
    active = np.zeros((len(batch), branches), bool)
    for row, (numbers, wanted) in zip(batch, zip(samples, active, strict=True), strict=True):
        numbers[: len(row.samples)], wanted[: len(row.samples)] = row.samples, True
    comparisons = [row.comparison for row in batch]
    out = engine.draw_rows(
        run.mesh,
        params,
        run.model,
        [run.prompter.encode(row.comparison, row.order) for row in batch],
        engine.sample_keys(run.key("evaluate"), comparisons, samples),
        rows=rows,
        temperature=temperature,
        limits=limits,
        active=active,
    )
    tokens = engine.token_lists(out)
    metas = np.full((len(batch), branches), np.nan)
    if meta_params is not None:
        prompts = [run.prompter.encode_meta(row.comparison, row.order) for row in batch]
        spare = rows - len(batch)
        groups = run.pack([*prompts, *[[0]] * spare], [*tokens, *[[]] * spare], branches, limits)
        metas = np.asarray(meta_rm.score_critiques(meta_params, config=run.model, groups=groups))[: len(batch)]

    records = {c.id: {"id": c.id, "n": c.n, "best": c.best, "single": c.n == 1, "samples": {}} for c in comparisons}
    for row, group, rewards in zip(batch, tokens, metas, strict=True):
        used = len(row.samples)
        read = run.prompter.read(row.comparison, row.order, group[:used])
        for sample, scores, text, meta in zip(row.samples, read.scores, read.texts, rewards[:used], strict=True):
            records[row.comparison.id]["samples"][sample] = {
                "order": row.order,
                "scores": scores,
                "meta": None if meta_params is None else float(meta),
                "text": text,
            }
    made = [r | {"samples": [r["samples"][s] for s in sorted(r["samples"])]} for r in records.values()]
    return made, int(out.lengths.sum())
