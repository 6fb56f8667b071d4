"""Recorded outputs of public judges as files of recorded votes, the form that figures are computed from."""

import gzip
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from spct_jax.evaluation import figures, matching, recorded
from spct_jax.evaluation.benchmarks import catalogue

Lines = list[dict[str, Any]]


def load(path: pathlib.Path) -> Any:
    """The JSON in a plain or gzipped file."""
    return json.loads((gzip.open if path.suffix == ".gz" else open)(path, "rb").read())


def write(path: pathlib.Path, lines: Lines) -> None:
    """Writes a file of recorded votes."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def scored(name: str, lines: Lines, directory: pathlib.Path, k: int | None = None) -> figures.Figures:
    """The figures of a benchmark from the first k votes of lines, by way of a file; no data of the benchmark is read."""
    path = directory / "scores.jsonl"
    write(path, lines)
    benchmark = catalogue.get(name)
    return figures.compute(benchmark, matching.stand_alone(benchmark, recorded.read(path), path), k, intervals=False)


def llmbar(runs: Mapping[str, Any]) -> Iterator[tuple[str, Lines, Mapping[str, str]]]:
    """For each judge and subset: its name, the winners it named in both orders, and the published statistics."""
    for name, run in runs.items():
        lines = [
            {
                "id": str(index),
                "decision": [None if winner is None else int(winner) - 1 for winner in games],
                "best": label - 1,
                "subset": name.partition("|")[0],
            }
            for index, (label, *games) in enumerate(zip(run["label"], run["first"], run["swapped"], strict=True))
        ]
        yield name, lines, run["statistics"]


def realmistake(golden: Mapping[str, Any]) -> Iterator[tuple[str, Lines, Mapping[str, float]]]:
    """For each run (method, task, model, judge, prompt): its name, its decisions, and the published metrics."""
    for name, run in golden["runs"].items():
        method, task, model, judge, prompt = name.split("/")
        lines = [
            {
                "id": str(index),
                "decision": [None if said == "-" else int(said)],
                "label": "error" if label == "1" else "no_error",
                "subset": f"{task}/{model}",
            }
            for index, (label, said) in enumerate(zip(run["label"], run["prediction"], strict=True))
        ]
        (judges,) = [found for key, found in golden["published"][method][task].items() if key.endswith(f"={model}")] or [
            next(found for key, found in golden["published"][method][task].items() if key.split("/")[-1].endswith(model))
        ]
        (prompts,) = [found for key, found in judges.items() if key.split("=")[1].split("/")[-1] == judge]
        yield name, lines, prompts[f"prompt={prompt}"]["metrics"]


def realmistake_samples(golden: Mapping[str, Any]) -> Lines:
    """The votes in `tests/fixtures/realmistake_samples.json`, with the labels of the golden file."""
    samples = load(pathlib.Path(__file__).parent / "fixtures" / "realmistake_samples.json")["samples"]
    run = "self_consistency/{}/gpt-4-0613/gpt-4-0125-preview/baseline_errordetection_prompt_1"
    return [
        {
            "id": str(index),
            "decision": [None if one == "-" else int(one) for one in said],
            "label": "error" if label == "1" else "no_error",
            "subset": f"{task}/gpt-4-0613",
        }
        for task, votes in samples.items()
        for index, (said, label) in enumerate(zip(votes.split(), golden["runs"][run.format(task)]["label"], strict=True))
    ]


def rewardmath(scores: Mapping[str, Any]) -> Iterator[tuple[str, Lines]]:
    """For each judge on RewardMATH: its name and its scores, or its choices on the nine pairs of each problem."""
    for name, run in scores.items():
        if not name.startswith("RewardMATH/"):
            continue
        if "chosen_position" in run:
            lines = [
                {"id": f"{index}/0-{loser}", "decision": [None if said not in ("A", "B") else int(said != right)]}
                for index, (games, rights) in enumerate(zip(run["score"], run["chosen_position"], strict=True))
                for loser, (said, right) in enumerate(zip(games, rights, strict=True), 1)
            ]
        else:
            lines = [
                {"id": str(index), "scores": [row], "best": best}
                for index, (row, best) in enumerate(zip(run["score"], run["gold_index"], strict=True))
            ]
        yield name.removeprefix("RewardMATH/"), lines


def alpacaeval(runs: Mapping[str, Any]) -> Iterator[tuple[str, Lines, Mapping[str, str]]]:
    """For each model: its name, its preferences as shares of the reference and of the model, and the published figures."""
    for name, run in runs.items():
        lines = [{"id": str(index), "scores": [[2 - p, p - 1]]} for index, p in enumerate(run["preference"])]
        yield name, lines, run["published"]


def pandalm(judged: list[Mapping[str, Any]], tests: list[Mapping[str, Any]], field: str) -> Lines:
    """What a judge said of PandaLM's test set: 1, 2 or a tie; what is none of these is null."""
    said = {"1": 0, "2": 1, "Tie": "tie", "tie": "tie", "0": "tie"}
    assert [row["idx"] for row in judged] == [row["idx"] for row in tests]
    return [{"id": str(row["idx"]), "decision": [said.get(str(row[field]).strip())]} for row in judged]
