"""The judge: a generative reward model, perhaps with a meta reward model, that gives verdicts on comparisons."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from spct_jax import sharding
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.judging import models
from spct_jax.judging.models import Models
from spct_jax.judging.options import Options
from spct_jax.judging.scheduler import Scheduler
from spct_jax.judging.verdicts import Verdict
from spct_jax.sampling import Shape, Usage, engine_size
from spct_jax.sharding import Layout


class Judge:
    """A generative reward model, perhaps with a meta reward model, ready to judge; a `reward_models.base.RewardModel`.

    Attributes:
      models: what it judges with.
      usage: tokens, prefills and decode slots of the last stream, or of this one so far.
    """

    def __init__(self, models: Models):
        """Takes models that are on the devices already; see `load`."""
        self.models = models
        self.usage = Usage()
        self._said: set[Shape] = set()
        """Shapes that were said to be chosen: once, however often the judge is asked."""

    @property
    def is_local(self) -> bool:
        """Whether this process judges without the other ones, see `Layout.is_local`."""
        return self.models.layout.is_local

    @property
    def memory(self) -> int:
        """Bytes of a device that shapes of engines can be chosen for."""
        return engine_size.memory_of(self.models.layout)

    @property
    def digests(self) -> Mapping[str, str]:
        """What was loaded, each under the name of the flag that names it; a digest changes when the content does."""
        return self.models.digests

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike,
        meta_checkpoint: str | os.PathLike | None = None,
        mesh: Layout | None = None,
        prompt: PromptConfig | None = None,
        quantize: str = "none",
    ) -> "Judge":
        """Loads a judge.

        Args:
          checkpoint: model directory of this library or of Hugging Face's layout.
          meta_checkpoint: that of a meta RM.
          mesh: how parameters and rows are split over the devices; None: rows over all of them, `sharding.make_layout()`.
          prompt: names of templates. Where a name is empty, or `prompt` is None, the template is the one that the checkpoint
            carries, else the default one.
          quantize: `int8` to write critiques with 8-bit weights, keys and values, see `ModelConfig.quantize`.

        Raises:
          InputError: a directory is not such a checkpoint, qwix is missing, or `mesh` or `prompt` is something else.
        """
        if not isinstance(mesh, Layout | None):
            raise InputError(f"mesh is a {type(mesh).__name__}, not a layout; spct_jax.sharding.make_layout makes one")
        if not isinstance(prompt, PromptConfig | None):
            raise InputError(f"prompt is a {type(prompt).__name__}, not a spct_jax.config.PromptConfig")
        return cls(models.load(checkpoint, meta_checkpoint, mesh or sharding.make_layout(), prompt, quantize))

    def score(self, comparisons: Iterable[Comparison], **options) -> list[Verdict]:
        """Verdicts on comparisons, in their order; `options` are those of `stream`.

        Raises:
          InputError: as of `stream`, or a comparison cannot be judged; names its id, or its number from 1 if it has none.
        """
        return scored(self.stream, comparisons, **options)

    def stream(
        self, comparisons: Iterable[Comparison], *, principles: str | Mapping[str, str] | None = None, **options
    ) -> Iterator[Verdict | InputError]:
        """One outcome per comparison, in their order; only a bounded number of comparisons is read ahead.

        For a comparison that cannot be judged, the outcome is an `InputError`.

        Args:
          comparisons: what is to be judged.
          principles: those to judge by, of all comparisons, or by their ids, that bring none themselves. A comparison for which
            there are none is judged by principles that the model writes.
          options: the fields of `Options`.

        Raises:
          InputError: an option out of range, principles for a template that has none, or something that is no `Comparison`.
        """
        if not isinstance(principles, str | Mapping | None):
            raise InputError(f"principles is a {type(principles).__name__}, neither a text nor texts by the ids of comparisons")
        options = Options(**options)
        if options.k_meta and self.models.meta is None:
            raise InputError("k_meta needs a meta RM")
        # The judge must not see the scores that people gave, not even that there are some.
        unscored = (dataclasses.replace(comparison, scores=None) for comparison in checked(comparisons))
        if principles:
            unscored = (_with_principles(comparison, principles) for comparison in unscored)
        scheduler = Scheduler(self.models, options, said=self._said)
        self.usage = scheduler.usage
        return scheduler.run(unscored)


def scored(
    stream: Callable[..., Iterator[Verdict | InputError]], comparisons: Iterable[Comparison], **options
) -> list[Verdict]:
    """All that a judge's `stream` gives; InputError where a comparison cannot be judged, see `Judge.score`."""
    asked = list(checked(comparisons))
    outcomes = list(stream(asked, **options))
    for number, (comparison, outcome) in enumerate(zip(asked, outcomes, strict=True), start=1):
        if isinstance(outcome, InputError):
            raise InputError(f"{repr(comparison.id) if comparison.id else f'comparison {number}'}: {outcome}")
    return outcomes


def checked(comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
    """The same; InputError at once for one instead of several, and at its turn for what is no `Comparison`."""
    if isinstance(comparisons, Comparison):
        raise InputError("to be judged is one Comparison; put it into a list")
    return map(_checked, comparisons)


def _checked(comparison: Comparison) -> Comparison:
    if not isinstance(comparison, Comparison):
        raise InputError(f"to be judged is a {type(comparison).__name__}, not a spct_jax.Comparison")
    return comparison


def _with_principles(comparison: Comparison, principles: str | Mapping[str, str]) -> Comparison:
    given = principles if isinstance(principles, str) else principles.get(comparison.id)
    return comparison if given is None or comparison.principles else dataclasses.replace(comparison, principles=given)
