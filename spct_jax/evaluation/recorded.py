"""Recorded votes: what a judge, ours or anyone's, said about each item of a benchmark. Every figure is computed from them.

They are kept as JSON lines, one item a line:

    {"id": "a", "scores": [[7, 3], [5, 6]], "subset": "Chat"}
    {"id": "b", "decision": [0, "tie", null], "subset": "Chat"}

`scores` has one row of n numbers per vote or per order, in input order of the responses, or null where the judge's answer could
not be read. `decision` stands in its place for a judge that only chooses: the index of the chosen response, "tie", or null;
where a line has both, the scores are read. For a single response it is "error" or "no_error". Benchmarks that play two games
per item (the responses as given, and swapped) read rows 0, 2, ... as the first game and rows 1, 3, ... as the second, unless
`orders` says how each vote saw the responses; either way a row is already mapped back to input order. Optional are, per row,
`orders`, `meta` (a meta reward model's reward, or null) and `truncated`; and, for a file that is read without the benchmark's
data, `n`, `best` and `label` (see `benchmarks.base.Item`).

The output of the judge command is read as well: each sample of a verdict is a vote, and an error stands for as many unread
ones as others have votes.
"""

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

from spct_jax.data.comparison import given_id
from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError
from spct_jax.grm import voting

TIE = "tie"
ERROR = {"no_error": 0, "error": 1}
"""What is decided about a single response; either form is read."""
Decision = int | Literal["tie"]
GAMES = ((0, 1), (1, 0))
"""The orders of two responses in the two games that some benchmarks play, in turn."""
LARGEST = 1e300
"""Of a number that is read; sums and means of such numbers are finite, too."""
_PER_ROW = ("scores", "decision", "orders", "meta", "truncated")


class Vote(NamedTuple):
    """One answer of a judge about one item."""

    scores: tuple[float, ...] | None = None
    """Per response, in input order; None if there are none or they could not be read."""
    decision: Decision | None = None
    """Of a judge that gives no scores: the index of the chosen response, or a tie; None if it could not be read."""
    order: tuple[int, ...] | None = None
    """order[j] is the index of the response shown at position j; None where that was not recorded."""
    meta: float | None = None
    """The meta reward model's reward."""
    truncated: bool | None = None
    """Whether the answer was cut at the limit of tokens; None where that was not recorded."""
    lost_decision: bool = False
    """Whether it is a decision that could not be read, which tells a judge that only decides from one that scores."""

    @property
    def valid(self) -> bool:
        """Whether it could be read."""
        return self.scores is not None or self.decision is not None

    @property
    def decides(self) -> bool:
        """Whether it is of a judge that only chooses and gives no scores."""
        return self.decision is not None or self.lost_decision

    def points(self, n: int) -> tuple[float, ...] | None:
        """What it adds to each response's total: its scores, or one point shared by what it chose; None if not valid."""
        if self.scores is not None or self.decision is None:
            return self.scores
        if self.decision == TIE:
            return (1 / n,) * n
        return tuple(float(index == self.decision) for index in range(n))


@dataclasses.dataclass(frozen=True)
class Recorded:
    """All votes on one item, in the order they were drawn, so that the first k of them are a vote of k."""

    id: str
    votes: tuple[Vote, ...]
    subset: str = ""
    line: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """The JSON object it was read from."""
    where: str = ""
    """The file and line it was read from."""

    def first(self, k: int, k_meta: int | None = None) -> "Recorded":
        """The first k votes, or of those the k_meta valid ones that the meta reward model trusts most (all, for k = 1)."""
        votes = self.votes[:k]
        if k_meta is not None and k > 1:
            valid = [vote.scores if vote.scores is not None else vote.decision for vote in votes]
            votes = tuple(votes[index] for index in voting.trusted(valid, [vote.meta for vote in votes], k_meta))
        return dataclasses.replace(self, votes=votes)


def totals(votes: Sequence[Vote], n: int) -> tuple[float, ...] | None:
    """Each response's total over the votes that could be read (Eq. 14; Eq. 13 for decisions); None if none could.

    Sums that are equal but for how floats are rounded are equal, so their responses tie.
    """
    read = [points for vote in votes if (points := vote.points(n)) is not None]
    if len(read) > 1 and any(isinstance(score, float) for points in read for score in points):
        return voting.rounded([math.fsum(column) for column in zip(*read, strict=True)])
    return voting.sum_vote(read, n)


def malformed_rate(votes: Collection[Vote]) -> float:
    """The share that could not be read, for whatever reason; 0 of none."""
    return sum(not vote.valid for vote in votes) / max(len(votes), 1)


def truncated_rate(votes: Collection[Vote]) -> float | None:
    """The share that was cut at the limit of tokens; None where one does not say, or there are none."""
    cut = [vote.truncated for vote in votes]
    return None if None in cut or not cut else sum(cut) / len(cut)


def from_verdict(record: Mapping[str, Any], subset: str = "", read: str | None = None) -> Recorded:
    """The votes in the JSON object of a verdict (`judging.verdicts.to_json`, or a line of a run's `evaluate/*.jsonl`).

    `read` is the field of a sample that votes, `scores` or `expected`; None for the expected scores where they were read.
    """
    if read is None:
        read = "expected" if any("expected" in sample for sample in record["samples"]) else "scores"
    votes = tuple(
        Vote(
            scores=None if sample[read] is None else tuple(sample[read]),
            order=None if sample.get("order") is None else tuple(sample["order"]),
            meta=sample.get("meta"),
            truncated=sample.get("truncated"),
        )
        for sample in record["samples"]
    )
    return Recorded(record["id"], votes, subset)


def to_json(recorded: Recorded, **more: Any) -> dict[str, Any]:
    """The line of a file that `read` reads back; `more` are further fields, such as `best` and `label`."""
    votes = recorded.votes
    line: dict[str, Any] = {"id": recorded.id}
    decides = any(vote.decides for vote in votes)
    line["decision" if decides else "scores"] = [
        vote.decision if decides else None if vote.scores is None else list(vote.scores) for vote in votes
    ]
    if any(vote.order is not None for vote in votes):
        line["orders"] = [None if vote.order is None else list(vote.order) for vote in votes]
    for name in ("meta", "truncated"):
        values = [getattr(vote, name) for vote in votes]
        if any(value is not None for value in values):
            line[name] = values
    return line | {"subset": recorded.subset} | more


def read(path: str | os.PathLike) -> list[Recorded]:
    """The recorded votes in a .jsonl or .jsonl.gz file, in its order.

    Raises:
        InputError: naming file and line, for an id that is missing or repeated in its subset, for fields that have not one
            value per vote, for rows of different lengths, for scores that are not finite numbers, and for decisions that name
            no response.
    """
    found: dict[tuple[str, str], Recorded] = {}
    lines: dict[tuple[str, str], int] = {}
    for number, line in read_jsonl(path):
        where = f"{path}:{number}"
        try:
            recorded = dataclasses.replace(from_json(line), where=where)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        key = recorded.subset, recorded.id
        if key in found:
            raise InputError(f"{where}: duplicate id ({recorded.id!r}, first on line {lines[key]})")
        found[key], lines[key] = recorded, number
    if not found:
        raise InputError(f"{path}: holds no recorded scores")
    most = max(len(one.votes) for one in found.values())
    return [dataclasses.replace(one, votes=one.votes * most) if _is_error(one.line) else one for one in found.values()]


def from_json(line: Mapping[str, Any]) -> Recorded:
    """The votes in one line of a file; InputError saying what is wrong with it."""
    samples = line.get("samples")
    if _is_error(line) or (isinstance(samples, list) and all(isinstance(one, Mapping) and "scores" in one for one in samples)):
        line = _from_judge(line)
    id = given_id(line)
    if id is None:
        raise InputError("missing field 'id'")
    given = {name: line[name] for name in _PER_ROW if line.get(name) is not None}
    for name, other in (("scores", "decision"), ("decision", "scores")):
        if other in given and given.get(name) == []:
            del given[name]
    if not {"scores", "decision"} & given.keys():
        raise InputError("neither 'scores' nor 'decision'")
    for name, values in given.items():
        if not isinstance(values, list):
            raise InputError(f"{name} is not a list with one value per vote ({type(values).__name__})")
    lengths = {name: len(values) for name, values in given.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"different numbers of votes ({', '.join(f'{n} in {name}' for name, n in lengths.items())})")
    if not all(lengths.values()):
        raise InputError("no votes")
    rows = next(iter(lengths.values()))
    columns = {name: given.get(name, [None] * rows) for name in _PER_ROW}
    votes = tuple(_vote(*values) for values in zip(*columns.values(), strict=True))
    if any(vote.scores is not None for vote in votes) and any(vote.decision is not None for vote in votes):
        votes = tuple(vote._replace(decision=None) for vote in votes)
    if "scores" not in given:
        votes = tuple(vote._replace(lost_decision=not vote.valid) for vote in votes)
    if len({len(vote.scores) for vote in votes if vote.scores is not None}) > 1:
        raise InputError("rows of scores of different lengths")
    subset = line.get("subset") or ""
    if not isinstance(subset, str):
        raise InputError(f"subset is not a string ({type(subset).__name__})")
    return Recorded(str(id), votes, subset, line)


def _is_error(line: Mapping[str, Any]) -> bool:
    """Whether it is the judge command's word for a comparison that could not be judged."""
    return "line" in line and isinstance(line.get("error"), str)


def _from_judge(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the judge command's output in the form of others. Its `best`, what the judge found best, is left out."""
    samples = [{"scores": None}] if _is_error(line) else line["samples"]
    field = "expected" if any("expected" in sample for sample in samples) else "scores"
    keys = {"scores": field, "orders": "order", "meta": "meta", "truncated": "truncated"}
    found = {name: [sample.get(key) for sample in samples] for name, key in keys.items()}
    given = {name: values for name, values in found.items() if name == "scores" or any(one is not None for one in values)}
    return {name: value for name, value in line.items() if name not in ("best", "scores", "samples")} | given


def _vote(scores: Any, decision: Any, order: Any, meta: Any, truncated: Any) -> Vote:
    if scores is not None:
        if not isinstance(scores, list) or not scores:
            raise InputError(f"a row of scores is not a list of numbers ({scores!r})")
        for score in scores:
            if not _is_number(score):
                raise InputError(f"score is not a number ({score!r})")
            if not _is_finite(score):
                raise InputError(f"score is not finite ({score!r:.40})")
            if abs(score) > LARGEST:
                raise InputError(f"score is larger than {LARGEST:g} ({score!r:.40})")
        scores = tuple(scores)
    if isinstance(decision, str):
        decision = ERROR.get(decision, decision)
    if decision is not None and decision != TIE and (not _is_integer(decision) or decision < 0):
        raise InputError(f"decision is not the index of a response, 'tie' or null ({decision!r})")
    if order is not None and not (
        isinstance(order, list) and all(map(_is_integer, order)) and sorted(order) == list(range(len(order)))
    ):
        raise InputError(f"order is not a permutation of 0 .. n - 1 ({order!r})")
    if meta is not None and not _is_number(meta):
        raise InputError(f"meta is not a number ({meta!r})")
    if isinstance(meta, int) and abs(meta) > LARGEST:
        raise InputError(f"meta is larger than {LARGEST:g} ({meta!r:.40})")
    if not isinstance(truncated, bool | None):
        raise InputError(f"truncated is not true, false or null ({truncated!r})")
    return Vote(scores, decision, None if order is None else tuple(order), meta, truncated)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
