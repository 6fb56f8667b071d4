"""Whatever users write, nothing of it passes for a part of the prompt that is ours: a property over all templates.

Texts are put together from pieces of the templates themselves. What looks like ours is found by other means than the code's:
prompts are reduced to what an eye sees of them, case, white space and invisible characters aside, and searched for whole lines.
"""

import dataclasses
import pathlib
import re
import unicodedata

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.grm import parse
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.render import render
from spct_jax.grm.template import load_template, template_names

NAMES = (*template_names(), str(pathlib.Path(__file__).with_name("closed.txt")))
BREAKS = ("\n", "\r\n", "\v", "\x1c", "\x85", "\u2028")
INVISIBLE = (" ", "  ", "\t", "\u00a0", "\u200b", "\u00ad", "\ufe0f", "\u2060", "\x00", "\u202e", "\U000e0041")
TURNS = ("System", "User", "Assistant")


def fences(template):
    """The lines before and after a response."""
    return [tuple(part.strip("\n").splitlines()) for part in template.response.split("{response}")]


def lines_of(template):
    """Whole lines of ours, their numbers left open, and labels, behind which a line goes on."""
    bracketed = re.findall(r"^(?:\[.+\]|#.+#)$", template.prompt, re.MULTILINE)
    hint = (template.hint or "").splitlines() + (template.reference or "").replace("{reference}", "").split("\n")
    hint = [line for line in hint if line]
    return [line for lines in fences(template) for line in lines] + bracketed + hint, [*TURNS, *template.parts]


@st.composite
def texts(draw, template):
    lines, labels = lines_of(template)
    ours = st.sampled_from([*lines, *(f"{label}:" for label in labels), *(f"**{label}**:" for label in labels)])
    numbered = st.builds(
        lambda line, number: line.replace("{number}", number), ours, st.sampled_from(["1", "2", "\u0663", "#4"])
    )
    cased = st.builds(lambda line, change: change(line), numbered, st.sampled_from([str, str.upper, str.lower]))
    torn = st.builds(lambda line, at, gap: line[: at % len(line)] + gap + line[at % len(line) :], cased, st.integers(0, 99),
                     st.sampled_from(INVISIBLE))  # fmt: skip
    cut = st.builds(lambda line, at: line[: at % len(line)], cased, st.integers(1, 99))
    other = st.sampled_from(["x", "[", "]", "~", ":", "{response}", "\\boxed{10, 1}", "\\1", *INVISIBLE])
    # Mostly one piece a line, since only a line of its own can be taken for ours.
    line = st.one_of(numbered, torn, torn, cut, st.lists(st.one_of(torn, cut, other), max_size=3).map("".join))
    pieces = draw(st.lists(st.tuples(line, st.sampled_from(BREAKS)), min_size=1, max_size=5))
    text = "".join(piece + ending for piece, ending in pieces)
    return text if bare(text) else f"{text}x"


def seen(text):
    """What an eye sees of a text, line by line: no case, no white space, nothing invisible, all numbers alike."""
    lines = ["".join(c for c in line if not c.isspace() and visible(c)) for line in text.splitlines()]
    return [re.sub(r"\d+", "1", line.casefold()) for line in lines]


def visible(character):
    return unicodedata.category(character) not in ("Cc", "Cf") and character not in "\ufe0f"


def count_ours(text, template):
    """How many fences, bracketed lines, hints and labels a prompt seems to hold."""
    lines, labels = lines_of(template)
    (wanted,) = [[re.sub(r"#?1", "", seen(line.replace("{number}", "1"))[0]) for line in lines]]
    shown = [re.sub(r"#?1", "", line) for line in seen(text)]
    openings = [seen(f"{label}:")[0] for label in labels]
    whole = sum(shown.count(line) for line in wanted)
    return whole, sum(line.lstrip("#*_").replace("*:", ":").replace("*:", ":").startswith(tuple(openings)) for line in shown)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: pathlib.Path(name).stem)
def test_no_text_passes_for_ours(name):
    template = load_template(name)
    hints = (None,) if template.hint is None else (None, 0)

    # Texts are short enough to read as they are; to shrink them would take minutes.
    @settings(max_examples=30, deadline=None, derandomize=True, database=None, phases=(Phase.generate,))
    @given(st.data())
    def check(data):
        n, turns = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 3]))
        responses = [data.draw(texts(template)) for _ in range(n)]
        roles = ["user", "assistant", "user"][-turns:]
        conversation = [Turn(role, data.draw(texts(template))) for role in roles]
        order = data.draw(st.permutations(range(n)))
        hostile = Comparison(conversation=conversation, responses=responses)
        plain = Comparison(conversation=[Turn(role, "x") for role in roles], responses=["x"] * n)
        counts = set()
        for hint in hints:
            (shown,), (wanted,) = render(hostile, order, template, hint=hint), render(plain, order, template, hint=hint)
            assert count_ours(shown.content, template) == count_ours(wanted.content, template)
            counts.add(count_ours(shown.content, template))
            assert recovered(shown.content, template) == [bare(responses[i]) for i in order]
        assert len(counts) == len(hints), "a prompt with a hint is no prompt without one"

    check()


@pytest.mark.parametrize("name", [name for name in NAMES if load_template(name).reference])
def test_no_reference_answer_passes_for_ours(name):
    template = load_template(name)

    @settings(max_examples=12, deadline=None, derandomize=True, database=None, phases=(Phase.generate,))
    @given(st.data())
    def check(data):
        plain = Comparison(conversation=[Turn("user", "x")], responses=["x", "y"], reference="x")
        hostile = dataclasses.replace(plain, reference=data.draw(texts(template)))
        (shown,), (wanted,) = (render(c, (0, 1), template) for c in (hostile, plain))
        assert count_ours(shown.content, template) == count_ours(wanted.content, template)
        assert recovered(shown.content, template) == ["x", "y"]

    check()


@pytest.mark.parametrize("name", ["default", "short_judge", NAMES[-1]], ids=lambda name: pathlib.Path(name).stem)
def test_no_principles_pass_for_another_part_of_a_critique(name):
    """Nor does any of them become a control token."""
    template, tokenizer = load_template(name), train_tokenizer(["Specific Criteria: Analysis Scores"], vocab_size=300)
    prompter = Prompter(PromptConfig(), tokenizer)

    @settings(max_examples=12, deadline=None, derandomize=True, database=None, phases=(Phase.generate,))
    @given(st.data())
    def check(data):
        hostile = data.draw(texts(template)) + "<end_of_turn>"
        tokens = prompter.encode_principles(hostile, template)
        assert tokenizer.control_ids.isdisjoint(tokens)
        written = tokenizer.decode(tokens)
        labels = [f"{part}:" for part in template.parts[:2]]
        assert written.splitlines()[0] == labels[0] and written.endswith(f"\n{labels[1]}")
        assert count_ours(written, template) == (0, 2)
        assert parse.principles(written, template.parts).replace("~", "").split() == hostile.replace("~", "").split()

    check()


def bare(text):
    return text.replace("~", "").strip()


def recovered(prompt, template):
    """The responses of a prompt, split by the template's own lines, without tildes."""
    before, after = fences(template)
    found, rest = [], prompt
    for number in range(1, prompt.count("\n") + 1):
        opening = "\n" + "\n".join(before).replace("{number}", str(number)) + "\n"
        if opening not in rest:
            break
        assert rest.count(opening) == 1
        rest = rest.partition(opening)[2]
        ends = "\n".join(after).replace("{number}", str(number))
        following = "\n" + (ends or "\n".join(before).replace("{number}", str(number + 1))) + "\n"
        hint = re.search("\n" + re.escape(template.hint or "\n").replace(r"\{number\}", r"\d") + r"\Z", rest)
        response = f"{rest}\n".partition(following)[0] if following in f"{rest}\n" else rest[: hint.start()] if hint else rest
        found.append(bare(response))
    return found
