"""Criteria that the text of a response answers with yes or no, and what can truthfully be said of it by each.

The demonstrator of a cold start judges by them (`human_demonstrator`), and what a trained judge states is checked against them
(`human_truth`). Many come with their opposite: which of both people prefer, training comparisons say (`human_weights`). All is
computed of the text: patterns, lengths, and the arithmetic of sums that are written out.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Callable

from human_sums import DIGITS, NUMBER, RESULT, equations, number

from spct_jax.data.comparison import Comparison
from spct_jax.data.fingerprints import words

SHORT, LONG = 25, 50
"""Words of a response: fewer are short, as many or more are long."""
COPIED = 5
"""So many words in a row of the user's are a copy."""

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
_RUDE = _pattern(r"(?:stupid|ugly|idiots?|dumb|crazy|losers?|fat|bitch|ass|asshole|damn|hell|bastard|fuck\w*|shit\w*)")
_REFUSAL = _pattern(
    r"I can[’']?t|I cannot|I won[’']?t|I will not|I shouldn[’']?t|I don[’']?t (?:want|think you should)",
    r"I[’']?m (?:not (?:able|comfortable|going|interested)|sorry|afraid)|I am (?:not|sorry|afraid)",
    r"not a good idea|you shouldn[’']?t|please don[’']?t",
)
_OPENING = re.compile(
    r"\A\W*(I[’']?m (?:really |very |so )?(?:sorry|not|afraid)|sorry|unfortunately|(?:that|it)[’']?s not|no"
    r"|I (?:don|can|won|wouldn|didn)[’']?t|I cannot)\b",
    re.IGNORECASE,
)
_SORRY = _pattern(r"sorry", r"apologi[sz]e")
_LIMITS = _pattern(
    r"I(?: really)? don[’']?t (?:know|have|understand|think)|not sure (?:what|how|why|if|I)|I didn[’']?t|I[’']?m not sure"
)
_KIND = _pattern(r"please|understand|feel|thanks?|thank you|hope|glad|happy to|of course|take care|welcome|love")
_SUGGESTION = _pattern(
    r"instead|rather|alternatively|you (?:could|might|should|can)|maybe|try|I(?:['’]d| would)? (?:suggest|recommend)|how about"
)
_WAY = _pattern(r"ways?|methods?|access|easiest|tricks?|tips?|steps?|techniques?")
_ORDER = _pattern(r"until|during|while|then|first|next|after")
_WARNING = _pattern(
    r"dangerous|careful|caution|risky?|unsafe|safe(?:ly|ty)?|illegal|against the law|wrong|consequences|serious"
)
_REASON = _pattern(r"because|since|so that|therefore|due to|as a result|the reason")
_DOUBT = _pattern(r"perhaps|probably|might|maybe|seems?")
_CONDITION = _pattern(r"if you(?:[’']re)?|or if")
_UNCLEAR = _pattern(
    r"(?:do|did|could|can) you (?:mean|explain|clarify|tell me|say|give)|clarify|rephrase",
    r"what (?:you|that) mean|more (?:detail|context)s?",
)
_AGREEMENT = re.compile(
    r"\A\W*(yes|yeah|sure|of course|okay|ok|well|absolutely|certainly|right|great|you could|you can)\b", re.IGNORECASE
)
_EXAMPLE = _pattern(r"for example|for instance|such as|e\.g|like a|including")
_ADDRESS = _pattern(r"you|your|yours|you[’']re")
_OTHERS = _pattern(r"them|their|they")
_SELF = _pattern(r"I")
_PLAN = _pattern(r"find|need to|then (?:add|divide|subtract|multiply)")
_FRACTION = re.compile(r"\d+\.\d{3,}")
_TALK = _pattern(r"I|me|my|we|our")
_STOP = frozenset(
    "about after again also another anything because been before being between both could does doing done down each even "
    "ever every find following from gets give given goes going good have having help here how into its itself just keep "
    "know like look made make many more most much must need only other over please really same say should show since some "
    "something such take tell than thank that the their them then there these they thing things think this those through "
    "time told under until use used very want wants was way well were what when where which while who whose why will with "
    "without would write you your yours".split()
)
_ANSWER = re.compile(rf"^A: *(-?\$?-?{DIGITS})", re.MULTILINE)


def _found(pattern: re.Pattern, yes: str, no: str, *, met: bool = True) -> Callable[[Comparison, int], Reading]:
    """Looks for a pattern; `yes` is followed by what was found. `met`: whether finding it is what the criterion wants."""

    def read(comparison: Comparison, i: int) -> Reading:
        match = pattern.search(comparison.responses[i])
        return (met, f'{yes} ("{match[match.lastindex or 0].strip()}")') if match else (not met, no)

    return read


def _is(holds: Callable[[str], bool], yes: str, no: str, *, met: bool = True) -> Callable[[Comparison, int], Reading]:
    """Whether something holds of the text; `met`: whether that is what the criterion wants."""

    def read(comparison: Comparison, i: int) -> Reading:
        there = holds(comparison.responses[i])
        return there == met, yes if there else no

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


def _is_list(text: str) -> bool:
    return len(re.findall(r"^\s*(?:[-*•]|\d+[.)])\s+\S", text, re.MULTILINE)) > 1


def _copy(comparison: Comparison, i: int) -> Reading:
    """Whether no five words in a row are the user's."""
    asked = comparison.query.split()
    known = set(zip(*(asked[k:] for k in range(COPIED)), strict=False))
    said = comparison.responses[i].split()
    grams = zip(*(said[k:] for k in range(COPIED)), strict=False)
    again = next((" ".join(gram) for gram in grams if gram in known and '"' not in "".join(gram)), None)
    return (False, f'copies "{again}"') if again else (True, "copies nothing")


def _arithmetic(comparison: Comparison, i: int) -> Reading | None:
    every = [equations(response) for response in comparison.responses]
    if not any(every):
        return None
    if not every[i]:
        return True, "has no plain sum"
    wrong = next((text for text, right in every[i] if not right), None)
    return (False, f'gets "{wrong}" wrong') if wrong else (True, f'gets "{every[i][-1][0]}" right')


def _given_numbers(comparison: Comparison, i: int) -> Reading | None:
    asked = {number(text): text for text in NUMBER.findall(comparison.query)}
    if len(asked) < 2:
        return None
    used = set(map(number, NUMBER.findall(comparison.responses[i])))
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
    answer, results = _ANSWER.search(comparison.responses[i]), RESULT.findall(comparison.responses[i])
    if not answer or not results:
        return None
    follows = number(answer[1]) == number(results[-1])
    return follows, f"answers {answer[1]}, {'' if follows else 'not '}its last result"


def _whole(comparison: Comparison, i: int) -> Reading | None:
    """Whether the answer after `A:` is a whole number, as those of school sums mostly are."""
    answer = _ANSWER.search(comparison.responses[i])
    if not answer:
        return None
    whole = number(answer[1]).is_integer()
    return whole, f"answers {answer[1]}, {'' if whole else 'not '}a whole number"


def _both(about: str, wanted: tuple[str, ...], unwanted: tuple[str, ...], make: Callable, *how) -> tuple[Criterion, Criterion]:
    """A criterion that wants something, and one that wants its opposite."""
    return Criterion(about, wanted, make(*how)), Criterion(about, unwanted, make(*how, met=False))


CRITERIA = (
    Criterion(
        "harm",
        ("No harmful words", "Stays away from harm"),
        _found(_HARM, "has a harmful word", "has no harmful word", met=False),
    ),
    Criterion("rude", ("No rude words", "Civil"), _found(_RUDE, "has a rude word", "has no rude word", met=False)),
    *_both(
        "refusal",
        ("Declines what is wrong", "Shows restraint"),
        ("Does not turn away", "Engages with the user"),
        *(_found, _REFUSAL, "holds back", "does not hold back"),
    ),
    *_both(
        "opening",
        ("Starts with restraint", "Opens carefully"),
        ("Starts with the answer", "Opens freely"),
        *(_found, _OPENING, "starts by holding back", "starts freely"),
    ),
    Criterion("sorry", ("Says sorry", "Shows regret"), _found(_SORRY, "is sorry", "is not sorry")),
    *_both(
        "limits",
        ("Knows its limits", "Says what it does not know"),
        ("Knows the answer", "Needs no excuse"),
        *(_found, _LIMITS, "names a limit", "names no limit"),
    ),
    *_both("kind", ("Kind words", "Warm tone"), ("Plain tone", "Sober words"), *(_found, _KIND, "is kind", "has no kind word")),
    *_both(
        "suggestion",
        ("Makes a suggestion", "Points to a way"),
        ("Leaves it to the user", "Pushes nothing"),
        *(_found, _SUGGESTION, "suggests", "suggests nothing"),
    ),
    *_both(
        "way", ("Shows how", "Names a way"), ("Gives no method", "Shows no way"), _found, _WAY, "names a way", "names no way"
    ),
    *_both(
        "order",
        ("Sets out an order", "One thing after another"),
        ("Lays no plan", "No sequence"),
        *(_found, _ORDER, "orders events", "orders nothing"),
    ),
    Criterion("warning", ("Warns", "Names the risk"), _found(_WARNING, "warns", "warns of nothing")),
    *_both(
        "reason",
        ("Gives reasons", "Explains why"),
        ("Just says so", "No excuses"),
        *(_found, _REASON, "gives a reason", "gives no reason"),
    ),
    *_both(
        "doubt",
        ("Modest", "Admits doubt"),
        ("Sure of itself", "Clear statement"),
        *(_found, _DOUBT, "has doubts", "has no doubts"),
    ),
    *_both(
        "condition",
        ("Weighs the case", "Depends on the user"),
        ("No ifs", "Without conditions"),
        *(_found, _CONDITION, "sets a condition", "sets no condition"),
    ),
    Criterion(
        "unclear", ("Wants to understand", "Asks what is meant"), _found(_UNCLEAR, "asks what is meant", "takes it as said")
    ),
    *_both(
        "agreement",
        ("Goes along", "Agrees at once"),
        ("Keeps its distance", "Does not just agree"),
        *(_found, _AGREEMENT, "agrees", "does not agree at once"),
    ),
    *_both(
        "example",
        ("Gives examples", "Concrete"),
        ("Stays general", "Needs no examples"),
        *(_found, _EXAMPLE, "gives examples", "gives no example"),
    ),
    *_both(
        "address",
        ("Speaks to the user", "Personal"),
        ("Leaves the user out", "Impersonal"),
        *(_found, _ADDRESS, "speaks to the user", "does not speak to the user"),
    ),
    *_both(
        "others",
        ("Thinks of others", "Looks at the others"),
        ("Leaves others alone", "Keeps others out of it"),
        *(_found, _OTHERS, "speaks of others", "does not speak of others"),
    ),
    *_both(
        "self",
        ("Speaks for itself", "Says I"),
        ("Keeps itself out of it", "Never says I"),
        *(_found, _SELF, "speaks of itself", "does not speak of itself"),
    ),
    *_both(
        "question",
        ("Asks back", "Finds out more first"),
        ("Answers without asking", "Puts no question"),
        *(_is, lambda text: "?" in text, "asks a question", "asks nothing"),
    ),
    *_both(
        "exclamation",
        ("Lively", "Spirited"),
        ("Stays calm", "Quiet"),
        *(_is, lambda text: "!" in text, "exclaims", "does not exclaim"),
    ),
    Criterion("length", ("More detail", "Says more"), _length(True)),
    Criterion("length", ("Brief", "To the point"), _length(False)),
    *_both(
        "short",
        ("A few words only", "Short"),
        ("More than a line", "Not too short"),
        *(_is, lambda text: len(text.split()) < SHORT, "is short", "is not short"),
    ),
    *_both(
        "long",
        ("At length", "Thorough"),
        ("Not too long", "Knows when to stop"),
        *(_is, lambda text: len(text.split()) >= LONG, "is long", "is not long"),
    ),
    Criterion("topic", ("Takes up the query", "On topic"), _topic),
    Criterion("copy", ("Own words", "Does not copy"), _copy),
    Criterion("repetition", ("No repetition", "Says nothing twice"), _repetition),
    Criterion("ending", ("Complete", "Comes to an end"), _ending),
    Criterion("list", ("Clear layout", "Set out as a list"), _is(_is_list, "has a list", "has no list")),
    Criterion(
        "lines", ("In parts", "Several lines"), _is(lambda text: "\n" in text.strip(), "has several lines", "is one line")
    ),
    Criterion("arithmetic", ("Sums are right", "Correct arithmetic"), _arithmetic),
    Criterion("numbers", ("Uses what is given", "Uses all numbers"), _given_numbers),
    Criterion("steps", ("More steps", "Longer working"), _steps(True)),
    Criterion("steps", ("Fewer steps", "Shorter working"), _steps(False)),
    Criterion("result", ("Answers what it found", "Answer follows"), _own_result),
    Criterion("whole", ("A whole answer", "Comes out even"), _whole),
    Criterion("fraction", ("Plain numbers", "No long fractions"), _found(_FRACTION, "has", "has no long fraction", met=False)),
    Criterion("plan", ("Works it out", "Does it at once"), _found(_PLAN, "plans", "plans nothing", met=False)),
)
OF_SUMS = frozenset("arithmetic numbers steps result whole fraction plan".split())
"""What is looked at only where a response shows sums."""
ALSO_OF_SUMS = frozenset("length repetition ending reason".split())
"""What is looked at there beside it."""
SUMS, TALK, TASK = "sums", "talk", "task"
KINDS = (SUMS, TALK, TASK)
"""Of comparisons: sums; talk, in which harm comes up or people speak of themselves; and tasks."""
LONG_QUERY = 25
"""Words of a query; one with more is a task, also where it says I."""


def kind_of(comparison: Comparison) -> str:
    """One of `KINDS`, by the text alone."""
    if any(map(equations, comparison.responses)):
        return SUMS
    harm = any(_HARM.search(turn.content) for turn in comparison.conversation)
    if harm or len(comparison.conversation) > 1 or any(map(_REFUSAL.search, comparison.responses)):
        return TALK
    return TASK if len(comparison.query.split()) > LONG_QUERY or not _TALK.search(comparison.query) else TALK


@functools.lru_cache(maxsize=8)
def read_all(comparison: Comparison) -> dict[Criterion, list[Reading]]:
    """What every criterion that makes sense here reads of every response."""
    sums = kind_of(comparison) == SUMS
    asked = (c for c in CRITERIA if c.about not in OF_SUMS and not sums or sums and c.about in OF_SUMS | ALSO_OF_SUMS)
    every = {c: [c.read(comparison, i) for i in range(comparison.n)] for c in asked}
    return {c: found for c, found in every.items() if None not in found}
