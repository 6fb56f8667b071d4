"""One verdict told to a person: the texts, every critique with what was read in it, the votes and who won."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spct_jax import terminal
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.grm import voting
from spct_jax.judging import input_lines, resume
from spct_jax.judging.verdicts import Verdict, count, to_json


def explain(
    source: str,
    wanted: str,
    target: str | None,
    score: Callable[[Comparison], Verdict | InputError],
    checkpoint: str | None,
) -> str:
    """The verdict on one line of an input, in full: from the output if it is there already, else scored now.

    Args:
      source: the input.
      wanted: the id or the number of the line.
      target: the output; None for none.
      score: gives the verdict on a comparison, or why there is none.
      checkpoint: name of the model that `score` judges with; None where there is none.

    Raises:
      InputError: there is no such line, or no verdict on it.
    """
    line = input_lines.find(source, wanted)
    record, origin = resume.find_record(target, line) if target else None, target
    if record is None:
        if not checkpoint:
            raise InputError(f"{line.where}: {line.id!r} has no verdict yet; give --checkpoint to score it")
        outcome, origin = score(line.comparison), checkpoint
        record = line.failed(str(outcome)) if isinstance(outcome, InputError) else to_json(outcome)
    if "error" in record:
        raise InputError(f"{line.where}: {record['error']}")
    return f"{line.where}, {line.id!r}: the verdict of {origin}\n\n{explanation(line.comparison, record)}"


def explanation(comparison: Comparison, record: Mapping[str, Any]) -> str:
    """A verdict, given as its JSON object, as a person reads it; responses and samples are numbered from 1."""
    samples, totals = record["samples"], record["scores"]
    blocks = [_block(turn.role.capitalize(), turn.content) for turn in comparison.conversation]
    blocks += [_block(f"Response {number}", text) for number, text in enumerate(comparison.responses, 1)]
    for number, sample in enumerate(samples, 1):
        heading = f"Sample {number}"
        if sample["order"] is not None:
            heading += f" (responses shown in the order {', '.join(str(index + 1) for index in sample['order'])})"
        blocks.append(_block(heading, f"{sample['text']}\n{_read(sample)}"))
    blocks.append(_vote_table(samples, totals, comparison.n))
    blocks.append(_outcome(totals, record["valid"], len(samples)))
    if comparison.scores is not None:
        blocks[-1] += f"\nThe scores given by people: {_listed(comparison.scores)}."
    return "\n\n".join(blocks)


def _read(sample: Mapping[str, Any]) -> str:
    unread = "cut at the limit of tokens, not read" if sample["truncated"] else "no scores that can be read"
    scores = unread if sample["scores"] is None else _listed(sample["scores"])
    if sample.get("expected"):
        scores += f"; expected: {_listed(sample['expected'])}"
    meta = "" if sample["meta"] is None else f"; meta reward {sample['meta']:.3f}"
    return f"=> {scores}{meta}"


def _vote_table(samples: Sequence[Mapping[str, Any]], totals: Sequence[float] | None, n: int) -> str:
    guided = any(sample["meta"] is not None for sample in samples)
    rows = [["votes", *(f"response {number}" for number in range(1, n + 1)), *["meta reward"] * guided]]
    for number, sample in enumerate(samples, 1):
        meta = "-" if sample["meta"] is None else f"{sample['meta']:.3f}"
        counted = _counted(sample)
        scores = ["-"] * n if counted is None else [f"{score:.9g}" for score in counted]
        rows.append([f"sample {number}", *scores, *[meta] * guided])
    if totals is not None:
        rows.append(["total", *(f"{total:.9g}" for total in totals), *[""] * guided])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        cells = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    everything = voting.sum_vote([_counted(sample) for sample in samples], n)
    if guided and totals is not None and voting.rounded(totals) != voting.rounded(everything):
        lines.append("(The total is of the samples that the meta reward model trusts most.)")
    return "\n".join(lines)


def _counted(sample: Mapping[str, Any]) -> Sequence[float] | None:
    """What a sample counts for: its expected scores where they were read, else its scores."""
    return sample.get("expected", sample["scores"])


def _outcome(totals: Sequence[float] | None, valid: int, drawn: int) -> str:
    counted = f"{valid} of {count(drawn, 'sample')} could be read"
    if totals is None:
        return f"No verdict: {counted}."
    if len(totals) == 1:
        return f"The response gets {totals[0]:.9g}; {counted}."
    top, second = sorted(totals, reverse=True)[:2]
    winners = [str(index + 1) for index in voting.winners(totals)]
    if len(winners) > 1:
        return f"A tie: responses {', '.join(winners[:-1])} and {winners[-1]} share the highest total, {top:.9g}; {counted}."
    return f"Response {winners[0]} wins by {round(top - second, 9):.9g}, {top:.9g} to {second:.9g}; {counted}."


def _block(title: str, text: str) -> str:
    # What a user or a model wrote must not drive the reader's terminal.
    text = terminal.printable(text.replace("\r\n", "\n"))
    return "\n".join([title, *(f"  {line}".rstrip() for line in text.split("\n"))])


def _listed(scores: Sequence[float]) -> str:
    return ", ".join(f"response {number}: {score:.9g}" for number, score in enumerate(scores, 1))
