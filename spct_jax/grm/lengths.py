"""How long a prompt can be over all orders of its responses, found from few of them.

Text on either side of two characters that no piece of the tokenizer holds together is cut into pieces by itself. Where the
template's own words hold such a gap on both sides of every response, as all that come with the package do, a prompt has as many
tokens in one order as in another, except that white space at its end is trimmed: then the length depends on which response is
shown last. A template without such gaps is tried in all orders of up to `MOST_PERMUTED` responses; beyond, bytes are counted,
since no token stands for less than one.
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
"""Responses whose orders are all tried where nothing is known of a template: 24 of them."""
_DIGITS = "0123456789"


def longest(
    comparison: Comparison,
    template: Template,
    tokenizer: Tokenizer,
    encode: Callable[[tuple[int, ...]], Sequence[int]],
    *,
    first: Sequence[int] | None = None,
    hinted: bool = False,
    limit: int,
) -> int:
    """Tokens of the longest prompt over all orders, or a bound that is no less; above `limit` any number above it.

    Args:
      comparison: n responses.
      template: the wording that `encode` uses.
      tokenizer: and the tokenizer.
      encode: gives the prompt's tokens in an order.
      first: an order to begin with, else that of the input.
      hinted: whether the prompts name the best response.
      limit: what is too long by its characters alone is not tokenised.
    """
    first = tuple(range(comparison.n) if first is None else first)
    hint = comparison.best if hinted else None
    # The prompt has to be looked at, since white space at its end is trimmed.
    if tokenizer.at_least(comparison.characters) > limit:
        characters = len(render(comparison, first, template, hint=hint)[0].content)
        if (least := tokenizer.at_least(characters)) > limit:
            return least
    depends = dependence(tokenizer, template, hinted)
    if depends == "any":
        if comparison.n > MOST_PERMUTED:
            (turn,) = render(comparison, first, template, hint=hint)
            return tokenizer.at_most(turn.content) + len(str(comparison.n))
        return max(len(encode(order)) for order in itertools.permutations(first))
    most = len(encode(first))
    if depends == "last" and most <= limit:
        most = max(most, *(len(encode(_with_last(first, i))) for i in first[:-1]), 0)
    return most + (_hint_spread(tokenizer, template, comparison.n) if hinted else 0)


@functools.lru_cache(maxsize=256)
def dependence(tokenizer: Tokenizer, template: Template, hinted: bool) -> str:
    """What a prompt's length depends on beside its texts: `none`, which response is `last`, or `any` property of the order.

    The place that a hint names is left out; `longest` allows for it.
    """
    parts = re.split(r"(\{number\}|\{response\})", template.response)
    at = parts.index("{response}")
    left, right = parts[at - 1], parts[at + 1]
    numbered = at + 2 < len(parts)

    def gap(*sets: str) -> bool:
        pairs = itertools.pairwise(filter(None, sets))
        return any(all(tokenizer.separates(a, b) for a in one for b in other) for one, other in pairs)

    hint = re.split(r"\{number\}", template.hint) if hinted else []
    if any(not gap(_DIGITS * (i > 0), *text, _DIGITS * (i < len(hint) - 1)) for i, text in enumerate(hint)):
        return "any"
    if not (gap(_DIGITS, *left) if at > 1 else left.strip() and gap(*left)):
        return "any"
    if gap(*right, _DIGITS) if numbered else right.strip() and gap(*right):
        return "none"
    return "last" if not numbered and gap(*right, "\n", *parts[0], *([_DIGITS] * (at > 1))) else "any"


def _with_last(order: tuple[int, ...], response: int) -> tuple[int, ...]:
    return (*(i for i in order if i != response), response)


@functools.lru_cache(maxsize=256)
def _hint_spread(tokenizer: Tokenizer, template: Template, n: int) -> int:
    lengths = [len(tokenizer.encode(template.hint.replace("{number}", str(place)))) for place in range(1, n + 1)]
    return max(lengths) - min(lengths)
