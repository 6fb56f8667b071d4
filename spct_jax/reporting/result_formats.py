"""The votes on a benchmark of pairs in the formats of others, for their scripts and leaderboards.

- RewardBench (allenai/reward-bench, `scripts/run_generative.py`): `rewardbench.json`, accuracy by subset, is what it keeps
  under `eval-set/`; `rewardbench_scores.json`, columns with one value per item, what it keeps under `eval-set-scores/`. By its
  rule for generative judges, a tie and a verdict that cannot be read count 0.5; of scalar reward models, which it calls
  classifiers (`scripts/run_rm.py`), nothing.
- JudgeBench (ScalerLab/JudgeBench, `run_judge.py`): `judgebench.jsonl`, the pairs as published with the judgment of each game.
  The first game shows A first, the second B; its decision is about the responses as shown, so its "A>B" prefers response B.
  Votes of one game are summed; equal scores are a "B>A", as with its reward models, and a decided tie is "A=B". A game that
  was not played is null, as one that failed is there.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from spct_jax.checkpoints import ModelKind
from spct_jax.data.jsonl import write_jsonl
from spct_jax.evaluation.benchmarks.base import Answer
from spct_jax.storage import files
from spct_jax.storage.paths import Path

GENERATIVE = "Generative RM"
CLASSIFIERS = {ModelKind.BTRM: "Seq. Classifier", ModelKind.PAIRRM: "Custom Classifier", ModelKind.CLOUD: "Custom Classifier"}
"""RewardBench's names of what judges, by the kind of a scalar reward model."""
JUDGEBENCH = "judgebench.jsonl"
NAMES = ("rewardbench.json", "rewardbench_scores.json", JUDGEBENCH)


def write(
    directory: Path,
    answers: Sequence[Answer],
    model: str,
    verdicts: Callable[[set[str]], Iterable[tuple[str, Mapping[str, Any]]]],
    kind: ModelKind | None = None,
) -> list[str]:
    """Writes all three files where every item is a pair with a right response; returns their names.

    Args:
      directory: where.
      answers: on the items.
      model: its name.
      verdicts: gives ids and a judge's verdicts on the items with these ids, for the texts of critiques.
      kind: of a scalar reward model; None for a judge that writes verdicts, or where it is not known.
    """
    if not all(answer.item.n == 2 and answer.item.best is not None and answer.by_pair is None for answer in answers):
        return []
    _write_json(directory / "rewardbench.json", rewardbench(answers, model, kind))
    _write_json(directory / "rewardbench_scores.json", rewardbench_scores(answers, model, kind))
    texts = {id: _critiques(verdict) for id, verdict in verdicts({answer.item.id for answer in answers})}
    lines = [judgebench(answer, model, texts.get(answer.item.id, ("", ""))) for answer in answers]
    write_jsonl(directory / JUDGEBENCH, lines)
    return list(NAMES)


def rewardbench(answers: Sequence[Answer], model: str, kind: ModelKind | None = None) -> dict[str, Any]:
    """Accuracy by subset, in [0, 1], and what the model is."""
    credits = defaultdict(list)
    for answer in answers:
        credits[answer.item.subset].append(_result(answer, kind))
    about = {"model": model, "model_type": CLASSIFIERS.get(kind, GENERATIVE), "chat_template": None}
    return about | {subset: sum(values) / len(values) for subset, values in credits.items()}


def rewardbench_scores(answers: Sequence[Answer], model: str, kind: ModelKind | None = None) -> dict[str, Any]:
    """One list per column, in the order of the items; texts are absent where the data is not at hand."""
    columns: dict[str, Any] = defaultdict(list)
    for answer in answers:
        item, totals = answer.item, answer.totals
        columns["id"].append(item.id)
        columns["subset"].append(item.subset)
        columns["results"].append(_result(answer, kind))
        for side, index in (("chosen", item.best), ("rejected", 1 - item.best)):
            columns[f"scores_{side}"].append(None if totals is None else totals[index])
            if item.comparison is not None:
                turns = [{"role": turn.role, "content": turn.content} for turn in item.comparison.conversation]
                reply = {"role": "assistant", "content": item.comparison.responses[index]}
                columns[f"text_{side}"].append([*turns, reply])
            else:
                columns[f"text_{side}"].append(None)
    return {**columns, "model": model, "model_type": CLASSIFIERS.get(kind, GENERATIVE)}


def _result(answer: Answer, kind: ModelKind | None) -> float:
    return answer.strict if kind in CLASSIFIERS else answer.expected


def judgebench(answer: Answer, model: str, critiques: tuple[str, str]) -> dict[str, Any]:
    """One pair with the judgments of its two games."""
    item = answer.item
    line: dict[str, Any] = {"pair_id": item.id, "source": item.subset}
    line |= item.label if isinstance(item.label, Mapping) else {}
    if item.comparison is not None:
        a, b = item.comparison.responses
        line |= {"question": item.comparison.query, "response_A": a, "response_B": b}
    line |= {"label": "B>A" if item.best else "A>B", "judge_name": "spct_jax"}
    judgments = []
    for swapped, (game, critique) in enumerate(zip(answer.games(), critiques, strict=True)):
        if game is None:
            judgments.append(None)
            continue
        totals = game.totals
        shown = None if totals is None else list(reversed(totals)) if swapped else list(totals)
        judgment = {"judge_model": model, "prompt": "", "response": critique, "scores": shown}
        judgments.append({"judgment": judgment, "decision": _decision(shown, game.decides)})
    return line | {"judgments": judgments}


def _critiques(verdict: Mapping[str, Any]) -> tuple[str, str]:
    """The text of the first vote in each game, empty where there is none."""
    samples = [sample for sample in verdict["samples"] if sample["order"]]
    first, second = (next((s["text"] for s in samples if s["order"][0] == shown), "") for shown in (0, 1))
    return first, second


def _decision(shown: Sequence[float] | None, decides: bool) -> str | None:
    if shown is None:
        return None
    if decides and shown[0] == shown[1]:
        return "A=B"
    return "A>B" if shown[0] > shown[1] else "B>A"


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    files.write(path, json.dumps(value, indent=4, sort_keys=True) + "\n")
