"""The run's own held-out comparisons: which of them are judged, and the file that says so."""

import itertools
from collections.abc import Sequence

from spct_jax.data import draws
from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import read_jsonl, write_jsonl
from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import files
from spct_jax.storage.paths import Path
from spct_jax.training.context import Run


def check(run: Run) -> None:
    """Raises InputError naming the field where the split holds nothing to judge."""
    split, toy = run.config.evaluation.split, "" if run.config.data.train else "toy."
    if not len(getattr(run.dataset, split)):
        raise InputError(
            f"config.data.{toy}{split}: evaluate needs comparisons of config.evaluation.split={split!r}, and there are none"
        )


def choose(run: Run) -> Sequence[Comparison]:
    """`evaluation.problems` comparisons of `evaluation.split`, a sample that follows from the seed."""
    config = run.config.evaluation
    split = getattr(run.dataset, config.split)
    return split[draws.sample(run.config.seed, "evaluate", len(split), config.problems)]


def _problem(c: Comparison) -> dict:
    return {"id": c.id, "query": c.query, "responses": list(c.responses), "scores": list(c.scores), "digest": c.digest}


def keep(directory: Path, comparisons: Sequence[Comparison], field: str) -> None:
    """Writes what is judged; where there are verdicts already, InputError unless they are on the same, in the same order."""
    path = directory / "problems.jsonl"
    found = [other for other in files.matching(directory, "*.jsonl") if other != path]
    begun = path.exists() and (any(map(files.size, found)) or bool(files.matching(directory, "*.jsonl.parts")))
    if distributed.agree(begun):
        kept = (record for _, record in read_jsonl(path))
        pairs = itertools.zip_longest(kept, map(_problem, comparisons))
        line = next((line for line, (found, wanted) in enumerate(pairs, 1) if found != wanted), None)
        if line is not None:
            raise InputError(
                f"{path}:{line}: verdicts were drawn on another problem than config.{field} holds there now; put that file back"
                f" as it was, or remove {directory} to evaluate anew"
            )
    elif distributed.is_first():
        write_jsonl(path, map(_problem, comparisons))
