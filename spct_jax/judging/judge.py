"""The judge: a generative reward model, perhaps with a meta reward model, that gives verdicts on comparisons."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from spct_jax import checkpoints, sharding
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.judging.options import Options
from spct_jax.judging.scheduler import Stream
from spct_jax.judging.verdicts import Verdict
from spct_jax.models.config import ModelConfig
from spct_jax.sampling.engine import Usage
from spct_jax.sampling.programs import Sampler, Shape
from spct_jax.sharding import Layout
from spct_jax.training import grouped

DEFAULT_PROMPT = PromptConfig("default", "single", "meta", "judge")
"""Templates of a checkpoint that names none."""


class Judge:
    """A generative reward model, perhaps with a meta reward model, ready to judge."""

    def __init__(
        self,
        layout: Layout,
        params: Any,
        config: ModelConfig,
        prompter: Prompter,
        meta: tuple[Any, ModelConfig, Prompter] | None = None,
        carries_templates: bool = True,
    ):
        """Takes models that are on the devices already; see `load`.

        Args:
          layout: how parameters and rows are split over the devices.
          params: the policy's parameters.
          config: its architecture.
          prompter: its templates and tokenizer.
          meta: the meta RM's parameters, architecture, and templates and tokenizer.
          carries_templates: whether the policy's templates are known to be its own, or were asked for.
        """
        self.carries_templates = carries_templates
        self.layout, self.config, self.prompter, self.meta = layout, config, prompter, meta
        self.params = grouped.place_params(params, layout=layout, rollout=layout, config=config)
        self.shapes: set[tuple[Shape, Sampler]] = set()
        """Those whose programs are compiled, or being so."""
        self.digests: dict[str, str] = {}
        """What was loaded, each under the name of the flag that names it; changes when its content does."""
        self.usage = Usage()
        """What the last stream, or this one so far, made of its decode slots."""

    @classmethod
    def load(
        cls,
        checkpoint: str,
        meta_checkpoint: str | None = None,
        mesh: Layout | None = None,
        prompt: PromptConfig | None = None,
    ) -> "Judge":
        """Loads a judge.

        Args:
          checkpoint: model directory of this library or of Hugging Face's layout.
          meta_checkpoint: that of a meta RM.
          mesh: how parameters and rows are split over the devices; None: rows over all of them, `sharding.make_layout()`.
          prompt: templates; one without a name, or None for all, is that which the checkpoint carries, else the default one.

        Raises:
          InputError: a directory is not such a checkpoint.
        """
        layout = mesh or sharding.make_layout()

        asked = {role: name for role, name in vars(prompt).items() if name} if prompt else {}

        def prompter(model):
            return Prompter(dataclasses.replace(model.prompt or DEFAULT_PROMPT, **asked), model.tokenizer)

        def read(directory, kind):
            return checkpoints.load(directory, kind=kind, dtype=checkpoints.COMPUTE, shardings=layout.params)

        meta = read(meta_checkpoint, checkpoints.ModelKind.META_RM) if meta_checkpoint else None
        policy = read(checkpoint, checkpoints.ModelKind.POLICY)
        judge = cls(
            layout,
            policy.params,
            policy.config,
            prompter(policy),
            meta=meta and (meta.params, meta.config, prompter(meta)),
            carries_templates=policy.prompt is not None or "template" in asked,
        )
        judge.digests = {"checkpoint": policy.digest, "template": judge.prompter.texts_digest}
        if meta:
            judge.digests["meta_checkpoint"] = meta.digest
        return judge

    def score(self, comparisons: Sequence[Comparison], **options) -> list[Verdict]:
        """Verdicts on comparisons, in their order; `options` are the fields of `Options`.

        Raises:
          InputError: an option out of range, or a comparison whose prompt is too long.
        """
        outcomes = list(self.stream(comparisons, **options))
        for comparison, outcome in zip(comparisons, outcomes, strict=True):
            if isinstance(outcome, InputError):
                raise InputError(f"{comparison.id!r}: {outcome}")
        return outcomes

    def stream(self, comparisons: Iterable[Comparison], **options) -> Iterator[Verdict | InputError]:
        """One outcome per comparison, in their order, reading only a bounded number of them ahead.

        A comparison that cannot be judged comes out as an `InputError` in its place. `options` are the fields of `Options`.

        Raises:
          InputError: an option out of range.
        """
        options = Options(**options)
        if options.k_meta and self.meta is None:
            raise InputError("k_meta needs a meta RM")
        # The judge must not see the scores that people gave, not even that there are some.
        unscored = (dataclasses.replace(comparison, scores=None) for comparison in comparisons)
        return Stream(self, options).run(unscored)
