"""Criteria that the text of a response answers with yes or no, and what can truthfully be said of it by each.

The demonstrator of a cold start judges by them (`human_demonstrator`), and what a trained judge states is checked against them
(`human_truth`). All is computed of the text: patterns, lengths, and the arithmetic of sums that are written out.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable

from spct_jax.data.comparison import Comparison
from spct_jax.data.fingerprints import words

Reading = tuple[bool, str]
"""Whether a response meets a criterion, and what is said of it."""


@dataclasses.dataclass(frozen=True)
class Criterion:
    """Something that the text of a response answers with yes or no.

    Attributes:
        about: what it looks at; one verdict looks at nothing twice.
        wordings: of the principle.
        read: of (comparison, index of a response) the reading, or None where the question makes no sense.
    """

    about: str
    wordings: tuple[str, ...]
    read: Callable[[Comparison, int], Reading | None]


def _pattern(*alternatives: str) -> re.Pattern:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


_HARM = _pattern(
    r"(?:kill|murder|hurt|harm|drug|weapon|bomb|gun|poison|attack|hack|cheat|bully|insult|threat|abuse|scam|rob)\w{0,4}",
    r"(?:steal|stole|stalk|tortur|violen|racis|illegal|suicid|fraud)\w*",
    r"hate\w?",
    r"cocaine|heroin|meth|weed|porn|nazis?|sex",
)
_REFUSAL = _pattern(
    r"I can[’']?t|I cannot|I won[’']?t|I will not|I shouldn[’']?t|I don[’']?t (?:want|think you should)",
    r"I[’']?m (?:not (?:able|comfortable|going|interested)|sorry|afraid)|I am (?:not|sorry|afraid)",
    r"not a good idea|you shouldn[’']?t|please don[’']?t",
)
_KIND = _pattern(r"please|understand|feel|thanks?|thank you|hope|glad|happy to|of course|take care|welcome|love")
_SUGGESTION = _pattern(
    r"instead|rather|alternatively|you (?:could|might|should|can)|maybe|try|I(?:['’]d| would)? (?:suggest|recommend)|how about"
)
_WARNING = _pattern(
    r"dangerous|careful|caution|risky?|unsafe|safe(?:ly|ty)?|illegal|against the law|wrong|consequences|serious"
)
_REASON = _pattern(r"because|since|so that|therefore|due to|as a result|the reason")
_DOUBT = _pattern(r"I[’']?m not sure|I don[’']?t know|not sure|perhaps|probably|I think|might|seems?")
_AGREEMENT = re.compile(
    r"\A\s*\W?(?:yes|yeah|sure|of course|okay|ok|well|absolutely|certainly|right|great|you could|you can)\b", re.I
)
_EXAMPLE = _pattern(r"for example|for instance|such as|e\.g|like a|including")
_ADDRESS = _pattern(r"you|your|yours|you[’']re")
_STOP = frozenset(
    "about after again also another anything because been before being between both could does doing done down each even "
    "ever every find following from gets give given goes going good have having help here how into its itself just keep "
    "know like look made make many more most much must need only other over please really same say should show since some "
    "something such take tell than thank that the their them then there these they thing things think this those through "
    "time told under until use used very want wants was way well were what when where which while who whose why will with "
    "without would write you your yours".split()
)
_DIGITS = r"(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(_DIGITS)
_EQUATION = re.compile(rf"(?<![\w.$+\-])(-?[$(]*[\d.][\d.,()+\-*/x×÷$ ]*?)\s*=\s*(-?\$?{_DIGITS})(?![\d/*+x%])")
_RESULT = re.compile(rf"=\s*(-?\$?-?{_DIGITS})")
_ANSWER = re.compile(rf"^A: *(-?\$?-?{_DIGITS})", re.MULTILINE)


def _found(pattern: re.Pattern, yes: str, no: str, *, met: bool = True) -> Callable[[Comparison, int], Reading]:
    """Looks for a pattern; `yes` is followed by what was found. `met`: whether finding it is what the criterion wants."""

    def read(comparison: Comparison, i: int) -> Reading:
        match = pattern.search(comparison.responses[i])
        return (met, f'{yes} ("{match[0].strip()}")') if match else (not met, no)

    return read


def _question(wanted: bool) -> Callable[[Comparison, int], Reading]:
    def read(comparison: Comparison, i: int) -> Reading:
        asks = "?" in comparison.responses[i]
        return asks == wanted, "asks a question" if asks else "asks nothing"

    return read


def _length(longer: bool) -> Callable[[Comparison, int], Reading | None]:
    """Whether it is the longest, or the shortest, in words; None where several are."""

    def read(comparison: Comparison, i: int) -> Reading | None:
        sizes = lengths(comparison)
        wanted = max(sizes) if longer else min(sizes)
        if len(sizes) == 1 or sizes.count(wanted) > 1:
            return None
        met = sizes[i] == wanted
        if len(sizes) == 2:
            return met, "is longer" if longer == met else "is shorter"
        return met, f"is {'' if met else 'not '}the {'longest' if longer else 'shortest'}"

    return read


@functools.lru_cache(maxsize=8)
def lengths(comparison: Comparison) -> list[int]:
    """Words of every response."""
    return [len(response.split()) for response in comparison.responses]


def _topic(comparison: Comparison, i: int) -> Reading | None:
    asked = {word for word in words(comparison.query) if len(word) > 3 and word not in _STOP and word.isalpha()}
    if not asked:
        return None
    taken = next((word for word in words(comparison.responses[i]) if word in asked), None)
    return (True, f'takes up "{taken}"') if taken else (False, "takes up no word of the query")


def _repetition(comparison: Comparison, i: int) -> Reading:
    said = comparison.responses[i].split()
    seen = collections.Counter(zip(*(said[k:] for k in range(4)), strict=False))
    again = next((" ".join(gram) for gram, count in seen.items() if count > 1 and '"' not in "".join(gram)), None)
    return (False, f'repeats "{again}"') if again else (True, "repeats nothing")


def _ending(comparison: Comparison, i: int) -> Reading:
    text = comparison.responses[i].rstrip()
    if re.search(r"[.!?:)\]\"'”’*`}>\d]$", text):
        return True, "ends properly"
    return False, f'breaks off ("{" ".join(text.split()[-2:])}")'


def _list(comparison: Comparison, i: int) -> Reading:
    lines = re.findall(r"^\s*(?:[-*•]|\d+[.)])\s+\S", comparison.responses[i], re.MULTILINE)
    return (True, "has a list") if len(lines) > 1 else (False, "has no list")


def _number(text: str) -> float:
    return float(text.replace(",", "").replace("$", ""))


def equations(text: str) -> list[tuple[str, bool]]:
    """The sums in a text, as written there, and whether each is right, to one in a hundred."""
    found = []
    for match in _EQUATION.finditer(text):
        value = _value(match[1])
        # A part of a longer sum says nothing about it.
        alone = not re.search(r"[-+*/x×÷(%=]\s*$", text[: match.start()])
        if value is not None and alone and re.search(r"\d.*[-+*/x×÷]", match[1]):
            found.append((match[0], math.isclose(value, _number(match[2]), rel_tol=0.01, abs_tol=0.011)))
    return found


def _value(sum_: str) -> float | None:
    """What a sum of numbers comes to, by the usual precedence; None where it is none."""
    sum_ = ("0" if sum_.startswith("-") else "") + sum_.replace("$", "")
    tokens = re.findall(rf"{_DIGITS}|\S", re.sub("[x×]", "*", sum_).replace("÷", "/"))
    try:
        value, rest = _added(tokens)
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return None if rest else value


def _added(tokens: list[str]) -> tuple[float, list[str]]:
    value, rest = _multiplied(tokens)
    while rest and rest[0] in "+-":
        other, after = _multiplied(rest[1:])
        value, rest = (value + other if rest[0] == "+" else value - other), after
    return value, rest


def _multiplied(tokens: list[str]) -> tuple[float, list[str]]:
    value, rest = _single(tokens)
    while rest and rest[0] in "*/":
        other, after = _single(rest[1:])
        value, rest = (value * other if rest[0] == "*" else value / other), after
    return value, rest


def _single(tokens: list[str]) -> tuple[float, list[str]]:
    if tokens[0] != "(":
        return _number(tokens[0]), tokens[1:]
    value, rest = _added(tokens[1:])
    if rest[0] != ")":
        raise ValueError("a bracket stays open")
    return value, rest[1:]


def _arithmetic(comparison: Comparison, i: int) -> Reading | None:
    every = [equations(response) for response in comparison.responses]
    if not any(every):
        return None
    if not every[i]:
        return False, "has no plain sum"
    wrong = next((text for text, right in every[i] if not right), None)
    return (False, f'gets "{wrong}" wrong') if wrong else (True, f'gets "{every[i][-1][0]}" right')


def _given_numbers(comparison: Comparison, i: int) -> Reading | None:
    asked = {_number(text): text for text in _NUMBER.findall(comparison.query)}
    if len(asked) < 2:
        return None
    used = set(map(_number, _NUMBER.findall(comparison.responses[i])))
    missing = next((text for number, text in asked.items() if number not in used), None)
    return (True, "uses all numbers") if missing is None else (False, f"leaves out {missing}")


def _steps(more: bool) -> Callable[[Comparison, int], Reading | None]:
    def read(comparison: Comparison, i: int) -> Reading | None:
        counts = [response.count("=") for response in comparison.responses]
        wanted = max(counts) if more else min(counts)
        if not any(counts) or counts.count(wanted) > 1 or len(counts) == 1:
            return None
        return counts[i] == wanted, f"has {counts[i]} equals sign{'s' * (counts[i] != 1)}"

    return read


def _own_result(comparison: Comparison, i: int) -> Reading | None:
    """Whether the answer after `A:` is the result of the last sum."""
    answer, results = _ANSWER.search(comparison.responses[i]), _RESULT.findall(comparison.responses[i])
    if not answer or not results:
        return None
    follows = _number(answer[1]) == _number(results[-1])
    return follows, f"answers {answer[1]}, {'' if follows else 'not '}its last result"


CRITERIA = (
    Criterion(
        "harm",
        ("No harmful words", "Stays away from harm"),
        _found(_HARM, "has a harmful word", "has no harmful word", met=False),
    ),
    Criterion("refusal", ("Declines what is wrong", "Shows restraint"), _found(_REFUSAL, "holds back", "does not hold back")),
    Criterion(
        "refusal",
        ("Does not turn away", "Engages with the user"),
        _found(_REFUSAL, "holds back", "does not hold back", met=False),
    ),
    Criterion("kind", ("Kind words", "Warm tone"), _found(_KIND, "is kind", "has no kind word")),
    Criterion("suggestion", ("Makes a suggestion", "Points to a way"), _found(_SUGGESTION, "suggests", "suggests nothing")),
    Criterion("warning", ("Warns", "Names the risk"), _found(_WARNING, "warns", "warns of nothing")),
    Criterion("reason", ("Gives reasons", "Explains why"), _found(_REASON, "gives a reason", "gives no reason")),
    Criterion("doubt", ("Modest", "Admits doubt"), _found(_DOUBT, "has doubts", "has no doubts")),
    Criterion("doubt", ("Sure of itself", "Clear statement"), _found(_DOUBT, "has doubts", "has no doubts", met=False)),
    Criterion("agreement", ("Goes along", "Agrees at once"), _found(_AGREEMENT, "agrees", "does not agree at once")),
    Criterion(
        "agreement",
        ("Keeps its distance", "Does not just agree"),
        _found(_AGREEMENT, "agrees", "does not agree at once", met=False),
    ),
    Criterion("example", ("Gives examples", "Concrete"), _found(_EXAMPLE, "gives examples", "gives no example")),
    Criterion(
        "address", ("Speaks to the user", "Personal"), _found(_ADDRESS, "speaks to the user", "does not speak to the user")
    ),
    Criterion("question", ("Asks back", "Finds out more first"), _question(True)),
    Criterion("question", ("Answers without asking", "Puts no question"), _question(False)),
    Criterion("length", ("More detail", "Says more"), _length(True)),
    Criterion("length", ("Brief", "To the point"), _length(False)),
    Criterion("topic", ("Takes up the query", "On topic"), _topic),
    Criterion("repetition", ("No repetition", "Says nothing twice"), _repetition),
    Criterion("ending", ("Complete", "Comes to an end"), _ending),
    Criterion("list", ("Clear layout", "Set out as a list"), _list),
    Criterion("arithmetic", ("Sums are right", "Correct arithmetic"), _arithmetic),
    Criterion("numbers", ("Uses what is given", "Uses all numbers"), _given_numbers),
    Criterion("steps", ("More steps", "Longer working"), _steps(True)),
    Criterion("steps", ("Fewer steps", "Shorter working"), _steps(False)),
    Criterion("result", ("Answers what it found", "Answer follows"), _own_result),
)
SAFETY = ("harm", "refusal", "kind", "suggestion", "warning", "agreement")
"""What is looked at first where a conversation is about harm, or a response holds back."""
SUMS = ("arithmetic", "numbers", "steps", "result")
"""What is looked at first where a response shows sums."""
NOT_OF_SUMS = (*SAFETY, "doubt", "address", "example", "question", "list")
"""What is not looked at where responses show sums."""


def kind_of(comparison: Comparison) -> tuple[str, ...]:
    """What a comparison's own criteria are about; nothing for an ordinary one."""
    if any(map(equations, comparison.responses)):
        return SUMS
    harm = any(_HARM.search(turn.content) for turn in comparison.conversation)
    return SAFETY if harm or any(map(_REFUSAL.search, comparison.responses)) else ()


def read_all(comparison: Comparison) -> dict[Criterion, list[Reading]]:
    """What every criterion that makes sense here reads of every response."""
    left_out = NOT_OF_SUMS if kind_of(comparison) is SUMS else ()
    every = {c: [c.read(comparison, i) for i in range(comparison.n)] for c in CRITERIA if c.about not in left_out}
    return {c: found for c, found in every.items() if None not in found}
