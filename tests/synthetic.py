"""Workdirs like those a training run leaves, with verdicts drawn at random."""

import json
import pathlib

import numpy as np

LABELS = {"sft": 0.4, "rft": 0.8, "rl": 1.6}


def write_workdir(workdir: pathlib.Path, *, seed: int = 0, problems: int = 60, samples: int = 32, skill: float = 1.0):
    """A complete workdir; `skill` scales how far the model's scores follow the truth."""
    rng = np.random.default_rng(seed)
    judged = [_problem(index, np.random.default_rng([1, index])) for index in range(problems)]
    _write_json(
        workdir / "config.json",
        {"seed": seed, "evaluation": {"split": "development", "temperature": 1.0, "k": [1, 8, 32], "k_meta_fraction": 0.5}},
    )
    _write_lines(workdir / "evaluate" / "problems.jsonl", judged)
    for label, strength in LABELS.items():
        rows = [_row(problem, rng, 1, skill * strength, meta=False) for problem in judged]
        _write_lines(workdir / "evaluate" / f"{label}_greedy.jsonl", rows)
        _write_stage(workdir / label, rng, steps=120)
    for name, strength in (("rl_sampled", 0.9), ("rl_sampled_T0.5", 1.3)):
        rows = [_row(problem, rng, samples, skill * strength, meta=True) for problem in judged]
        _write_lines(workdir / "evaluate" / f"{name}.jsonl", rows)
    _write_stage(workdir / "meta_rm", rng, steps=60)
    data = {"read": 6000, "used": 4200, "skipped": {"too easy": 1500, "tie | for best": 300}}
    _write_json(workdir / "rejection" / "summary.json", {"seconds": 31.5, "compile_seconds": 8.0, "data": data})
    lines = {"read": 6007, "used": 6000, "skipped": {"not JSON": 7}, "examples": {}}
    _write_json(workdir / "data.json", {"train.jsonl": lines})
    return workdir


def _problem(index: int, rng: np.random.Generator) -> dict:
    n = 1 if index % 10 == 9 else int(rng.integers(2, 5))
    best = int(rng.integers(n))
    scores = [int(rng.integers(2))] if n == 1 else [9 if i == best else int(rng.integers(1, 8)) for i in range(n)]
    return {
        "id": f"test-{index}",
        "query": f"Which bag suits trip {index}? It must be light.",
        "responses": [f"Bag {i} of trip {index} is sturdy." for i in range(n)],
        "scores": scores,
    }


def _row(problem: dict, rng: np.random.Generator, count: int, strength: float, meta: bool) -> dict:
    truth = np.array(problem["scores"])
    n = len(truth)
    samples = []
    for index in range(count):
        noisy = np.clip(np.rint(strength * truth / 2 + rng.normal(3, 2, n)), 1, 10)
        scores = [int(rng.integers(2))] if n == 1 else [int(score) for score in noisy]
        right = int(noisy.argmax()) == int(truth.argmax())
        text = f"1. Weight.\nResponse 1 is light.\n```\n\\boxed{{{', '.join(map(str, scores))}}}" if index < 2 else None
        samples.append(
            {
                "order": list(range(n)),
                "scores": None if rng.random() < 0.03 else scores,
                "meta": float(rng.normal(1.0 * right, 1.0)) if meta else None,
                "text": text,
            }
        )
    return {"id": problem["id"], "n": n, "best": int(truth.argmax()), "single": n == 1, "samples": samples}


def _write_stage(directory: pathlib.Path, rng: np.random.Generator, steps: int) -> None:
    fall = np.exp(-np.arange(steps) / (steps / 4))
    rows = [{"step": i, "loss": 0.4 + fall[i] + 0.05 * rng.normal()} for i in range(steps)]
    for i, row in enumerate(rows):
        if directory.name == "rl":
            row |= {"reward": 0.7 - fall[i], "kl": 0.07 * (1 - fall[i]), "malformed": 0.02 + 0.05 * fall[i]}
        elif directory.name == "meta_rm":
            row |= {"accuracy": 0.85 - 0.3 * fall[i] + 0.02 * rng.normal()}
    _write_lines(directory / "metrics.jsonl", rows)
    summary = {
        "seconds": 40.25,
        "compile_seconds": 12.0,
        "steps": steps,
        "tokens": 900000,
        "tokens_per_second": 22360.2,
        "peak_memory_gib": 1.25 if directory.name == "meta_rm" else 0.75,
    }
    _write_json(directory / "summary.json", summary)


def _write_json(path: pathlib.Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _write_lines(path: pathlib.Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
