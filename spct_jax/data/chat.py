"""Chat formats: what a model was trained to see around the turns of a conversation.

Markers are control pieces, each a token of its own. In a tokenizer that lacks one they are text, so that a user's text must not
hold them; `Tokenizer` sees to that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spct_jax.data.comparison import Turn, check_alternation


class Marker(NamedTuple):
    """A control piece."""

    name: str


Part = Marker | str


@dataclass(frozen=True)
class ChatFormat:
    """How the turns of a conversation become one text.

    Attributes:
        begin: markers that open the text; the first that the tokenizer has.
        opens: what opens a turn, by role; a prompt ends in what opens the assistant's.
        closes: what closes a turn, by role.
        end: markers that end an answer; the first that the tokenizer has.
        system_inside: whether a system turn stands in the user's first turn, before its text and a blank line, instead of
            before all turns.
        trims: whether white space around the content of a turn is dropped.
        jinja: the format as transformers reads it, in our words.
    """

    begin: tuple[str, ...]
    opens: dict[str, tuple[Part, ...]]
    closes: dict[str, tuple[Part, ...]]
    end: tuple[str, ...]
    system_inside: bool
    trims: bool
    jinja: str

    @property
    def markers(self) -> tuple[str, ...]:
        """The names of those that open a turn: a chat template that has them all is of this format."""
        return tuple(dict.fromkeys(part.name for parts in self.opens.values() for part in parts if isinstance(part, Marker)))

    def lay_out(self, turns: Sequence[Turn]) -> Iterator[Part]:
        """A prompt's parts behind its beginning, ready for the model's answer; InputError as of `check_alternation`."""
        check_alternation(turns)
        turns, prefix = list(turns), ""
        if turns[0].role == "system":
            system = self._content(turns.pop(0))
            if self.system_inside:
                prefix = f"{system}\n\n"
            else:
                yield system
        for turn in turns:
            yield from self.opens[turn.role]
            yield prefix + self._content(turn)
            yield from self.closes[turn.role]
            prefix = ""
        yield from self.opens["assistant"]

    def _content(self, turn: Turn) -> str:
        return turn.content.strip() if self.trims else turn.content


_GEMMA_START, _GEMMA_END = Marker("<start_of_turn>"), Marker("<end_of_turn>")
_USER, _ASSISTANT, _SENTENCE_END = (
    Marker(f"<\uff5c{name}\uff5c>") for name in ("User", "Assistant", "end\u2581of\u2581sentence")
)
GEMMA = "gemma"
"""The format of a model whose files name none."""
FORMATS = {
    GEMMA: ChatFormat(
        begin=("<bos>",),
        opens={"user": (_GEMMA_START, "user\n"), "assistant": (_GEMMA_START, "model\n")},
        closes={"user": (_GEMMA_END, "\n"), "assistant": (_GEMMA_END, "\n")},
        end=("<end_of_turn>",),
        system_inside=True,
        trims=True,
        jinja=(
            "{{ bos_token }}{% set before = namespace(text='') %}{% for turn in messages %}{% if turn['role'] == 'system' %}"
            "{% set before.text = (turn['content'] | trim) + '\\n\\n' %}{% else %}"
            "{{ '<start_of_turn>' + ('user' if turn['role'] == 'user' else 'model') + '\\n' + before.text }}"
            "{{ (turn['content'] | trim) + '<end_of_turn>\\n' }}{% set before.text = '' %}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
        ),
    ),
    "deepseek_v3": ChatFormat(
        begin=("<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<bos>"),
        opens={"user": (_USER,), "assistant": (_ASSISTANT,)},
        closes={"user": (), "assistant": (_SENTENCE_END,)},
        end=(_SENTENCE_END.name, "<eos>"),
        system_inside=False,
        trims=False,
        jinja=(
            "{{ bos_token }}{% for turn in messages %}{% if turn['role'] == 'system' %}{{ turn['content'] }}"
            f"{{% elif turn['role'] == 'user' %}}{{{{ '{_USER.name}' + turn['content'] }}}}"
            f"{{% else %}}{{{{ '{_ASSISTANT.name}' + turn['content'] + '{_SENTENCE_END.name}' }}}}{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{{{{ '{_ASSISTANT.name}' }}}}{{% endif %}}"
        ),
    ),
}
"""By name."""


def find_format(template: str) -> str:
    """The name of the format that a chat template of transformers makes, by the markers in it; empty if it is none of them."""
    return next((name for name, known in FORMATS.items() if all(marker in template for marker in known.markers)), "")
