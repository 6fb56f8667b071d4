"""What is read of critiques once they are drawn: rewards of the meta RM, probabilities of a choice, expected scores.

Each reading is one pass of a model over the critiques of a comparison in one order, as branches of one trunk.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from spct_jax import distributed
from spct_jax.data import batches
from spct_jax.data.batches import Groups
from spct_jax.errors import InputError
from spct_jax.grm import parse
from spct_jax.judging import expected
from spct_jax.judging.models import Models
from spct_jax.judging.options import Options
from spct_jax.judging.tasks import Order, Task
from spct_jax.reward_models import llm_judge, scalar
from spct_jax.rounding import next_power_of_four

FEWEST_TOKENS = 16
"""Tokens asked for in a context, at least, so that programs are few."""


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
    """The tokens of each; a branch for every critique is the least."""
    contexts: int = 0
    """Size of the program's other inputs; 0 where there are none."""
    notes: Any = None
    """What the reading wants to know when the branches are read."""


class Reading(Protocol):
    """One thing that is read of critiques."""

    def prompt(self, critiques: Critiques) -> np.ndarray:
        """Int32[P], what the critiques are read after."""

    def plan(self, critiques: Critiques) -> Work:
        """What has to be read of them; no branches if nothing has."""

    def read(self, works: Sequence[Work], groups: Groups) -> None:
        """Reads the works' branches, packed row by row, and notes in the samples what was read.

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


def _note(task: Task, same: Sequence[int], **fields: Any) -> None:
    for sample in same:
        task.samples[sample] = dataclasses.replace(task.samples[sample], **fields)


def _all(critiques: Critiques) -> list[list[int]]:
    return [critiques.task.tokens[same[0]] for same in critiques.samples]


class MetaRewards:
    """The meta RM's reward of each critique."""

    def __init__(self, models: Models):
        """Needs a meta RM among the models."""
        self._models = models

    def prompt(self, critiques: Critiques) -> np.ndarray:
        """The meta RM's prompt."""
        return critiques.task.prompts.rescoring[critiques.order]

    def plan(self, critiques: Critiques) -> Work:
        """All critiques are read."""
        return Work(critiques, _all(critiques))

    def read(self, works: Sequence[Work], groups: Groups) -> None:
        """Notes `Sample.meta`; InputError if a reward is not finite."""
        layout, model = self._models.layout, self._models.meta
        scored = scalar.make_scorer(layout, model.config)(model.params, layout.split(groups))
        for ((task, _, samples), *_), row in zip(works, distributed.fetch(scored), strict=False):
            if not np.isfinite(row[: len(samples)]).all():
                raise InputError(f"{task.comparison.id!r}: a score of the meta RM is NaN or infinite")
            for same, reward in zip(samples, row, strict=False):
                _note(task, same, meta=float(reward))


class ChoiceProbabilities:
    """The probabilities of the responses' numbers where an LLM judge names one: they become the scores of its vote."""

    def __init__(self, models: Models):
        """Reads with the policy."""
        self._models = models

    def prompt(self, critiques: Critiques) -> np.ndarray:
        """The prompt that the critiques were drawn for."""
        return critiques.task.prompts.sampling[critiques.order]

    def plan(self, critiques: Critiques) -> Work:
        """All critiques are read."""
        return Work(critiques, _all(critiques))

    def read(self, works: Sequence[Work], groups: Groups) -> None:
        """Notes `Sample.scores`; InputError if a probability is not finite."""
        layout, model = self._models.layout, self._models.policy
        positions = np.zeros(groups.lengths.shape, np.int32)
        most = max(work.critiques.task.comparison.n for work in works)
        candidates = np.full((*positions.shape, batches.padded_length(most)), llm_judge.ABSENT, np.int32)
        chosen = [
            (b, g, task, same)
            for b, ((task, _, samples), *_) in enumerate(works)
            for g, same in enumerate(samples)
            if task.samples[same[0]].scores is not None
        ]
        for b, g, task, same in chosen:
            n = task.comparison.n
            positions[b, g], candidates[b, g, :n] = llm_judge.locate(model.prompter.tokenizer, task.tokens[same[0]], n)
        arguments = layout.split((groups, positions, candidates))
        weights = distributed.fetch(llm_judge.make_weigher(layout, model.config)(model.params, *arguments))
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


class ExpectedScores:
    """The expected score at each score of a critique."""

    def __init__(self, models: Models):
        """Reads with the policy."""
        self._models = models

    def prompt(self, critiques: Critiques) -> np.ndarray:
        """The prompt that the critiques were drawn for."""
        return critiques.task.prompts.sampling[critiques.order]

    def plan(self, critiques: Critiques) -> Work:
        """Critiques without scores are left out, and those whose scores only a lenient template reads."""
        prompter, task = self._models.policy.prompter, critiques.task
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

    def read(self, works: Sequence[Work], groups: Groups) -> None:
        """Notes `Sample.expected`; InputError if a probability is not finite."""
        layout, model = self._models.layout, self._models.policy
        queries = [[(note.first, query) for note in work.notes for query in note.queries] for work in works]
        most = max(len(query.following) for row in queries for _, query in row)
        shape = len(groups.lengths), works[0].contexts
        branches, positions = np.zeros((2, *shape), np.int32)
        tokens = np.zeros((*shape, batches.padded_length(max(most, FEWEST_TOKENS))), np.int32)
        for b, row in enumerate(queries):
            for s, (first, query) in enumerate(row):
                branches[b, s], positions[b, s] = first + query.branch, query.position
                tokens[b, s, : len(query.following)] = query.following
        arguments = layout.split((groups, branches, positions, tokens))
        found = distributed.fetch(expected.make_reader(layout, model.config)(model.params, *arguments))
        for work, row in zip(works, found, strict=False):
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
