"""Draws a stream of completions without idle slots: when a branch ends, a waiting sample takes its slot.

An engine decodes B rows of G branches, C tokens at a time. Each row holds U trunks, so that branches of the next prompt can
begin while the last branches of the previous one still run. Between two chunks, waiting samples of a prompt in the row replace
branches that have ended, and waiting prompts replace those that have no samples left.

The rows are split into as many shards as the layout has of a batch. A trunk is computed in the shard whose rows it goes to, so
that no trunk is sent anywhere. Several processes are given the same requests and do the same with them, each on its devices.

Trunks are computed level by level of a tree. Where most prompts begin with the same tokens, the preamble of a template, an
engine computes these once, and of each such prompt what follows them. Prompts that have more than that in common, as those of
a comparison in several orders have its conversation, are siblings: if it is worth it (`Shape.split`), their stem is computed
once and all of them behind it, in the same step.

A completion depends only on its prompt and the length of its stem, its key, the engine's shape and its preamble: branches never
see each other, and every sum runs over the same columns in the same order, whichever slot a branch is in and whenever it began.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from spct_jax import models
from spct_jax.errors import InputError
from spct_jax.models.config import ModelConfig
from spct_jax.runtime import distributed, idle
from spct_jax.sampling.engine_params import decode_params
from spct_jax.sampling.engine_programs import engine_programs
from spct_jax.sampling.engine_shape import Shape
from spct_jax.sampling.kernel import Completions
from spct_jax.sampling.params import SamplingParams
from spct_jax.sampling.prefilling import Families, Prefiller, families_of
from spct_jax.sampling.requests import Finished, Request, Usage
from spct_jax.sharding import Layout


@dataclasses.dataclass
class _Branch:
    request: Request
    sample: int
    trunk_slot: int
    tokens: list[np.ndarray] = dataclasses.field(default_factory=list)
    logprobs: list[np.ndarray] = dataclasses.field(default_factory=list)


class Engine:
    """The slots of one shape, the requests in them and the queue of requests that wait for them."""

    def __init__(
        self,
        layout: Layout,
        params: Any,
        config: ModelConfig,
        shape: Shape,
        sampling: SamplingParams,
        usage: Usage | None = None,
        preamble: Sequence[int] = (),
    ):
        """Puts empty slots on the devices. The programs are kept for later engines of the same shape.

        Args:
          layout: how parameters and rows are split.
          params: the model's parameters.
          config: the architecture.
          shape: what to compile for.
          sampling: how tokens are drawn.
          usage: a counter shared with other engines; None for one of its own.
          preamble: tokens that prompts begin with, as many as the shape's preamble; not read where that is 0.

        Raises:
          InputError: the rows, or those of a prefill, cannot be split evenly over the devices, or the preamble is not the
            shape's.
        """
        layout.check_rows(shape.rows, "a number of rows")
        self.shape, self._layout = shape.aligned(layout.platform), layout
        self._sampling = dataclasses.replace(sampling, temperature=np.float32(sampling.temperature))
        self._programs = engine_programs(layout, config, shape, sampling)
        self._params = decode_params(params, config, layout)
        self._slots = self._programs.init()
        self._queue: collections.deque[Request] = collections.deque()
        self._prefilled: models.Trunk | None = None
        """The trunks computed last."""
        self._unplaced: list[collections.deque[tuple[int, Request]]] = [collections.deque() for _ in range(layout.batch_shards)]
        """For each shard, (number within the shard, request) of those trunks that are in no row yet."""
        self._in_rows: list[list[Request | None]] = [[None] * shape.trunks for _ in range(shape.rows)]
        """[B][U], the request whose trunk is in each trunk slot."""
        self._running: dict[tuple[int, int], _Branch] = {}
        self._launched: collections.deque[tuple[Completions, jax.Array]] = collections.deque()
        """What is being drawn, oldest chunk first: (completions, which branches end)."""
        self.usage = Usage() if usage is None else usage
        self._prefiller = Prefiller(layout, self._params, self._programs.trunks, self.shape, preamble, self.usage)

    @property
    def capacity(self) -> int:
        """Number of branches decoded at once."""
        return self.shape.rows * self.shape.branches

    @property
    def pending(self) -> int:
        """Number of samples that run or wait."""
        return len(self._running) + self._waiting

    @property
    def _waiting(self) -> int:
        return sum(len(request.waiting) for request in self._known())

    def _known(self) -> set[Request]:
        """The requests that are queued or have a trunk, in a row or in none yet."""
        unplaced = (request for of_shard in self._unplaced for _, request in of_shard)
        return {*self._queue, *unplaced, *self._placed()}

    def _placed(self) -> Iterator[Request]:
        """Of each trunk in a row, its request."""
        return (request for row in self._in_rows for request in row if request is not None)

    def submit(self, *requests: Request) -> None:
        """Puts requests at the end of the queue, but for those that are queued already or have a trunk.

        Raises:
          InputError: a prompt is too long for the shape.
        """
        known = self._known()
        for request in requests:
            self._prefiller.admit(request)
            if request not in known:
                known.add(request)
                self._queue.append(request)

    def launch(self) -> None:
        """Fills idle slots and starts a chunk; the devices work on it while the caller does something else."""
        if self._waiting:
            self._refill()
        idle.CLOCK.giving()
        self._slots, *drawn = self._programs.chunk(self._params, self._slots, self._sampling)
        idle.CLOCK.gave(drawn)
        self._launched.append(drawn)

    def collect(self) -> list[Finished]:
        """Waits for the oldest chunk that was launched and returns the completions that ended in it.

        Raises:
          InputError: logits are not finite.
        """
        drawn, ended = distributed.fetch(self._launched.popleft())
        check_finite(drawn.logprobs)
        finished = []
        for (b, g), branch in list(self._running.items()):
            length = drawn.lengths[b, g]
            branch.tokens.append(drawn.tokens[b, g, :length])
            branch.logprobs.append(drawn.logprobs[b, g, :length])
            if ended[b, g]:
                del self._running[b, g]
                tokens, logprobs = np.concatenate(branch.tokens), np.concatenate(branch.logprobs)
                finished.append(Finished(branch.request, branch.sample, tokens.tolist(), logprobs))
        self.usage.tokens += int(drawn.lengths.sum())
        self.usage.slot_steps += int(drawn.lengths.max()) * self.capacity
        return finished

    def run(self, requests: Iterable[Request]) -> Iterator[Finished]:
        """Yields the completions of some requests as they end, all but the last while the devices draw the next chunk.

        Raises:
          InputError: a prompt is too long for the shape, or logits are not finite.
          distributed.StoppedError: SIGTERM or SIGINT came; looked for before each chunk. The engine has to be given up.
        """
        self.submit(*requests)
        finished: list[Finished] = []
        while self.pending:
            # Asked before the chunk is begun: devices answer in the order in which they are asked.
            told = distributed.PREEMPTION.look(alone=self._layout.is_local)
            self.launch()
            yield from finished
            # If no sample waits for a slot, it does not matter when one becomes free: the devices need not wait for the host.
            finished = self.collect() if self._waiting or len(self._launched) > 1 else []
            if told():
                raise distributed.StoppedError
        yield from finished
        while self._launched:
            yield from self.collect()

    def _refill(self) -> None:
        before = set(self._running)
        while (wanting := self._fill()) and self._prefill(wanting):
            pass
        if not any(self._unplaced):
            self._prefilled = None
        if begun := self._running.keys() - before:
            self._begin(begun)

    def _fill(self) -> set[int]:
        """Gives idle slots samples of trunks that there are; returns the shards that have room for more trunks."""
        admitted: list[tuple[int, int, int]] = []
        wanting: set[int] = set()
        for b in range(self.shape.rows):
            for g in range(self.shape.branches):
                if (b, g) in self._running:
                    continue
                trunk_slot = self._slot_with_work(b)
                if trunk_slot is None and (trunk_slot := self._admit(b, admitted, wanting)) is None:
                    break
                request = self._in_rows[b][trunk_slot]
                self._running[b, g] = _Branch(request, request.waiting.popleft(), trunk_slot)
        self._insert(admitted)
        return wanting

    def _slot_with_work(self, b: int) -> int | None:
        return next((u for u, request in enumerate(self._in_rows[b]) if request is not None and request.waiting), None)

    def _shard_of(self, b: int) -> int:
        return b * len(self._unplaced) // self.shape.rows

    def _admit(self, b: int, admitted: list, wanting: set[int]) -> int | None:
        """Gives row b a trunk of its shard; returns its slot, or None where there is no room, or no trunk with work."""
        u = self._free_slot(b)
        if u is None:
            return None
        unplaced = self._unplaced[self._shard_of(b)]
        while unplaced and not unplaced[0][1].waiting:
            unplaced.popleft()
        if not unplaced:
            wanting.add(self._shard_of(b))
            return None
        source, self._in_rows[b][u] = unplaced.popleft()
        admitted.append((b, u, source))
        return u

    def _free_slot(self, b: int) -> int | None:
        """An empty trunk slot of row b, or else one whose trunk no branch reads and no sample waits for; None if none is."""
        row, branches = self._in_rows[b], (self._running.get((b, g)) for g in range(self.shape.branches))
        read = {branch.trunk_slot for branch in branches if branch}
        idle = (u for u, request in enumerate(row) if u not in read and not (request and request.waiting))
        return min(idle, key=lambda u: row[u] is not None, default=None)

    def _prefill(self, wanting: set[int]) -> bool:
        """Computes the next trunks of the queue, in all shards; returns whether there are any.

        They all are of one split. Where the queue has none left for a wanting shard, those of requests that still have waiting
        samples are recomputed.
        """
        self._requeue()
        again = [*dict.fromkeys(request for request in self._placed() if request.waiting)]
        if not (self._queue or again):
            return False
        if self._prefilled is not None:
            # XLA's CPU backend takes at most 32 programs at a time; if they exchange data, more of them can deadlock.
            jax.block_until_ready(self._prefilled)
        chosen = self._choose(wanting, again)
        self._prefilled, self._unplaced = self._prefiller.compute(chosen)
        return True

    def _requeue(self) -> None:
        """Puts requests whose trunks found no row before those that wait, and drops those of which no sample waits any more."""
        unplaced = [request for of_shard in reversed(self._unplaced) for _, request in of_shard]
        self._unplaced = [collections.deque() for _ in self._unplaced]
        self._queue = collections.deque(request for request in (*unplaced, *self._queue) if request.waiting)

    def _choose(self, wanting: set[int], again: list[Request]) -> list[Families]:
        """For each shard, the families of the queue, or of what is computed `again`, whose trunks are computed next.

        All are of the split of the first; others wait for their turn. Of a family there are no more than the shape's siblings.
        """
        split = (self._queue or again)[0].split
        shards = sorted(range(len(self._unplaced)), key=lambda s: s not in wanting)
        siblings = self.shape.siblings if split.stem else 1
        each, chosen = self.shape.prefill_rows // len(shards) // siblings, [[] for _ in shards]
        families = families_of(self._queue, split, siblings)
        for s, family in zip(itertools.cycle(shards), families[: each * len(shards)], strict=False):
            chosen[s].append(family)
        taken = {request for families in chosen for family in families for request in family}
        self._queue = collections.deque(request for request in self._queue if request not in taken)
        for s in wanting:
            chosen[s] = chosen[s] or families_of(again, split, siblings)[:each]
        return chosen

    def _insert(self, admitted: list[tuple[int, int, int]]) -> None:
        """Copies the admitted trunks, each a (row, trunk slot, number within the shard), into their slots."""
        if not admitted:
            return
        shards = len(self._unplaced)
        rows, each = self.shape.rows // shards, self.shape.prefill_rows // shards
        positions = np.full((3, shards, each), rows, np.int32)
        for s, of_shard in itertools.groupby(admitted, lambda one: self._shard_of(one[0])):
            for i, (b, u, source) in enumerate(of_shard):
                positions[:, s, i] = b % rows, u, source
        self._slots = self._programs.insert(self._slots, self._prefilled, *self._layout.split(tuple(positions.reshape(3, -1))))

    def _begin(self, begun: set[tuple[int, int]]) -> None:
        """Begins the branches that have been given these slots."""
        shape, branches = (self.shape.rows, self.shape.branches), {at: self._running[at] for at in begun}
        fresh, trunk_slot, sample, last = np.zeros(shape, bool), *np.zeros((3, *shape), np.int32)
        keys = np.zeros((*shape, *next(iter(branches.values())).request.key.shape), np.uint32)
        for at, branch in branches.items():
            fresh[at], trunk_slot[at], sample[at] = True, branch.trunk_slot, branch.sample
            last[at], keys[at] = branch.request.prompt[-1], branch.request.key
        rows = self._layout.split((fresh, trunk_slot, keys, sample, last))
        self._slots = self._programs.begin(self._slots, *rows)


def check_finite(logprobs: Float32[np.ndarray, "B G C"]) -> None:
    """Raises InputError if a log-probability of a drawn token is not finite; with finite logits all of them are finite."""
    if not np.isfinite(logprobs).all():
        raise InputError(
            "the model's logits are NaN or infinite: its weights, or a dtype too narrow for it, are the likely cause"
        )
