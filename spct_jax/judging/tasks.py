"""A comparison on its way to a verdict: its prompts, the samples drawn for it, and at last the vote."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.grm import lengths, orders, voting
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.template import Template
from spct_jax.judging.models import Models
from spct_jax.judging.options import Options
from spct_jax.judging.verdicts import Sample, Verdict
from spct_jax.sampling import Request, Shape

Order = tuple[int, ...]
"""order[j] is the index of the response shown at position j."""


class Prompts(NamedTuple):
    """A comparison's prompts, Int32[P] for each order in which it is shown."""

    sampling: dict[Order, np.ndarray]
    """Those that critiques are drawn for."""
    rescoring: dict[Order, np.ndarray]
    """Those that critiques are read after, once they are drawn."""
    longest: int
    """Tokens of the longest prompt in any order, drawn or not, so that the shape does not depend on how many are drawn. Where
    it does not fit, there are no prompts."""

    prefix: tuple[int, ...] = ()
    """Tokens that every critique begins with: principles that are given. The longest prompt is counted with them."""
    stem: int = 0
    """How many tokens those that critiques are drawn for begin with, all of them in any order; 0 where there is one order."""
    rescoring_stem: int = 0
    """The same of those that critiques are read after."""

    @property
    def tokens(self) -> int:
        """Tokens held."""
        each = [self.sampling] if self.rescoring is self.sampling else [self.sampling, self.rescoring]
        return sum(prompt.size for prompts in each for prompt in prompts.values())


NO_PROMPTS = Prompts({}, {}, 0)
"""Of a comparison that cannot be shown."""


@dataclasses.dataclass(eq=False)
class Task:
    """A comparison, its prompts, and what has been drawn for it so far."""

    comparison: Comparison
    prompts: Prompts
    shape: Shape | None = None
    """Of the engine that draws its critiques; None where its prompts are too long for any."""
    outcome: Verdict | InputError | None = None
    """None until it is known."""
    planned: int = 0
    """Samples asked for so far."""
    requests: dict[Order, Request] = dataclasses.field(default_factory=dict)
    prefix: tuple[int, ...] = ()
    """Tokens that the critiques now drawn begin with: principles that are given, or those of an earlier critique."""
    samples: dict[int, Sample] = dataclasses.field(default_factory=dict)
    tokens: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    """Of every sample, all of its critique, where samples are rescored."""
    to_rescore: int = 0
    """Readings of its critiques, by order, that are not done yet."""

    @property
    def size(self) -> int:
        """Tokens of its prompts and characters of its texts."""
        return self.prompts.tokens + self.comparison.characters


def order_of(comparison: Comparison, options: Options, sample: int) -> Order:
    """The order in which a sample sees the responses."""
    return orders.sample_order(comparison.n, options.order, options.seed, comparison.id, sample)


def make_prompts(comparison: Comparison, models: Models, options: Options) -> Prompts:
    """The prompts of k samples; whether they fit is known before more than one of them is made.

    Raises:
      InputError: the template has no place for the comparison's principles or its reference answer.
    """
    shown = list(dict.fromkeys(order_of(comparison, options, sample) for sample in range(options.k)))
    prompter, template = models.policy.prompter, template_of(comparison, models, options)
    encode = prompter.encode if options.mode == "scores" else prompter.encode_choice
    prefix = () if comparison.principles is None else tuple(prompter.encode_principles(comparison.principles, template))
    limit = options.longest_prompt - len(prefix)
    sampling, longest = _encoded(comparison, shown, template, prompter, encode, limit)
    together = options.siblings(comparison.n) > 1
    rescoring, stem = sampling, _stem(comparison, template, prompter, sampling) if together else 0
    rescoring_stem = stem
    if options.k_meta and sampling:
        meta = models.meta.prompter
        rescoring, length = _encoded(comparison, shown, meta.meta, meta, meta.encode_meta, limit)
        rescoring_stem = _stem(comparison, meta.meta, meta, rescoring) if together else 0
        longest = max(longest, length)
    return Prompts(sampling if rescoring else {}, rescoring, longest + len(prefix), prefix, stem, rescoring_stem)


def template_of(comparison: Comparison, models: Models, options: Options) -> Template:
    """The template that a comparison's critiques are drawn with."""
    prompter = models.policy.prompter
    return prompter.template_of(comparison) if options.mode == "scores" else prompter.choice


def _encoded(
    comparison: Comparison,
    shown: Sequence[Order],
    template: Template,
    prompter: Prompter,
    encode: Callable[[Comparison, Order], list[int]],
    limit: int,
) -> tuple[dict[Order, np.ndarray], int]:
    """Prompts by order, none if the longest of any order does not fit; and the tokens of that one."""
    made: dict[Order, np.ndarray] = {}

    def encoded(order: Order) -> np.ndarray:
        if order not in made:
            made[order] = np.array(encode(comparison, order), np.int32)
        return made[order]

    def count(order: Order) -> int:
        return len(encoded(order))

    longest = lengths.longest(comparison, template, prompter.tokenizer, count, first=shown[0], limit=limit)
    return {order: encoded(order) for order in shown} if longest <= limit else {}, longest


def _stem(comparison: Comparison, template: Template, prompter: Prompter, made: dict[Order, np.ndarray]) -> int:
    """How many tokens the prompts that were made begin with, whatever the order; 0 if none were."""
    return prompter.stem(comparison, template, next(iter(made.values()))) if made else 0


def vote(task: Task, options: Options) -> Verdict:
    """The verdict that a task's samples add up to (Eq. 14; with a meta RM the guided vote)."""
    samples = tuple(task.samples[s] for s in range(task.planned))
    expected, n = options.read == "expected", task.comparison.n
    scores = [sample.expected if expected else sample.scores for sample in samples]
    if options.k_meta:
        totals = voting.guided_vote(scores, [sample.meta for sample in samples], options.k_meta, n)
    else:
        totals = voting.sum_vote(scores, n)
    totals = voting.rounded(totals)  # no integers if they are expected, probabilities, or read by a lenient template
    top = voting.winners(totals)
    return Verdict(
        id=task.comparison.id,
        scores=totals,
        best=top[0] if len(top) == 1 else None,
        tied=top if len(top) > 1 else (),
        k=len(samples),
        valid=sum(s is not None for s in scores),
        truncated=sum(s.truncated for s in samples),
        samples=samples,
        expected=expected,
    )
