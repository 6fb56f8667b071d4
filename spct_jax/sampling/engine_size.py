"""How large an engine is: what a shape takes of a device's memory, and the shape that fits it and leaves no slot idle.

A choice follows from the model, lengths, how many prompts are drawn together, the samples of each and the memory of a device,
never from what the prompts are.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from spct_jax.errors import InputError
from spct_jax.models.config import ModelConfig
from spct_jax.rounding import ceil_div, next_power_of_four
from spct_jax.runtime import memory
from spct_jax.runtime.hardware import GIB
from spct_jax.sampling.engine_shape import Shape
from spct_jax.sampling.model_bytes import ModelBytes
from spct_jax.sharding import Layout

MOST_BRANCHES = 16
"""G at most: with 32, a row of 2,048 + 1,024 tokens takes a tenth less per branch, but rows come in coarser steps."""
MOST_SLOTS = 256
"""Branches of a device at most: a weight that is read once is then used about as often as a chip multiplies in that time."""
MOST_SLOTS_ON_GPU = 1536
"""The same of a GPU, whose small kernels take long to launch: of Gemma-3 270M on an H200, 512 branches take 5.1 ms a token and
1,536 take 9.3 (docs/results/gpu_check.md), and more were not measured."""
MOST_SLOTS_ON_CPU = 64
"""Branches of all devices at most where they are parts of a CPU."""
CPU_SHARE = 2.5
"""On a CPU, how many times the parameters all that is at work may take, the parameters included. Gemma-3 270M then judges in
less than 3 GB, and the further rows that three times would allow made no token cheaper (docs/results/speed.md)."""
CPU_LEAST = 2 * GIB
"""What it may take however small its parameters are."""
USABLE = 0.97
"""Share of a device's memory that is planned with; the rest is for programs, and for holes between arrays."""
MEAN_LENGTH = 0.25
"""Mean length of completions next to the limit, as expected of a draw: that of verdicts of 260 tokens, cut at 1,024."""


@dataclasses.dataclass(frozen=True)
class Account:
    """Bytes of a device that an engine needs."""

    parameters: int
    """Of its model."""
    beside: int
    """What else is held."""
    slots: int
    """Trunks in rows and caches."""
    arriving: int
    """Trunks that are in no row yet, and those being computed."""
    work: int
    """What a program needs for itself, at the most."""

    @property
    def total(self) -> int:
        """At the fullest moment."""
        return self.parameters + self.beside + self.slots + self.arriving + self.work

    def __str__(self) -> str:
        held = self.slots + self.arriving
        parts = {"parameters": self.parameters, "other models": self.beside, "trunks and caches": held, "work": self.work}
        return ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size)


def memory_of(layout: Layout) -> int:
    """Bytes that programs may use of each device of a layout, by one that is this process's own; see `memory.limit`."""
    return memory.limit(layout.mesh.local_devices[0])


def memory_for(there: int, begun_with: int, field: str) -> int:
    """Bytes of a device to choose shapes for: those that a run was begun with, else those that there are.

    Raises:
      InputError: there are fewer than the run was begun with; names the field that sets a shape.
    """
    if begun_with > there:
        raise InputError(
            f"shapes were chosen for {begun_with / GIB:.2f} GiB of a device, and these have {there / GIB:.2f}: go on with a "
            f"{field} of your own, which changes the last bits of what is drawn"
        )
    return begun_with or there


class Sizes:
    """The shapes of the engines of one model, chosen for the memory of its devices."""

    def __init__(
        self,
        layout: Layout,
        config: ModelConfig,
        bytes_of_device: int = 0,
        beside: int = 0,
        preamble: int = 0,
        read: int = 0,
        readers: Sequence[ModelConfig] = (),
    ):
        """Prepares choices.

        Args:
          layout: how parameters and rows are split.
          config: the architecture.
          bytes_of_device: what there is of memory; 0: `memory_of`.
          beside: bytes of a device that are held by others.
          preamble: tokens that most prompts begin with, see `Shape.preamble`.
          read: tokens of prompts and completions that a device reads at once between two chunks, if there are readers.
          readers: the architectures of the models that read.
        """
        self.memory = bytes_of_device or memory_of(layout)
        self._layout, self._beside, self._preamble, self._read = layout, beside, preamble, read
        self._model, *self._readers = (ModelBytes(layout, each) for each in (config, *readers))
        self._chosen: dict[tuple[int, int, int, int, int], Shape] = {}

    @property
    def _planned(self) -> float:
        """Bytes of a device that are planned with; where not one row fits these, all that are usable."""
        usable = USABLE * self.memory
        if self._layout.platform != "cpu":
            return usable
        return min(usable, max(CPU_SHARE * (self._model.parameters + self._beside), CPU_LEAST))

    @property
    def most(self) -> int:
        """Branches at most that an engine has, on all devices together."""
        shards = self._layout.batch_shards
        if self._layout.platform == "cpu":
            return max(MOST_SLOTS_ON_CPU // shards, 1) * shards
        return (MOST_SLOTS_ON_GPU if self._layout.platform == "gpu" else MOST_SLOTS) * shards

    def choose(self, max_prompt: int, max_new_tokens: int, samples: int, prompts: int = 0, siblings: int = 1) -> Shape:
        """The shape for prompts and completions of up to these lengths, where `samples` are drawn of a prompt at a time.

        `siblings` of the prompts come together, see `Shape.siblings`.

        A row has two trunks and no more branches than a prompt has samples. So when the last sample of a prompt has begun, all
        of the prompt before it have ended, and its trunk can make way for the next: no slot is idle while prompts wait. The
        numbers of branches that are powers of two are compared. For a stream of prompts, the one that reads the fewest bytes
        per token is taken, and as many rows as fit. A draw of `prompts` prompts (0: a stream) ends with idle slots, and the
        more slots there are, the more of them. So its rows, too, are those that read the fewest bytes until it has ended; and
        it may have a branch for every sample.

        Raises:
          InputError: not even one row of one branch fits.
        """
        key = max_prompt, max_new_tokens, samples, prompts, siblings
        if key not in self._chosen:
            self._chosen[key] = self._choose(*key)
        return self._chosen[key]

    def _choose(self, max_prompt: int, max_new_tokens: int, samples: int, prompts: int, siblings: int) -> Shape:
        most = min(samples, MOST_BRANCHES, self.most // self._layout.batch_shards)
        branches = {1 << power for power in range(most.bit_length())} | ({most} if prompts else set())
        one_row = [self._shape(max_prompt, max_new_tokens, number, 1, siblings) for number in sorted(branches)]
        for limit in (self._planned, USABLE * self.memory):
            if fitting := [shape for each in one_row if (shape := self._widest(each, limit))]:
                break
        else:
            least = self.account(one_row[0])
            raise InputError(
                f"a prompt of {max_prompt:,} and a completion of {max_new_tokens:,} tokens need {least.total / GIB:.2f} of "
                f"{self.memory / GIB:.2f} GiB of a device ({least}); see strategy and tensor"
            )
        if prompts:
            fitting = [shape for widest in fitting for shape in self._up_to(widest, samples, prompts)]

        def bytes_read(shape: Shape) -> float:
            """Per step and slot, or in all of a draw."""
            account = self.account(shape)
            slots = shape.rows * shape.branches
            steps = steps_of_a_draw(slots, shape.max_new_tokens, prompts * samples) if prompts else 1 / slots
            return steps * (account.parameters + account.slots)

        return min(fitting, key=lambda shape: (bytes_read(shape), -shape.branches))

    def of_slots(self, slots: int, max_prompt: int, max_new_tokens: int, samples: int, prompts: int) -> Shape:
        """The shape of draws of `prompts` prompts that has at most `slots` branches, but one row on each device in any case.

        If there is a slot for every sample, prompt i is in row i, and all begin together. For 0 slots it is that of `choose`.
        """
        shards = self._layout.batch_shards
        if not slots:
            return self.choose(max_prompt, max_new_tokens, samples, prompts)
        if slots >= prompts * samples:
            return Shape.of_groups(max_prompt, max_new_tokens, prompts, samples, devices=shards, preamble=self._preamble)
        branches = max(1, min(samples, MOST_BRANCHES, slots // shards))
        return self._shape(max_prompt, max_new_tokens, branches, max(1, slots // branches // shards))

    def together(self, shapes: Iterable[Shape]) -> bool:
        """Whether engines of these shapes fit at the same time."""
        accounts = [self.account(shape) for shape in shapes]
        held = sum(a.slots + a.arriving for a in accounts) + max(a.work for a in accounts)
        return held + self._model.parameters + self._beside <= self._planned

    def describe(self, shapes: Sequence[Shape]) -> str:
        """In words: rows, branches and trunks of each, and the memory that the largest needs."""
        each = (f"{s.rows} x {s.branches} x {s.trunks} for {s.max_prompt:,} + {s.max_new_tokens:,} tokens" for s in shapes)
        most = max(map(self.account, shapes), key=lambda account: account.total)
        return (
            f"{', '.join(each)} (rows x branches x trunks, prompt + completion); at most {most.total / GIB:.2f} of "
            f"{self.memory / GIB:.2f} GiB of a device ({most})"
        )

    def account(self, shape: Shape) -> Account:
        """What a shape needs.

        The formulas of `ModelBytes` were compared with what XLA allots for a TPU and a CPU, see docs/judge.md. There may be
        prompts without the preamble, so a prefill is counted as one of whole prompts; trunks of the preamble and of stems are
        held beside.
        """
        model, shape = self._model, shape.aligned(self._layout.platform)
        slots, trunk = model.row(shape)
        rows, prefilled = (ceil_div(n, self._layout.batch_shards) for n in (shape.rows, shape.prefill_rows))
        prefill = prefilled * model.activations(shape.max_prompt - 1)
        # Decoding on a TPU holds trunks, and the weights of queries, keys and values, a second time.
        drawing = rows * shape.trunks * trunk + model.projections + model.logits(rows * shape.branches)
        work = max(prefill, drawing) + model.gathered
        of_preamble = ceil_div(trunk * shape.preamble, shape.max_prompt - 1) if shape.preamble else 0
        stems = prefilled // shape.siblings if shape.siblings > 1 else 0
        return Account(
            parameters=model.parameters,
            beside=self._beside,
            slots=rows * slots,
            arriving=(2 * prefilled + stems) * trunk + of_preamble,
            work=max([work, *(self._reading(reader, shape) for reader in self._readers)]),
        )

    def _reading(self, model: ModelBytes, shape: Shape) -> int:
        """Bytes that a model needs to read what a shape has drawn: a row of it, if that is more than is read at once."""
        row = shape.siblings * (shape.max_prompt + next_power_of_four(shape.branches) * shape.max_new_tokens)
        tokens, (_, trunk) = max(self._read, row), model.row(shape)
        return model.activations(tokens) + trunk * tokens // shape.max_prompt + model.gathered

    def _shape(self, max_prompt: int, max_new_tokens: int, branches: int, rows_of_device: int, siblings: int = 1) -> Shape:
        shards = self._layout.batch_shards
        lengths, rows = (max_prompt, max_new_tokens), rows_of_device * shards
        return Shape.of_stream(*lengths, rows, branches, devices=shards, preamble=self._preamble, siblings=siblings)

    def _with_rows(self, shape: Shape, rows_of_device: int) -> Shape:
        return self._shape(shape.max_prompt, shape.max_new_tokens, shape.branches, rows_of_device, shape.siblings)

    def _widest(self, one_row: Shape, limit: float) -> Shape | None:
        """With as many rows as fit into `limit` bytes; None where not one does."""
        most = self.most // self._layout.batch_shards // one_row.branches
        rows = bisect.bisect_right(
            range(1, most + 1), limit, key=lambda rows: self.account(self._with_rows(one_row, rows)).total
        )
        return self._with_rows(one_row, rows) if rows else None

    def _up_to(self, widest: Shape, samples: int, prompts: int) -> Iterator[Shape]:
        """The widest shape and all those with fewer rows, with a single trunk where every prompt has a row of its own."""
        shards = self._layout.batch_shards
        for rows in range(1, widest.rows // shards + 1):
            shape = self._with_rows(widest, rows)
            begun_together = shape.rows >= prompts and shape.branches == samples
            yield dataclasses.replace(shape, trunks=1) if begun_together else shape


def steps_of_a_draw(slots: int, max_new_tokens: int, completions: int) -> float:
    """Decoding steps that a draw is expected to take.

    All of them at once take as long as the longest, w waves of them w times the mean length and a tail of half the limit or
    more. With lengths that are log-normal between 60 and 1,024, simulations gave 0.98, 1.14, 1.62, 2.50 and 4.50 times the
    limit for 1, 2, 4, 8 and 16 waves of 512 completions, and this is 1, 1.13, 1.56, 2.53 and 4.52 times.
    """
    waves = max(1.0, completions / slots)
    return MEAN_LENGTH * max_new_tokens * (waves + 2 + 1 / waves)
