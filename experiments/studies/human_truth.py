r"""How much of what a trained judge says is true: every statement of its verdicts is computed again from the text it is about.

    python experiments/studies/human_truth.py --verdicts=runs/gemma3_270m/grm/evaluate/sft_greedy.jsonl \
        --problems=runs/gemma3_270m/grm/evaluate/problems.jsonl

The cold start's demonstrator (`human_demonstrator`) says only what it computed, in a fixed set of phrases. A judge that learnt
from it can be held to the same: a statement is true if it is what the demonstrator would say of that response, where a
quotation need only stand in the response; it is false if the demonstrator has the phrase and would not say it; all others are
unknown. Scores follow if they are what the verdict's own criteria and points give, read off the responses. `--verdicts` may
also be RL's rollouts, with the training comparisons as `--problems`. Prints one line of JSON; needs no weights.
"""

import collections
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import human_criteria
from absl import flags

from spct_jax import cli
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError

FLAGS = flags.FlagValues()
VERDICTS = flags.DEFINE_string("verdicts", None, "File of verdicts, .jsonl.", required=True, flag_values=FLAGS)
PROBLEMS = flags.DEFINE_string("problems", None, "The comparisons they are about, .jsonl.", required=True, flag_values=FLAGS)

_QUOTED = re.compile(r'"(.+?)"')
_NUMBER = re.compile(r"-?\$?-?\d[\d.,]*")
_CRITERION = re.compile(r"^\d+\. (.+) \((\d+) points\)$", re.MULTILINE)
_EARNED = re.compile(r": \d+$")
_SUM = re.compile(r", so 1(?:\+\d+)*=\d+$")
_LINE = re.compile(r"^Response (\d+) (.+)\.$", re.MULTILINE)
MOST = 6
"""Forms of statements that are named as the most often false."""
WORDED = {wording: c for c in human_criteria.CRITERIA for wording in c.wordings}


def form(statement: str) -> str:
    """A statement without what is quoted, and without numbers."""
    return _NUMBER.sub("#", _QUOTED.sub('""', statement))


def readings(comparison: Comparison, i: int) -> list[str]:
    """All that the demonstrator would say of a response."""
    found = (criterion.read(comparison, i) for criterion in human_criteria.CRITERIA)
    return list(dict.fromkeys(reading[1] for reading in found if reading is not None))


def statements(text: str, order: Sequence[int]) -> Iterator[tuple[int, str]]:
    """(index of the response, what is said of it) of every statement of a verdict, without the points that it earns."""
    for place, line in _LINE.findall(text):
        if int(place) <= len(order):
            masked = _QUOTED.sub(lambda match: match[0].replace(" and ", "\0"), _SUM.sub("", line))
            said = (_EARNED.sub("", part).replace("\0", " and ") for part in masked.split(" and "))
            yield from ((order[int(place) - 1], what) for what in said if what)


def is_true(comparison: Comparison, i: int, said: str) -> bool | None:
    """Whether a statement is true of a response; None for one that the demonstrator never makes."""
    true = readings(comparison, i)
    if said in true:
        return True
    of_this_form = [reading for reading in true if form(reading) == form(said)]
    if of_this_form and _QUOTED.search(said) and _NUMBER.findall(_QUOTED.sub("", said)) == []:
        return all(quoted.casefold() in comparison.responses[i].casefold() for quoted in _QUOTED.findall(said))
    return False if form(said) in FORMS else None


def _forms() -> frozenset[str]:
    """The forms of all that the demonstrator can say, from two made-up comparisons that between them have everything."""
    long = "Sure, I can't. You could try because it might kill, for example. Please be careful? You could try because "
    long += (
        "it is a stupid way. I don't know what you mean, sorry! Until then, find 1.2345 if you like them; kill 3 boats and 4 "
    )
    long += "cats, ".rstrip() + " " + "word " * 40 + "\n- a\n- b\n"
    sums = ("3+4=7 5\n2+2=4\nA: 4", "3+4=8 x\nA: 9.5", "Nothing here.", long + "1+1=2", long + "2+2=4 and 3")
    texts = ((long, "No."), ("No.", long), sums)
    found = set()
    for responses in texts:
        shown = Comparison(conversation=(Turn("user", "Please kill 3 boats and 4 cats, you"),), responses=responses)
        found |= {form(said) for i in range(shown.n) for said in readings(shown, i)}
    return frozenset(found)


FORMS = _forms()


def follows(comparison: Comparison, text: str, scores: Sequence[float]) -> bool | None:
    """Whether the scores, in input order, are what the verdict's own criteria and points give; None if it has others."""
    named = _CRITERION.findall(text)
    if not named or any(wording not in WORDED for wording, _ in named):
        return None
    for i, score in enumerate(scores):
        read = [(WORDED[wording].read(comparison, i), int(points)) for wording, points in named]
        if score != 1 + sum(points for reading, points in read if reading is not None and reading[0]):
            return False
    return True


def count(verdicts: Iterator[tuple[Comparison, Sequence[int], str, Sequence[float] | None]]) -> dict[str, Any]:
    """Counts over (comparison, order, text, scores in input order); `sound`: all is true, and the scores follow."""
    said, follow, false = collections.Counter(), collections.Counter(), collections.Counter()
    number = read = first = sound = 0
    for comparison, order, text, scores in verdicts:
        number += 1
        found = [(form(what), is_true(comparison, i, what)) for i, what in statements(text, order)]
        said.update(true for _, true in found)
        false.update(which for which, true in found if true is False)
        if scores is not None:
            read += 1
            as_said = follows(comparison, text, scores)
            follow[as_said] += 1
            sound += bool(found) and as_said is True and all(true for _, true in found)
            first += scores[order[0]] == max(scores)
    names = {True: "true", False: "false", None: "unknown"}
    return {
        "verdicts": number,
        "read": read,
        "sound": sound,
        "statements": {names[key]: said[key] for key in names},
        "scores follow": {names[key]: follow[key] for key in names},
        "the first shown is best": first,
        "most often false": dict(false.most_common(MOST)),
    }


def _comparison(record: Mapping[str, Any]) -> Comparison:
    turns = record.get("conversation") or [Turn("user", record["query"])]
    return Comparison(conversation=turns, responses=record["responses"], scores=record["scores"], id=record["id"])


def read(verdicts: str, problems: str) -> Iterator[tuple[Comparison, Sequence[int], str, Sequence[float] | None]]:
    """Every verdict whose text was kept, of an evaluation or of a step of RL."""
    known = {record["id"]: _comparison(record) for _, record in read_jsonl(problems)}
    for line, record in read_jsonl(verdicts):
        if record["id"] not in known:
            raise InputError(f"{verdicts}:{line}: no comparison {record['id']!r} in {problems}")
        if "texts" in record:
            samples = [(record["order"], text, s) for text, s in zip(record["texts"], record["scores"], strict=True)]
        else:
            samples = [(sample["order"], sample["text"], sample["scores"]) for sample in record["samples"]]
        yield from ((known[record["id"]], order, text, s) for order, text, s in samples if text)


def main(_) -> None:
    """Counts, and prints."""
    found = count(read(VERDICTS.value, PROBLEMS.value))
    if not found["verdicts"]:
        raise InputError(f"{VERDICTS.value}: no verdict there has its text")
    print(json.dumps(found))


if __name__ == "__main__":
    cli.run(main, FLAGS)
