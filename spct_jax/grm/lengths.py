"""The length of the longest prompt over all orders of its responses, found from few of them.

Where no piece of the tokenizer contains two adjacent characters, the texts before and after that *gap* are tokenised
independently. All templates of the package have such a gap on both sides of every response, so a prompt has the same number of
tokens in every order. The one exception: white space at the end of a prompt is trimmed, and then the length depends on which
response is shown last. A template without such gaps is tried in all orders of up to `MOST_PERMUTED` responses; for more
responses bytes are counted, since no token stands for less than one.
"""

import functools
import itertools
import re
from collections.abc import Callable, Sequence

from spct_jax.data.comparison import Comparison
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.grm.render import render
from spct_jax.grm.template import Template

MOST_PERMUTED = 4
"""Number of responses up to which all orders are tried (24 orders) where a template has no gaps."""
_DIGITS = "0123456789"


def longest(
    comparison: Comparison,
    template: Template,
    tokenizer: Tokenizer,
    count: Callable[[tuple[int, ...]], int],
    *,
    first: Sequence[int] | None = None,
    hinted: bool = False,
    limit: int,
) -> int:
    """Number of tokens of the longest prompt over all orders, or an upper bound; if it exceeds `limit`, any such number.

    Args:
      comparison: n responses.
      template: the template of the prompts.
      tokenizer: their tokenizer.
      count: gives the number of a prompt's tokens in an order.
      first: the order to try first; by default that of the input.
      hinted: whether the prompts name the best response.
      limit: a prompt that must exceed it by its number of characters alone is not tokenised.
    """
    first = tuple(range(comparison.n) if first is None else first)
    hint = comparison.best if hinted else None
    # The prompt has to be looked at, since white space at its end is trimmed.
    if tokenizer.min_tokens(comparison.characters) > limit:
        characters = len(render(comparison, first, template, hint=hint)[0].content)
        if (fewest := tokenizer.min_tokens(characters)) > limit:
            return fewest
    depends = dependence(tokenizer, template, hinted)
    if depends == "any":
        if comparison.n > MOST_PERMUTED:
            return bound(comparison, template, tokenizer, hinted=hinted)
        return max(count(order) for order in itertools.permutations(first))
    most = count(first)
    if depends == "last" and most <= limit and not _end_alike(comparison, template, tokenizer):
        most = max([most, *(count(_with_last(first, i)) for i in first[:-1])])
    return most + (_hint_spread(tokenizer, template, comparison.n) if hinted else 0)


def bound(comparison: Comparison, template: Template, tokenizer: Tokenizer, *, hinted: bool = False) -> int:
    """An upper bound on the tokens of the prompts in all orders, without tokenising: no token stands for less than a byte."""
    hint = comparison.best if hinted else None
    (turn,) = render(comparison, range(comparison.n), template, hint=hint)
    trimmed = max(len(response) - len(response.rstrip()) for response in comparison.responses)  # if it is shown last
    return tokenizer.max_tokens(turn.content) + len(str(comparison.n)) + 4 * trimmed


def dependence(tokenizer: Tokenizer, template: Template, hinted: bool) -> str:
    """What a prompt's length depends on besides its texts: `none`, which response is `last`, or `any` property of the order.

    The digits of the position that a hint names are not considered; `longest` allows for them.
    """
    return _dependence(tokenizer, template.response, template.hint if hinted else None)


@functools.lru_cache(maxsize=256)
def _dependence(tokenizer: Tokenizer, response: str, hint: str | None) -> str:
    parts = re.split(r"(\{number\}|\{response\})", response)
    at = parts.index("{response}")
    left, right = parts[at - 1], parts[at + 1]
    numbered = at + 2 < len(parts)

    def gap(*sets: str) -> bool:
        pairs = itertools.pairwise(filter(None, sets))
        return any(all(tokenizer.separates(a, b) for a in one for b in other) for one, other in pairs)

    told = [] if hint is None else re.split(r"\{number\}", hint)
    if any(not gap(_DIGITS * (i > 0), *text, _DIGITS * (i < len(told) - 1)) for i, text in enumerate(told)):
        return "any"
    if not (gap(_DIGITS, *left) if at > 1 else left.strip() and gap(*left)):
        return "any"
    if gap(*right, _DIGITS) if numbered else right.strip() and gap(*right):
        return "none"
    return (
        "last"
        if not numbered and not tokenizer.spells_markers and gap(*right, "\n", *parts[0], *([_DIGITS] * (at > 1)))
        else "any"
    )


def _end_alike(comparison: Comparison, template: Template, tokenizer: Tokenizer) -> bool:
    """Whether it makes no difference to any response if it is followed by the next one, in a new line, or by nothing."""
    ends = {response[-1] for response in comparison.responses}
    followed = not template.response.endswith("{response}")
    return not followed and all(c.isprintable() and c.strip() and tokenizer.separates(c, "\n") for c in ends)


def _with_last(order: tuple[int, ...], response: int) -> tuple[int, ...]:
    return (*(i for i in order if i != response), response)


@functools.lru_cache(maxsize=256)
def _hint_spread(tokenizer: Tokenizer, template: Template, n: int) -> int:
    lengths = [len(tokenizer.encode(template.hint.replace("{number}", str(position)))) for position in range(1, n + 1)]
    return max(lengths) - min(lengths)
