"""Drawing a stream of completions without idle slots: a branch that has ended makes room for one that waits.

An engine decodes B rows of G branches, C tokens at a time. Each row holds U trunks, so that the branches of the next prompt
begin while the last ones of the prompt before still run. Between two chunks, ended branches are replaced by waiting samples
of a prompt in their row, and prompts that are used up by waiting ones.

A completion depends on its prompt, its key and the engine's shape only: branches never see each other, every sum runs over
the same columns in the same order wherever a branch stands and whenever it began.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from spct_jax import distributed, models
from spct_jax.data import batches
from spct_jax.models.config import ModelConfig
from spct_jax.sampling import programs
from spct_jax.sampling.generate import Completions, check_finite, check_truncation
from spct_jax.sampling.programs import Sampler, Shape
from spct_jax.sharding import Layout


@dataclasses.dataclass
class Usage:
    """What became of decode slots."""

    tokens: int = 0
    """Tokens drawn."""
    slot_steps: int = 0
    """Slots times steps."""
    prefills: int = 0
    """Trunks computed."""

    @property
    def useful_share(self) -> float:
        """Share of slots, over all steps, that drew a token."""
        return self.tokens / self.slot_steps if self.slot_steps else 1.0


@dataclasses.dataclass(eq=False)
class Request:
    """A prompt and the samples of it that are wanted; it may be submitted again with more of them."""

    tag: Any
    """For the caller."""
    prompt: Sequence[int]
    key: np.ndarray
    """Key data of the prompt; sample s is drawn with fold_in(key, s)."""
    waiting: collections.deque[int]
    """Numbers of the samples not yet begun."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """One completion."""

    request: Request
    sample: int
    tokens: list[int]
    """Terminator included."""
    logprobs: np.ndarray
    """Float32, of each token under the distribution it was drawn from."""


@dataclasses.dataclass
class _Branch:
    request: Request
    sample: int
    tokens: list[np.ndarray] = dataclasses.field(default_factory=list)
    logprobs: list[np.ndarray] = dataclasses.field(default_factory=list)


class Engine:
    """One shape's slots, the requests in them and the queue before them."""

    def __init__(
        self,
        layout: Layout,
        params: Any,
        config: ModelConfig,
        shape: Shape,
        sampler: Sampler,
        usage: Usage | None = None,
    ):
        """Puts empty slots on the devices.

        Args:
          layout: how parameters and rows are split.
          params: the model's parameters, in that layout.
          config: the architecture.
          shape: what to compile for.
          sampler: how tokens are drawn.
          usage: where to count, if other engines count there too.

        Raises:
          InputError: truncation out of range, or rows that the devices do not divide.
        """
        check_truncation(sampler.top_k, sampler.top_p)
        self.shape, self.sampler, self._layout = shape, sampler, layout
        layout.check_rows(shape.rows, "a number of rows")
        params, self._config = programs.prepared(params, config)
        self._params = jax.device_put(params, layout.params(params))
        self._slots = programs.empty(layout=layout, config=self._config, shape=shape)
        self._queue: collections.deque[Request] = collections.deque()
        self._live: dict[int, Request] = {}
        self._ready: tuple[models.Trunk, list[Request]] | None = None
        self._placed: list[list[Request | None]] = [[None] * shape.trunks for _ in range(shape.rows)]
        self._running: dict[tuple[int, int], tuple[_Branch, int]] = {}
        self._launched: Completions | None = None
        self.usage = Usage() if usage is None else usage

    @property
    def capacity(self) -> int:
        """Branches decoded at once."""
        return self.shape.rows * self.shape.branches

    @property
    def pending(self) -> int:
        """Samples begun or waiting."""
        return len(self._running) + sum(len(request.waiting) for request in self._live.values())

    def submit(self, request: Request) -> None:
        """Puts a request at the end of the queue, unless its trunk is still in a row from an earlier time.

        Raises:
          InputError: the prompt is too long for the shape.
        """
        batches.pack_prompts([request.prompt], self.shape.max_prompt)
        if id(request) not in self._live:
            self._live[id(request)] = request
            self._queue.append(request)

    def launch(self) -> None:
        """Fills idle slots and starts a chunk; the devices work on it while the caller does something else."""
        self._refill()
        self._slots, self._launched = programs.chunk(
            self._params,
            self._slots,
            np.float32(self.sampler.temperature),
            layout=self._layout,
            config=self._config,
            limit=self.shape.max_new_tokens,
            stop_ids=self.sampler.stop_ids,
            top_k=self.sampler.top_k,
            top_p=self.sampler.top_p,
        )

    def collect(self) -> list[Finished]:
        """Waits for the chunk and returns the completions that ended in it; InputError where logits are not finite."""
        drawn, done = distributed.fetch((self._launched, self._slots.done))
        check_finite(drawn.logprobs)
        finished = []
        for (b, g), (branch, _) in list(self._running.items()):
            length = drawn.lengths[b, g]
            branch.tokens.append(drawn.tokens[b, g, :length])
            branch.logprobs.append(drawn.logprobs[b, g, :length])
            if done[b, g]:
                del self._running[b, g]
                tokens, logprobs = np.concatenate(branch.tokens), np.concatenate(branch.logprobs)
                finished.append(Finished(branch.request, branch.sample, tokens.tolist(), logprobs))
        self.usage.tokens += int(drawn.lengths.sum())
        self.usage.slot_steps += int(drawn.lengths.max()) * self.capacity
        self._launched = None
        return finished

    def run(self, requests: Iterable[Request]) -> list[Finished]:
        """All completions of some requests, in the order in which they end."""
        for request in requests:
            self.submit(request)
        finished = []
        while self.pending:
            self.launch()
            finished += self.collect()
        return finished

    def _refill(self) -> None:
        begun, admitted = [], []
        for b in range(self.shape.rows):
            for g in range(self.shape.branches):
                if (b, g) in self._running:
                    continue
                place = self._place_with_work(b)
                if place is None and (place := self._admit(b, admitted)) is None:
                    break
                request = self._placed[b][place]
                branch = _Branch(request, request.waiting.popleft())
                self._running[b, g] = (branch, place)
                begun.append((b, g, branch, place))
        self._insert(admitted)
        if begun:
            self._begin(begun)

    def _place_with_work(self, b: int) -> int | None:
        return next((u for u, request in enumerate(self._placed[b]) if request is not None and request.waiting), None)

    def _admit(self, b: int, admitted: list) -> int | None:
        """Gives row b a waiting request; returns its place, or None where there is no room or no work."""
        place = self._free_place(b)
        if place is None:
            return None
        if not (self._ready and self._ready[1]):
            self._insert(admitted)
            self._prefill()
        if not (self._ready and self._ready[1]):
            return None
        _, requests = self._ready
        self._forget(b, place)
        self._placed[b][place] = request = requests.pop(0)
        self._live[id(request)] = request
        admitted.append((b, place, self.shape.prefill_rows - 1 - len(requests)))
        return place if request.waiting else None

    def _free_place(self, b: int) -> int | None:
        """A place of row b without a trunk, or else with one that no branch reads or waits for."""
        row, read = self._placed[b], {place for (row, _), (_, place) in self._running.items() if row == b}
        idle = (u for u, request in enumerate(row) if u not in read and not (request and request.waiting))
        return min(idle, key=lambda u: row[u] is not None, default=None)

    def _forget(self, b: int, place: int) -> None:
        request, self._placed[b][place] = self._placed[b][place], None
        if request is not None and not any(request is other for row in self._placed for other in row):
            self._live.pop(id(request), None)

    def _prefill(self) -> None:
        """Computes the next trunks of the queue; when it is empty, once more those whose samples still queue up."""
        size = self.shape.prefill_rows
        chosen = [self._queue.popleft() for _ in range(min(size, len(self._queue)))]
        if not chosen:
            waiting = {id(r): r for row in self._placed for r in row if r is not None and r.waiting}
            chosen = list(itertools.islice(waiting.values(), size))
        if not chosen:
            return
        if self._ready:
            # XLA's CPU backend holds 32 programs at most, and where they exchange data, more of them can wait for each other.
            jax.block_until_ready(self._ready[0])
        # Filled up from the left, so that the last of the batch is the last of the queue.
        prompts = [[0]] * (size - len(chosen)) + [r.prompt for r in chosen]
        tokens, lengths, _ = batches.pack_prompts(prompts, self.shape.max_prompt)
        self._ready = self._read_prompts(tokens, lengths), chosen
        self.usage.prefills += len(chosen)

    def _read_prompts(self, tokens: np.ndarray, lengths: np.ndarray) -> models.Trunk:
        rows = self._layout.split((tokens, lengths))
        return programs.prefill(self._params, *rows, layout=self._layout, config=self._config)

    def _insert(self, admitted: list) -> None:
        if not admitted:
            return
        places = np.full((3, self.shape.prefill_rows), self.shape.rows, np.int32)
        places[:, : len(admitted)] = np.transpose(admitted)
        self._slots = programs.insert(self._slots, self._ready[0], *places, layout=self._layout)
        admitted.clear()

    def _begin(self, begun: list) -> None:
        shape = (self.shape.rows, self.shape.branches)
        fresh, place, sample, last = np.zeros(shape, bool), *np.zeros((3, *shape), np.int32)
        keys = np.zeros((*shape, *begun[0][2].request.key.shape), np.uint32)
        for b, g, branch, u in begun:
            fresh[b, g], place[b, g], sample[b, g] = True, u, branch.sample
            last[b, g], keys[b, g] = branch.request.prompt[-1], branch.request.key
        rows = self._layout.split((fresh, place, keys, sample, last))
        self._slots = programs.begin(self._slots, *rows, layout=self._layout)
