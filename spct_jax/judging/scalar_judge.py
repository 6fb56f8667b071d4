"""Scalar reward models of responses where a judge is asked for: the same commands, files and verdicts."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from spct_jax import checkpoints, sharding
from spct_jax.checkpoints import ModelKind
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.judging.judge import Judge, checked, scored
from spct_jax.judging.options import Options
from spct_jax.judging.verdicts import Verdict, of_scores
from spct_jax.reward_models.base import RewardModel
from spct_jax.reward_models.bradley_terry import BradleyTerry
from spct_jax.reward_models.cloud import Cloud, CloudOptions, Critic
from spct_jax.reward_models.pairrm import PairRM
from spct_jax.reward_models.scalar import ScalarModel
from spct_jax.sampling import engine_size
from spct_jax.sharding import Layout

KINDS = (ModelKind.BTRM, ModelKind.PAIRRM, ModelKind.CLOUD)
TOGETHER = 256
"""Comparisons that are scored together, so that batches of each shape are full."""


def kind_of(checkpoint: str | os.PathLike) -> ModelKind | None:
    """Which scalar reward model of responses a model directory holds; None for any other model.

    A sequence classifier of Hugging Face's that does not say what it scores is taken for a Bradley-Terry model.
    """
    found = checkpoints.read_kinds(checkpoint)
    return next((kind for kind in KINDS if kind in found), None)


def load(
    checkpoint: str,
    meta_checkpoint: str | None = None,
    critic_checkpoint: str | None = None,
    mesh: Layout | None = None,
    prompt: PromptConfig | None = None,
    quantize: str = "none",
) -> "Judge | ScalarJudge":
    """What a model directory judges with, whatever its kind.

    Args:
      checkpoint: the model directory.
      meta_checkpoint: that of a meta RM, for a judge that writes verdicts.
      critic_checkpoint: that of the critic, for CLoud.
      mesh: as of `Judge.load`.
      prompt: as of `Judge.load`, for a judge that writes verdicts.
      quantize: as of `Judge.load`; of CLoud, what its critic draws with.

    Raises:
      InputError: a directory is not such a checkpoint, or the models do not go together.
    """
    kind, layout = kind_of(checkpoint), mesh or sharding.make_layout()
    if (kind is ModelKind.CLOUD) != bool(critic_checkpoint):
        raise InputError("a cloud checkpoint and --critic_checkpoint, the policy that it was trained with, need each other")
    if kind is None:
        return Judge.load(checkpoint, meta_checkpoint, mesh=layout, prompt=prompt, quantize=quantize)
    if prompt and any(vars(prompt).values()):
        raise InputError(f"--template: {checkpoint} is a {kind} model; its prompts have the wording that it was trained with")
    if meta_checkpoint:
        raise InputError(f"--meta_checkpoint: there are no verdicts for it to rate; {checkpoint} is a {kind} model")
    if quantize != "none" and not critic_checkpoint:
        raise InputError(f"--quantize={quantize}: a {kind} model draws nothing")
    critic = Critic.load(critic_checkpoint, layout, quantize) if critic_checkpoint else None
    return ScalarJudge(kind, ScalarModel.load(checkpoint, kind, layout), critic)


class ScalarJudge:
    """A scalar reward model that gives verdicts; of CLoud, one sample is a critique of every response.

    Attributes:
      digests: as of `Judge`.
    """

    def __init__(self, kind: ModelKind, model: ScalarModel, critic: Critic | None = None):
        """Takes models that are on the devices already; see `load`."""
        self._kind, self._model, self._critic = kind, model, critic

    @property
    def is_local(self) -> bool:
        """Whether this process judges without the other ones, see `Layout.is_local`."""
        return self._model.layout.is_local

    @property
    def memory(self) -> int:
        """As of `Judge`; 0 for a model that draws nothing."""
        return engine_size.memory_of(self._model.layout) if self._critic else 0

    @property
    def digests(self) -> Mapping[str, str]:
        """What was loaded, each under the name of the flag that names it; a digest changes when the content does."""
        critic = {"critic_checkpoint": self._critic.digest} if self._critic else {}
        return {"checkpoint": self._model.digest} | critic

    def score(self, comparisons: Iterable[Comparison], **options) -> list[Verdict]:
        """As `Judge.score`."""
        return scored(self.stream, comparisons, **options)

    def stream(
        self, comparisons: Iterable[Comparison], *, principles: str | Mapping[str, str] | None = None, **options
    ) -> Iterator[Verdict | InputError]:
        """As of `Judge.stream`; of `options`, CLoud reads how critiques are drawn, and the other models read none.

        Raises:
          InputError: an option out of range, or one for a judge that writes verdicts, or something that is no `Comparison`.
        """
        chosen = Options(**options)
        usual = Options()
        for name in ("k_meta", "adaptive", "mode", "read", "share_principles"):
            if getattr(chosen, name) != getattr(usual, name):
                raise InputError(f"{name} is for a judge that writes verdicts, not for a scalar reward model")
        if principles:
            raise InputError("principles are for a judge that writes verdicts, not for a scalar reward model")
        return self._stream(checked(comparisons), chosen)

    def _stream(self, comparisons: Iterator[Comparison], options: Options) -> Iterator[Verdict | InputError]:
        judge = self._reward_model(options)
        while part := list(itertools.islice(comparisons, TOGETHER)):
            yield from _verdicts(judge, part)

    def _reward_model(self, options: Options) -> BradleyTerry | PairRM | Cloud:
        if self._critic is None:
            return {ModelKind.BTRM: BradleyTerry, ModelKind.PAIRRM: PairRM}[self._kind](self._model)
        names = [field.name for field in dataclasses.fields(CloudOptions)]
        return Cloud(self._critic, self._model, CloudOptions(**{name: getattr(options, name) for name in names}))


def _verdicts(judge: RewardModel, comparisons: Sequence[Comparison]) -> Iterator[Verdict | InputError]:
    """One outcome for each; where one of them is an error, each half is scored again, down to that one."""
    try:
        yield from [of_scores(scored) for scored in judge.score(comparisons)]
    except InputError as error:
        if len(comparisons) == 1:
            yield error
            return
        half = len(comparisons) // 2
        yield from _verdicts(judge, comparisons[:half])
        yield from _verdicts(judge, comparisons[half:])
