"""What is read of critiques once they are drawn: rewards of the meta RM, probabilities of a choice, expected scores.

Each reading is one pass of a model over the critiques of a comparison in one order, as branches of one trunk.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from spct_jax.data import batches
from spct_jax.data.batches import Groups
from spct_jax.errors import InputError
from spct_jax.grm import parse
from spct_jax.grm.template import Template
from spct_jax.judging import expected
from spct_jax.judging.models import Models
from spct_jax.judging.options import Options
from spct_jax.judging.tasks import Order, Task
from spct_jax.models import Trunk
from spct_jax.models.config import ModelConfig
from spct_jax.reward_models import llm_judge, scalar
from spct_jax.rounding import next_power_of_four
from spct_jax.runtime import distributed
from spct_jax.sampling.engine_params import reformat
from spct_jax.sharding import Layout


class Critiques(NamedTuple):
    """What was drawn of a comparison in one order."""

    task: Task
    order: Order
    samples: list[list[int]]
    """For each different critique, the numbers of the samples that are it, token for token."""


class Work(NamedTuple):
    """What a reading has to do about critiques."""

    critiques: Critiques
    branches: list[list[int]]
    """The tokens of each; at least one for every critique that is read."""
    asked: int = 0
    """How much is asked of the branches, padded: numbers of responses, or contexts; 0 where there are no such inputs."""
    notes: Any = None
    """What the reading wants to know when the branches are read."""


class Reading(Protocol):
    """One thing that is read of critiques."""

    config: ModelConfig
    """Of the model that reads."""
    decoder: Any
    """Its parameters, without a head."""
    preamble: Sequence[int]
    """Tokens that most prompts begin with."""

    def prompt(self, critiques: Critiques) -> tuple[np.ndarray, int]:
        """(Int32[P], what the critiques are read after; how many of its tokens all orders of the comparison begin with)."""

    def plan(self, critiques: Critiques) -> Work:
        """What has to be read of them; no branches if nothing has."""

    def read(self, works: Sequence[Work | None], trunk: Trunk, groups: Groups) -> None:
        """Reads the works' branches, packed row by row, and notes in the samples what was read.

        Args:
          works: what is in each row; None where there is nothing.
          trunk: of the prompts.
          groups: the branches.

        Raises:
          InputError: it is not finite.
        """


def chosen(models: Models, options: Options) -> list[Reading]:
    """The readings that the options ask for."""
    found: list[Reading] = []
    if options.k_meta:
        found.append(MetaRewards(models))
    elif options.mode == "token_prob":
        found.append(ChoiceProbabilities(models))
    if options.read == "expected":
        found.append(ExpectedScores(models))
    return found


@functools.cache
def program(function: Callable[..., jax.Array], layout: Layout, config: ModelConfig) -> Callable[..., jax.Array]:
    """The jitted `function(params, config, ...)` of an architecture, from arrays on the devices to one split by rows."""

    def read(params: Any, *arguments: Any) -> jax.Array:
        with layout.constraints():
            return function(params, config, *arguments)

    return jax.jit(read, out_shardings=layout.sharding("batch"))


def _note(task: Task, same: Sequence[int], **fields: Any) -> None:
    for sample in same:
        task.samples[sample] = dataclasses.replace(task.samples[sample], **fields)


def _in_rows(works: Sequence[Work | None], rows: Iterable[Any]) -> Iterator[tuple[Work, Any]]:
    """The works with what was found in their rows."""
    return ((work, row) for work, row in zip(works, rows, strict=True) if work)


def _asked(works: Sequence[Work | None]) -> int:
    """`Work.asked`, which works that are read together have in common."""
    return next(work.asked for work in works if work)


def _all(critiques: Critiques) -> list[list[int]]:
    return [critiques.task.tokens[same[0]] for same in critiques.samples]


class MetaRewards:
    """The meta RM's reward of each critique."""

    def __init__(self, models: Models):
        """Needs a meta RM among the models."""
        self._layout, prompter = models.layout, models.meta.prompter
        self._params = reformat(models.meta.params, models.layout)
        self.config, self.decoder = models.meta.config, self._params["model"]
        self.preamble = prompter.preamble_of(prompter.meta)

    def prompt(self, critiques: Critiques) -> tuple[np.ndarray, int]:
        """The meta RM's prompt."""
        prompts = critiques.task.prompts
        return prompts.rescoring[critiques.order], prompts.rescoring_stem

    def plan(self, critiques: Critiques) -> Work:
        """All critiques are read."""
        return Work(critiques, _all(critiques))

    def read(self, works: Sequence[Work | None], trunk: Trunk, groups: Groups) -> None:
        """Notes `Sample.meta`; InputError if a reward is not finite."""
        score = program(scalar.rewards_on, self._layout, self.config)
        scored = distributed.fetch(score(self._params, trunk, self._layout.split(groups)))
        for ((task, _, samples), *_), row in _in_rows(works, scored):
            if not np.isfinite(row[: len(samples)]).all():
                raise InputError(f"{task.comparison.id!r}: a score of the meta RM is NaN or infinite")
            for same, reward in zip(samples, row, strict=False):
                _note(task, same, meta=float(reward))


class _ByPolicy:
    """What readings with the policy share."""

    def __init__(self, models: Models, template: Template):
        """Critiques were drawn with this template."""
        self._layout, self._prompter = models.layout, models.policy.prompter
        self.config, self.decoder = models.policy.config, reformat(models.policy.params, models.layout)
        self.preamble = self._prompter.preamble_of(template)

    def prompt(self, critiques: Critiques) -> tuple[np.ndarray, int]:
        """The prompt that the critiques were drawn for."""
        prompts = critiques.task.prompts
        return prompts.sampling[critiques.order], prompts.stem


class ChoiceProbabilities(_ByPolicy):
    """The probabilities of the responses' numbers where an LLM judge names one: they become the scores of its vote."""

    def __init__(self, models: Models):
        """Reads with the policy."""
        super().__init__(models, models.policy.prompter.choice)

    def plan(self, critiques: Critiques) -> Work:
        """All critiques are read; a number is asked for each response."""
        return Work(critiques, _all(critiques), batches.padded_length(critiques.task.comparison.n))

    def read(self, works: Sequence[Work | None], trunk: Trunk, groups: Groups) -> None:
        """Notes `Sample.scores`; InputError if a probability is not finite."""
        positions = np.zeros(groups.lengths.shape, np.int32)
        candidates = np.full((*positions.shape, _asked(works)), llm_judge.ABSENT, np.int32)
        chosen = [
            (b, g, task, same)
            for ((task, _, samples), *_), b in _in_rows(works, range(len(works)))
            for g, same in enumerate(samples)
            if task.samples[same[0]].scores is not None
        ]
        for b, g, task, same in chosen:
            n = task.comparison.n
            positions[b, g], candidates[b, g, :n] = llm_judge.locate(self._prompter.tokenizer, task.tokens[same[0]], n)
        arguments = self._layout.split((groups, positions, candidates))
        weigh = program(llm_judge.choice_probabilities, self._layout, self.config)
        weights = distributed.fetch(weigh(self.decoder, trunk, *arguments))
        for b, g, task, same in chosen:
            n, order = task.comparison.n, task.samples[same[0]].order
            if (candidates[b, g, :n] == llm_judge.ABSENT).any():
                continue  # The vote counts in full.
            if not np.isfinite(weights[b, g, :n]).all():
                raise InputError(f"{task.comparison.id!r}: a probability of a response's number is NaN or infinite")
            _note(task, same, scores=parse.unshuffle([round(float(w), 6) for w in weights[b, g, :n]], order))


class _Critique(NamedTuple):
    """One critique whose expected scores are read."""

    same: list[int]
    places: list[expected.Place]
    first: int
    """Index of its first branch."""
    queries: list[expected.Query]


class ExpectedScores(_ByPolicy):
    """The expected score at each score of a critique."""

    def __init__(self, models: Models):
        """Reads with the policy."""
        super().__init__(models, models.policy.prompter.template)

    def plan(self, critiques: Critiques) -> Work:
        """Critiques without scores are left out, and those whose scores only a lenient template reads."""
        prompter, task = self._prompter, critiques.task
        template, branches, notes = prompter.template_of(task.comparison), [], []
        for same in critiques.samples:
            if task.samples[same[0]].scores is None:
                continue
            tokens, n = task.tokens[same[0]], task.comparison.n
            spans = parse.spans(prompter.tokenizer.decode(tokens), n, parts=template.parts)
            if spans is None:
                continue
            places = expected.find_places(prompter.tokenizer, tokens, spans, template.low, template.high)
            more, queries = expected.plan(tokens, places)
            notes.append(_Critique(same, places, len(branches), queries))
            branches += more
        return Work(critiques, branches, next_power_of_four(sum(len(note.queries) for note in notes)), notes)

    def read(self, works: Sequence[Work | None], trunk: Trunk, groups: Groups) -> None:
        """Notes `Sample.expected`; InputError if a probability is not finite."""
        queries = [[(note.first, query) for note in work.notes for query in note.queries] if work else [] for work in works]
        most = max(len(query.following) for row in queries for _, query in row)
        shape = len(groups.lengths), _asked(works)
        branches, positions = np.zeros((2, *shape), np.int32)
        tokens = np.zeros((*shape, batches.padded_length(most)), np.int32)
        for b, row in enumerate(queries):
            for s, (first, query) in enumerate(row):
                branches[b, s], positions[b, s] = first + query.branch, query.position
                tokens[b, s, : len(query.following)] = query.following
        arguments = self._layout.split((groups, branches, positions, tokens))
        read = program(expected.context_logprobs, self._layout, self.config)
        found = distributed.fetch(read(self.decoder, trunk, *arguments))
        for work, row in _in_rows(works, found):
            self._conclude(work, row)

    def _conclude(self, work: Work, logprobs: np.ndarray) -> None:
        """Logprobs is Float32[S A], those of a row."""
        (task, order, _), rows = work.critiques, iter(logprobs)
        for note in work.notes:
            known: list[dict] = [{} for _ in note.places]
            for query, row in zip(note.queries, rows, strict=False):
                if not np.isfinite(row[: len(query.following)]).all():
                    raise InputError(f"{task.comparison.id!r}: a probability of a score is NaN or infinite")
                known[query.place][query.context] = dict(zip(query.following, row.tolist(), strict=False))
            means = [round(expected.mean(*one), 6) for one in zip(note.places, known, strict=True)]
            _note(task, note.same, expected=parse.unshuffle(means, order))
