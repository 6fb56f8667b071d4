"""A comparison becomes the text of a prompt."""

import re
from collections.abc import Sequence

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.errors import InputError
from spct_jax.grm.template import HINT_LINE, REFERENCE_LINE, ROLE_LABELS, Template

_PLACEHOLDER = re.compile(r"\{(conversation|responses|hint|n|number|response|reference)\}")


def render(comparison: Comparison, order: Sequence[int], template: Template, *, hint: int | None = None) -> tuple[Turn, ...]:
    """The prompt for one comparison, as the turns that `Tokenizer.encode_turns` takes: one user turn.

    Args:
      comparison: what is to be judged.
      order: `order[j]` is the index of the response shown at position j; the text numbers positions from 1.
      template: the wording.
      hint: index, in input order, of a response to give away as the best, by the number of its position.

    Raises:
      InputError: when a hint is asked of a template without one, or the comparison has a reference answer and the template
        does not show one.
    """
    if sorted(order) != list(range(comparison.n)):
        raise ValueError(f"{tuple(order)} is not an order of {comparison.n} responses")
    values = {
        "conversation": "\n".join(_show_turn(turn, template) for turn in comparison.conversation),
        "responses": "\n".join(
            _fill(template.response, {"number": position, "response": disarm(comparison.responses[index], template)})
            for position, index in enumerate(order, start=1)
        ),
        "n": comparison.n,
    }
    prompt = template.prompt
    if hint is None:
        prompt = HINT_LINE.sub("", prompt)
    elif template.hint is None:
        raise InputError(f"template {template.name!r} has no hint section")
    else:
        values["hint"] = _fill(template.hint, {"number": list(order).index(hint) + 1})
    if comparison.reference is None:
        prompt = REFERENCE_LINE.sub("", prompt)
    elif template.reference is None:
        raise InputError(f"template {template.name!r} has no place for a reference answer")
    else:
        values["reference"] = _fill(template.reference, {"reference": disarm(comparison.reference, template)})
    return (Turn("user", _fill(prompt, values).strip()),)


def _show_turn(turn: Turn, template: Template) -> str:
    return f"{ROLE_LABELS[turn.role]}: {disarm(turn.content, template)}"


def disarm(text: str, template: Template) -> str:
    """A user's text with tildes where it looks like ours; see `template`."""
    return template.opening.sub("~", template.marker.sub(r"\g<0>~", text))


def _fill(text: str, values: dict[str, object]) -> str:
    # One pass, so that a placeholder spelt out in a user's text stays text.
    return _PLACEHOLDER.sub(lambda match: str(values.get(match[1], match[0])), text)
