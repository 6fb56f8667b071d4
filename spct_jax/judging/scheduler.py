"""One pass of a judge over a stream of comparisons: prompts made ahead, engines fed, critiques read, verdicts in order.

A verdict depends on its own comparison, the comparison's id, the seed and the table of shapes, never on its neighbours: see
`sampling.engine`, and `judging.rescoring` for what is read of the critiques afterwards.
"""

import collections
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING

import jax
import numpy as np
import tqdm

from spct_jax import distributed
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.grm import lengths, orders, voting
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.template import Template
from spct_jax.judging import adaptive, unread
from spct_jax.judging.options import Options
from spct_jax.judging.rescoring import Reader
from spct_jax.judging.task import Order, Prepared, Task
from spct_jax.judging.verdicts import Sample, Verdict
from spct_jax.numbers import ceil_div
from spct_jax.sampling import programs
from spct_jax.sampling.engine import Engine, Finished, Request, Usage
from spct_jax.sampling.programs import Sampler, Shape

if TYPE_CHECKING:
    from spct_jax.judging.judge import Judge

MAX_ENGINES = 3
"""Shapes whose slots are on the devices at once."""
PREPARED = 64
"""Comparisons whose prompts are made ahead of need."""
MOST_PREPARED = 1 << 24
"""Characters of those comparisons, unless there is only one."""
MOST_HELD = 1 << 26
"""Tokens of prompts and characters of texts of all comparisons that are at work or wait to be yielded, unless there is one."""


@contextlib.contextmanager
def _thread() -> Iterator[futures.Executor]:
    """A thread; what it has not begun when it is left is dropped."""
    pool = futures.ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class Stream:
    """One pass over a sequence of comparisons."""

    def __init__(self, judge: "Judge", options: Options):
        """`judge` is the `judging.Judge` whose models are used; InputError if they have too few positions for the options."""
        options = options.for_model(judge.config)
        if judge.meta is not None:
            options.for_model(judge.meta[1])
        self.judge, self.options = judge, options
        self.prompter = judge.prompter
        self.key = jax.random.key(options.seed)
        self.engines: dict[tuple[int, int], Engine] = {}
        self.backlog: dict[tuple[int, int], list[Request]] = {}
        self.open: collections.Counter[tuple[int, int]] = collections.Counter()
        self.sampler = Sampler(options.temperature, self.prompter.tokenizer.stop_ids, options.top_k, options.top_p)
        self.reads = bool(options.k_meta) or options.mode == "token_prob"
        self.reader = Reader(judge, options, self._conclude)
        self.window = max(16, 16 * options.batch_size * options.branches // options.k)
        self.held = 0
        self.usage = judge.usage = Usage()
        self.watch = unread.Watch(options, judge.carries_templates)

    def run(self, comparisons: Iterable[Comparison]) -> Iterator[Verdict | InputError]:
        """One outcome per comparison, in their order."""
        tasks: collections.deque[Task] = collections.deque()
        finished: list[Finished] = []
        # Prompts are written and tokenised, and the programs of further shapes compiled, beside the devices' work.
        with contextlib.ExitStack() as leaving, _thread() as worker, _thread() as compiler:
            leaving.callback(self._let_go)
            coming = self._prepared(comparisons, worker)
            while True:
                while self._has_room(tasks) and (task := next(coming, None)) is not None:
                    tasks.append(task)
                    self.held += task.size
                    self._submit(task)
                if not tasks:
                    return
                self._compile_ahead(compiler)
                while tasks and tasks[0].outcome is not None:
                    self.held -= tasks[0].size
                    yield tasks.popleft().outcome
                engine = self._next_engine()
                if engine is not None:
                    engine.launch()
                # Texts are decoded and parsed while the devices draw the next tokens.
                for completion in finished:
                    self._digest(completion)
                finished = engine.collect() if engine is not None else []
                if engine is None or (tasks[0].unread and len(tasks) >= self.window):
                    self.reader.read(fill=False)

    def _let_go(self) -> None:
        """Drops the slots, and the reader, which names the stream: Python may look for such rings after memory is full."""
        self.engines.clear()
        self.reader = None

    def _has_room(self, tasks: Sequence[Task]) -> bool:
        return not tasks or (len(tasks) < self.window and self.held < MOST_HELD)

    def _prepared(self, comparisons: Iterable[Comparison], worker: futures.Executor) -> Iterator[Task]:
        ahead: collections.deque[tuple[Comparison, futures.Future]] = collections.deque()
        characters = 0
        for comparison in comparisons:
            ahead.append((comparison, worker.submit(self._prepare, comparison)))
            characters += comparison.characters
            while len(ahead) >= PREPARED or (ahead and characters > MOST_PREPARED):
                characters -= ahead[0][0].characters
                yield self._task(*ahead.popleft())
        while ahead:
            yield self._task(*ahead.popleft())

    def _task(self, comparison: Comparison, prepared: futures.Future) -> Task:
        task = Task(comparison, prepared.result(), 0)
        try:
            self._shape(task)
        except InputError as error:
            task.outcome = error
        return task

    def _prepare(self, comparison: Comparison) -> Prepared:
        """The prompts that will be needed; what does not fit is found out before more than one of them is made."""
        options, prompter = self.options, self.prompter
        shown = list(dict.fromkeys(self._order(comparison, s) for s in range(options.k)))
        if options.mode == "scores":
            template, encode = prompter.template_of(comparison), prompter.encode
        else:
            template, encode = prompter.choice, prompter.encode_choice
        prompts, longest = self._encoded(comparison, shown, template, prompter, encode)
        readers = prompts
        if options.k_meta and prompts:
            meta = self.judge.meta[2]
            readers, length = self._encoded(comparison, shown, meta.meta, meta, meta.encode_meta)
            longest = max(longest, length)
        return Prepared(prompts if readers else {}, readers, longest)

    def _encoded(
        self, comparison: Comparison, shown: list[Order], template: Template, prompter: Prompter, encode: Callable
    ) -> tuple[dict[Order, np.ndarray], int]:
        """Prompts by order, none if the longest of any order does not fit; and the tokens of that one."""
        made: dict[Order, np.ndarray] = {}

        def one(order: Order) -> np.ndarray:
            if order not in made:
                made[order] = np.array(encode(comparison, order), np.int32)
            return made[order]

        limit = self.options.longest_prompt
        longest = lengths.longest(comparison, template, prompter.tokenizer, one, first=shown[0], limit=limit)
        return {order: one(order) for order in shown} if longest <= limit else {}, longest

    def _order(self, comparison: Comparison, sample: int) -> tuple[int, ...]:
        return orders.sample_order(comparison.n, self.options.order, self.options.seed, comparison.id, sample)

    def _shape(self, task: Task) -> tuple[int, int]:
        return self.options.shape_of(task.prepared.longest)

    def _submit(self, task: Task) -> None:
        if task.outcome is not None:
            return
        options, comparison = self.options, task.comparison
        key = np.asarray(jax.random.key_data(jax.random.fold_in(self.key, orders.stable_hash(comparison.id))))
        task.requests = [
            Request((task, order), prompt, key, collections.deque()) for order, prompt in task.prepared.prompts.items()
        ]
        self.open[self._shape(task)] += 1
        self._ask(task, options.rounds * comparison.n if options.adaptive else options.k)

    def _ask(self, task: Task, count: int) -> None:
        """Asks for `count` more samples, k in all at most."""
        until = min(task.planned + count, self.options.k)
        by_order = {request.tag[1]: request for request in task.requests}
        for sample in range(task.planned, until):
            by_order[self._order(task.comparison, sample)].waiting.append(sample)
        task.planned = until
        self.backlog.setdefault(self._shape(task), []).extend(r for r in task.requests if r.waiting)

    def _next_engine(self) -> Engine | None:
        """The engine whose next chunk has most to do; shapes take turns when there are more of them than fit."""
        for shape in [s for s in self.engines if not self.open[s]]:
            if self.backlog.keys() - self.engines.keys() and len(self.engines) >= MAX_ENGINES:
                del self.engines[shape]
        for shape in list(self.backlog):
            if shape in self.engines or len(self.engines) < MAX_ENGINES:
                engine = self.engines.get(shape) or self._make_engine(shape)
                for request in self.backlog.pop(shape):
                    engine.submit(request)
        busy = [engine for engine in self.engines.values() if engine.pending]
        return max(busy, key=lambda engine: min(engine.pending, engine.capacity), default=None)

    def _compile_ahead(self, pool: futures.Executor) -> None:
        """Has the programs of the shapes that wait compiled, in the order in which they will be drawn."""
        judge, new = self.judge, []
        for shape in self.backlog:
            size = self._size(shape)
            if (size, self.sampler) not in judge.shapes:
                judge.shapes.add((size, self.sampler))
                if programs.compile_ahead(pool, judge.layout, judge.params, judge.config, size, self.sampler):
                    new.append(f"{size.max_prompt:,}")
        if new and distributed.is_first():
            tqdm.tqdm.write(f"compiling for prompts of up to {' / '.join(new)} tokens", file=sys.stderr)

    def _size(self, shape: tuple[int, int]) -> Shape:
        options, devices = self.options, self.judge.layout.batch_shards
        rows = ceil_div(options.batch_size, devices) * devices
        prefill_rows = programs.prefill_rows(shape[0], rows, devices)
        return Shape(*shape, rows=rows, branches=options.branches, trunks=options.trunks, prefill_rows=prefill_rows)

    def _make_engine(self, shape: tuple[int, int]) -> Engine:
        judge = self.judge
        self.engines[shape] = Engine(judge.layout, judge.params, judge.config, self._size(shape), self.sampler, self.usage)
        return self.engines[shape]

    def _digest(self, completion: Finished) -> None:
        task, order = completion.request.tag
        read = self.prompter.read if self.options.mode == "scores" else self.prompter.read_choice
        r = read(task.comparison, order, [completion.tokens])
        self.watch.count(r.scores[0] is not None, r.truncated[0])
        task.samples[completion.sample] = Sample(
            order, r.scores[0], None, r.texts[0], r.truncated[0], tokens=len(completion.tokens)
        )
        if self.reads:
            task.tokens[completion.sample] = completion.tokens
        if len(task.samples) < task.planned:
            return
        if self.options.adaptive and task.planned < self.options.k:
            drawn = [task.samples[s].scores for s in range(task.planned)]
            if not adaptive.decided(drawn, task.comparison.n, self.options.k, self.options.adaptive):
                self._ask(task, self.options.rounds * task.comparison.n)
                return
        self.open[self._shape(task)] -= 1
        if self.reads:
            self.reader.queue(task)
        else:
            self._conclude(task)

    def _conclude(self, task: Task) -> None:
        samples = tuple(task.samples[s] for s in range(task.planned))
        scores = [sample.scores for sample in samples]
        n = task.comparison.n
        if self.options.k_meta:
            totals = voting.guided_vote(scores, [s.meta for s in samples], self.options.k_meta, n)
        else:
            totals = voting.sum_vote(scores, n)
        top = voting.winners(totals)
        task.outcome = Verdict(
            id=task.comparison.id,
            scores=totals,
            best=top[0] if len(top) == 1 else None,
            tied=top if len(top) > 1 else (),
            k=len(samples),
            valid=sum(s is not None for s in scores),
            truncated=sum(s.truncated for s in samples),
            samples=samples,
        )
