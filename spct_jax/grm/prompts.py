"""From a comparison to a prompt's tokens, and from the tokens of completions back to scores."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm import lengths, parse
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.render import disarm, render
from spct_jax.grm.template import Template, load_template
from spct_jax.storage import digests

NO_RESPONSE = "\N{INTERROBANG}"
"""What hardly any response begins with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rollout:
    """Completions sampled for one comparison in one order."""

    id: str
    order: tuple[int, ...]
    """order[j] is the index of the response shown at position j."""
    completions: tuple[np.ndarray, ...]
    """Int32[T] each: tokens, terminator included. Arrays, since the meta RM's training holds every rollout of a run."""
    texts: tuple[str, ...] | None
    """Decoded from the tokens; None for rollouts read back from a file, whose texts nobody needs."""
    scores: tuple[tuple[float, ...] | None, ...]
    """Per completion its scores in input order, integers unless the template is lenient; None where it was cut short or does
    not parse."""
    truncated: tuple[bool, ...]
    """Per completion whether it was cut at the limit, that is, its last token is no terminator."""
    truth: tuple[float, ...] | None
    """The comparison's own scores."""


class Prompter:
    """The text contract of a run: which template a comparison gets, its tokens, and how completions are read.

    Attributes:
      digest: changes when a template or the tokenizer does.
      texts_digest: changes when the text of a template does.
      chooses: whether the template is the choice template, so that the best response is named instead of all being scored; not
        so where one template was asked for in place of all, the single one included.
    """

    def __init__(self, config: PromptConfig, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.template = load_template(config.template)
        self.single = load_template(config.single_template)
        self.meta = load_template(config.meta_template)
        self.choice = load_template(config.choice_template)
        self.chooses = self.template.text == self.choice.text != self.single.text
        templates = self.template, self.single, self.meta, self.choice
        self.texts_digest = digests.of_json([template.text for template in templates])
        described = repr(templates).encode("utf-8", "surrogatepass") + tokenizer.description
        self.digest = hashlib.blake2b(described, digest_size=8).hexdigest()

    @functools.cached_property
    def preamble(self) -> list[int]:
        """The tokens that the prompts of the run's template begin with, whatever they show; see `preamble_of`."""
        return self.preamble_of(self.template)

    def preamble_of(self, template: Template) -> list[int]:
        """The tokens that a template's prompts begin with: BOS, what opens the user's turn, and the text before {conversation}.

        They are what prompts have in common that differ from the first letter of the conversation on, and in the number of
        responses. So a prompt may yet begin otherwise, if its first letters make one token with the text before them; whoever
        uses the preamble looks whether a prompt begins with it.
        """
        ask, answer = Turn("user", "q"), Turn("assistant", "a")
        shown = (((ask,), ("x",)), ((Turn("system", "s"), ask), ("y", "y")), ((ask, answer, ask), ("z", "z", "z")))
        probes = [Comparison(conversation=turns, responses=responses) for turns, responses in shown]
        prompts = [self.tokenizer.encode_turns(render(probe, range(probe.n), template)) for probe in probes]
        return os.path.commonprefix(prompts)

    def stem(self, comparison: Comparison, template: Template, prompt: Sequence[int]) -> int:
        """How many tokens the prompts of a comparison begin with in any order, of which one prompt is given.

        It is what this prompt without its last token, its trunk, has in common with one that has another text in place of every
        response.
        """
        reference = comparison.reference if template.reference is not None else None
        other = dataclasses.replace(comparison, responses=(NO_RESPONSE,) * comparison.n, reference=reference)
        encoded = self.tokenizer.encode_turns(render(other, range(comparison.n), template))
        return len(os.path.commonprefix([encoded, list(prompt[:-1])]))

    def template_of(self, comparison: Comparison) -> Template:
        """The 0/1 template for a single response whose truth is 0 or 1, the run's template otherwise."""
        binary = comparison.n == 1 and comparison.scores is not None and comparison.scores[0] in (0.0, 1.0)
        return self.single if binary else self.template

    def encode(self, comparison: Comparison, order: Sequence[int], *, hinted: bool = False) -> list[int]:
        """Prompt tokens; with `hinted`, the prompt names the best response."""
        return self.tokenizer.encode_turns(self._turns(comparison, order, hinted=hinted))

    def _turns(self, comparison: Comparison, order: Sequence[int], *, hinted: bool) -> tuple[Turn, ...]:
        return render(comparison, order, self.template_of(comparison), hint=comparison.best if hinted else None)

    def encode_choice(self, comparison: Comparison, order: Sequence[int]) -> list[int]:
        """Prompt tokens of an LLM judge, which names the best response."""
        return self.tokenizer.encode_turns(render(comparison, order, self.choice))

    def encode_principles(self, principles: str, template: Template) -> list[int]:
        """The tokens that a critique with these principles begins with, up to the label of its analysis.

        Raises:
          InputError: the template has no principles.
        """
        if not template.principles:
            raise InputError(f"template {template.name!r} has no part for principles")
        own, analysis, _ = template.parts
        return self.tokenizer.encode(f"{own}:\n{disarm(principles, template).strip()}\n{analysis}:")

    def encode_meta(self, comparison: Comparison, order: Sequence[int]) -> list[int]:
        """Prompt tokens of the meta RM, whose completions are the critiques it scores.

        A template without a place for a reference answer does not show it: critiques say what there is to know of it.
        """
        return self.tokenizer.encode_turns(self._meta_turns(comparison, order))

    def _meta_turns(self, comparison: Comparison, order: Sequence[int]) -> tuple[Turn, ...]:
        if self.meta.reference is None:
            comparison = dataclasses.replace(comparison, reference=None)
        return render(comparison, order, self.meta)

    def longest(self, comparison: Comparison, *, hinted: bool = False, meta: bool = False, limit: int) -> int:
        """Tokens of the longest of a comparison's prompts in any order, see `lengths.longest`; `meta`: the meta RM's, too."""
        template = self.template_of(comparison)
        most = lengths.longest(
            comparison,
            template,
            self.tokenizer,
            lambda order: self.tokenizer.count_turns(self._turns(comparison, order, hinted=hinted)),
            hinted=hinted,
            limit=limit,
        )
        if not meta or most > limit:
            return most

        def count_meta(order: tuple[int, ...]) -> int:
            return self.tokenizer.count_turns(self._meta_turns(comparison, order))

        return max(most, lengths.longest(comparison, self.meta, self.tokenizer, count_meta, limit=limit))

    def fits(self, comparison: Comparison, *, hinted: bool = False, meta: bool = False, limit: int) -> bool:
        """Whether `longest` is within the limit; where that takes long it is not found if even the bytes are few enough."""
        if not self.tokenizer.counts_words:
            most = lengths.bound(comparison, self.template_of(comparison), self.tokenizer, hinted=hinted)
            if most <= limit and (not meta or lengths.bound(comparison, self.meta, self.tokenizer) <= limit):
                return True
        return self.longest(comparison, hinted=hinted, meta=meta, limit=limit) <= limit

    def read(self, comparison: Comparison, order: Sequence[int], completions: Iterable[Sequence[int]]) -> Rollout:
        """Decodes and parses completions drawn for a comparison shown in `order`."""
        template, n = self.template_of(comparison), comparison.n
        if self.chooses and template is not self.single:
            return self.read_choice(comparison, order, completions)
        return self._read(comparison, order, completions, lambda text: self._parse(text, n, template))

    def is_verdict(self, text: str) -> bool:
        """Whether a text ends as one of the run's templates asks, whatever the number of responses that it is about."""
        opened = [at for at in (text.rfind("boxed"), text.rfind("[")) if at >= 0]
        counts = range(1, text.count(",", min(opened, default=len(text))) + 2)
        if self.chooses and parse.parse_choice(text, len(text), self.choice.parts) is not None:
            return True
        return any(self._parse(text, n, template) is not None for template in (self.template, self.single) for n in counts)

    def _parse(self, text: str, n: int, template: Template) -> tuple[float, ...] | None:
        read = parse.parse_lenient if template.lenient else parse.parse
        return read(text, n, parts=template.parts, low=template.low, high=template.high)

    def read_choice(self, comparison: Comparison, order: Sequence[int], completions: Iterable[Sequence[int]]) -> Rollout:
        """As `read`, of an LLM judge: the response that it names has the score 1, the others 0."""

        def scores(text):
            choice = parse.parse_choice(text, comparison.n, self.choice.parts)
            return None if choice is None else tuple(int(position == choice) for position in range(comparison.n))

        return self._read(comparison, order, completions, scores)

    def _read(
        self,
        comparison: Comparison,
        order: Sequence[int],
        completions: Iterable[Sequence[int]],
        parse_shown: Callable[[str], Sequence[float] | None],
    ) -> Rollout:
        """`parse_shown` gives the scores in a text by position."""
        completions = tuple(np.array(tokens, np.int32) for tokens in completions)
        texts = tuple(self.tokenizer.decode(tokens) for tokens in completions)
        # A completion without a terminator is never read, whatever it says; nothing else decides this.
        truncated = tuple(not len(tokens) or tokens[-1] not in self.tokenizer.stop_ids for tokens in completions)
        shown = [None if cut else parse_shown(text) for text, cut in zip(texts, truncated, strict=True)]
        scores = tuple(None if s is None else parse.unshuffle(s, order) for s in shown)
        return Rollout(comparison.id, tuple(order), completions, texts, scores, truncated, comparison.scores)
