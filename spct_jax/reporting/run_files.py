"""What a run left in its workdir, read back.

A *label* names a model and, where they are not the run's own, a temperature or a mode: `rl`, `rl@T0.5`, `rl+token_prob`.
"""

import dataclasses
import os
import re
import sys

from spct_jax.config import STAGES
from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError
from spct_jax.storage import append_only, files, paths
from spct_jax.storage.paths import Path
from spct_jax.training.metric_writer import read_metrics


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What a run left in its workdir; whatever it did not reach is absent.

    `samples` holds the rows of `evaluate/*.jsonl` (see `metrics`) by label and kind, `greedy` or `sampled`.
    """

    config: dict
    stages: dict[str, dict]
    curves: dict[str, list[dict]]
    samples: dict[str, dict[str, list[dict]]]
    problems: dict[str, dict]
    data: dict[str, dict]
    """What was read, used and skipped of every source or split."""

    def rows(self, label: str, kind: str, single: bool = False) -> list[dict]:
        """The problems of one label and kind that have several responses, or those that have one."""
        return [row for row in self.samples[label].get(kind, ()) if row["single"] == single]


def read_run_files(workdir: str | os.PathLike) -> RunFiles:
    """Reads a workdir.

    Raises:
      InputError: if it has no config.json or one of its files is not what a run writes.
    """
    workdir = paths.of(workdir)
    if not (workdir / "config.json").is_file():
        raise InputError(f"{workdir}: not the workdir of a run: it has no config.json")
    summaries = {stage: workdir / stage / "summary.json" for stage in STAGES}
    curves = {stage: workdir / stage / "metrics.jsonl" for stage in STAGES}
    samples = {}
    for path in files.matching(workdir / "evaluate", "*.jsonl"):
        if name := re.fullmatch(r"(.+)_(greedy|sampled)(?:_T([\d.e-]+))?", path.stem):
            label = f"{name[1]}@T{name[3]}" if name[3] else name[1]
            samples.setdefault(label, {})[name[2]] = _read_rows(path)
    problems, data = workdir / "evaluate" / "problems.jsonl", workdir / "data.json"
    return RunFiles(
        config=files.read_json(workdir / "config.json"),
        stages={stage: files.read_json(path) for stage, path in summaries.items() if path.exists()},
        curves={stage: _read_curve(path) for stage, path in curves.items() if append_only.exists(path)},
        samples={label: samples[label] for label in sorted(samples, key=_label_order)},
        problems={row["id"]: row for row in _read_rows(problems)} if problems.exists() else {},
        data=files.read_json(data) if data.exists() else {},
    )


def _read_rows(path: Path) -> list[dict]:
    return [row for _, row in read_jsonl(path, growing=True)]


def _read_curve(path: Path) -> list[dict]:
    """A stage's metrics; none where the file is damaged, which is no reason to do without the rest."""
    try:
        return read_metrics(path)
    except InputError as error:
        print(f"{error}; the report does without these metrics", file=sys.stderr)
        return []


def _label_order(label: str) -> tuple:
    stage = label.partition("@")[0].partition("+")[0]
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), label)
