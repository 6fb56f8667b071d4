"""One pass of a judge over comparisons: prompts made ahead, engines fed, critiques read, verdicts in order.

A verdict depends on its own comparison, the comparison's id, the seed and the table of shapes, never on its neighbours: see
`sampling.engine`, and `judging.rescoring` for what is read of the critiques afterwards.
"""

import collections
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures

import jax
import numpy as np

from spct_jax import sharding
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.grm import orders, parse
from spct_jax.judging import adaptive, tasks
from spct_jax.judging.models import Models
from spct_jax.judging.options import Options
from spct_jax.judging.rescoring import Rescorer
from spct_jax.judging.tasks import NO_PROMPTS, Prompts, Task
from spct_jax.judging.unreadable import UnreadableWarning
from spct_jax.judging.verdicts import Sample, Verdict
from spct_jax.models import tiles
from spct_jax.runtime import compiling, distributed, memory
from spct_jax.sampling import Engine, Finished, Request, SamplingParams, Shape, Usage
from spct_jax.sampling.engine_programs import engine_programs
from spct_jax.sampling.engine_shape import Level
from spct_jax.sampling.engine_size import Sizes
from spct_jax.sampling.prefilling import split_of

MAX_ENGINES = 3
"""Shapes whose slots are on the devices at once."""
COMPILED_AT_ONCE = 2
"""Programs that are compiled at once: a shape has two large ones, and compiling one keeps a core and a third busy."""
PREPARED = 64
"""Comparisons whose prompts are made ahead of need."""
MOST_PREPARED = 1 << 24
"""Characters of those comparisons, unless there is only one."""
MOST_HELD = 1 << 26
"""Tokens of prompts and characters of texts of all comparisons that are at work or wait to be yielded, unless there is one."""


@contextlib.contextmanager
def _left(pool: futures.Executor) -> Iterator[futures.Executor]:
    """A pool of threads of which what they have not begun is dropped when it is left."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class Scheduler:
    """One pass over a sequence of comparisons.

    Attributes:
      usage: tokens, prefills and decode slots so far.
    """

    def __init__(self, models: Models, options: Options, usage: Usage | None = None, said: set[Shape] | None = None):
        """Prepares a pass, which adds to `usage` and to `said`, the shapes of which nothing more is said.

        Raises:
          InputError: the models have too few positions for the options, or no part that the options ask for.
        """
        options = options.for_model(models.policy.config)
        if models.meta is not None:
            options.for_model(models.meta.config)
        template = models.policy.prompter.template if options.mode == "scores" else models.policy.prompter.choice
        if options.share_principles and not template.principles:
            raise InputError(f"share_principles: template {template.name!r} has no part for principles")
        if options.read == "expected" and models.policy.prompter.chooses:
            raise InputError(
                f"read='expected': template {template.name!r} names the best response and has no scores; mode='token_prob' "
                "weights what it names"
            )
        self._preamble = models.policy.prompter.preamble_of(template)
        self.usage = usage or Usage()
        self._said = set() if said is None else said
        self._models, self._options, self._prompter = models, options, models.policy.prompter
        self._rescorer = Rescorer(models, options)
        self._warning = UnreadableWarning(options, models.knows_templates)
        self._sampling = SamplingParams(options.temperature, self._prompter.tokenizer.stop_ids, options.top_k, options.top_p)
        self._key = jax.random.key(options.seed)
        self._compiled: dict[Shape, set[Level]] = {}
        self._wanted: dict[Shape, dict[Level, None]] = {}
        """What is computed of prompts that were asked for since programs were last compiled."""
        self._engines: dict[Shape, Engine] = {}
        self._backlog: dict[Shape, list[Request]] = {}
        self._open: collections.Counter[Shape] = collections.Counter()
        """Tasks that are not all drawn."""
        self._sizes = None if options.batch_size else self._make_sizes()
        if self._sizes:
            self._sizes.choose(*options.lengths(1), 1)  # an error, where not even that fits
        most = self._sizes.most if self._sizes else options.batch_size * options.branches
        self._window = max(16, 16 * most // options.k)
        self._held = 0

    def _make_sizes(self) -> Sizes:
        """What chooses shapes beside the meta RM, and beside the batches of critiques that are read once more."""
        models, layout = self._models, self._models.layout
        beside = 0 if models.meta is None else sharding.bytes_of_arrays(models.meta.params)
        return Sizes(
            layout,
            models.policy.config,
            self._options.memory,
            beside,
            len(self._preamble),
            read=tiles.of(layout.platform).read_tokens // layout.batch_shards,
            readers=self._rescorer.readers,
        )

    def run(self, comparisons: Iterable[Comparison]) -> Iterator[Verdict | InputError]:
        """One outcome per comparison, in their order."""
        begun: collections.deque[Task] = collections.deque()
        finished: list[Finished] = []
        # Prompts are written and tokenised, and the programs of further shapes compiled, while the devices work.
        with (
            contextlib.ExitStack() as leaving,
            _left(futures.ThreadPoolExecutor(1)) as worker,
            _left(compiling.threads(COMPILED_AT_ONCE)) as compiler,
        ):
            # Whoever looks at the traceback of an error, or keeps it, must not hold the slots.
            leaving.callback(self._engines.clear)
            coming = self._prepared(comparisons, worker)
            while True:
                # One whose turn is over lets its slots go before there are those of another.
                engine = None
                while self._has_room(begun) and (task := next(coming, None)) is not None:
                    begun.append(task)
                    self._held += task.size
                    self._submit(task)
                if not begun:
                    return
                self._compile_ahead(compiler)
                while begun and begun[0].outcome is not None:
                    self._held -= begun[0].size
                    yield begun.popleft().outcome
                engine = self._next_engine()
                if engine is not None:
                    engine.launch()
                # Texts are decoded and parsed while the devices draw the next tokens.
                for completion in finished:
                    self._read(completion)
                finished = engine.collect() if engine is not None else []
                if engine is None or (begun[0].to_rescore and len(begun) >= self._window):
                    self._conclude(self._rescorer.flush(only_full=False))

    def _has_room(self, begun: Sequence[Task]) -> bool:
        return not begun or (len(begun) < self._window and self._held < MOST_HELD)

    # Prompts.

    def _prepared(self, comparisons: Iterable[Comparison], worker: futures.Executor) -> Iterator[Task]:
        ahead: collections.deque[tuple[Comparison, futures.Future[Prompts]]] = collections.deque()
        characters = 0
        for comparison in comparisons:
            ahead.append((comparison, worker.submit(tasks.make_prompts, comparison, self._models, self._options)))
            characters += comparison.characters
            while len(ahead) >= PREPARED or (ahead and characters > MOST_PREPARED):
                characters -= ahead[0][0].characters
                yield self._make_task(*ahead.popleft())
        while ahead:
            yield self._make_task(*ahead.popleft())

    def _make_task(self, comparison: Comparison, prompts: futures.Future[Prompts]) -> Task:
        task = Task(comparison, NO_PROMPTS)
        try:
            task.prompts = prompts.result()
            task.prefix = task.prompts.prefix
            task.shape = self._shape(task.prompts.longest, comparison.n)
        except InputError as error:
            task.outcome = error
        return task

    def _shape(self, length: int, n: int) -> Shape:
        """The engine's shape for prompts of up to `length` tokens with n responses; InputError if there is none."""
        options = self._options
        max_prompt, max_new_tokens = options.lengths(length, len(self._preamble))
        if self._sizes:
            return self._sizes.choose(max_prompt, max_new_tokens, options.samples_at_once(n), siblings=options.siblings(n))
        return Shape.of_stream(
            max_prompt,
            max_new_tokens,
            options.batch_size,
            options.branches,
            devices=self._models.layout.batch_shards,
            preamble=len(self._preamble),
            siblings=options.siblings(n),
        )

    # Drawing.

    def _submit(self, task: Task) -> None:
        if task.outcome is not None:
            return
        self._open_requests(task)
        self._ask(task, 1 if self._options.share_principles and not task.prefix else self._first_round(task))

    def _open_requests(self, task: Task) -> None:
        """Makes a request for each order, for samples that begin as the task's do now."""
        key = np.asarray(jax.random.key_data(jax.random.fold_in(self._key, orders.stable_hash(task.comparison.id))))
        for order, prompt in task.prompts.sampling.items():
            prompt = np.append(prompt, np.array(task.prefix, np.int32)) if task.prefix else prompt
            task.requests[order] = Request((task, order), prompt, key, collections.deque(), stem=task.prompts.stem)
        self._open[task.shape] += 1

    def _first_round(self, task: Task) -> int:
        """How many samples are drawn before it is looked at whether more are needed."""
        options = self._options
        return min(options.rounds * task.comparison.n, options.k) if options.adaptive else options.k

    def _ask(self, task: Task, until: int) -> None:
        """Asks for more samples, so that there are `until` of them, k at most."""
        until = min(until, self._options.k)
        for sample in range(task.planned, until):
            task.requests[tasks.order_of(task.comparison, self._options, sample)].waiting.append(sample)
        task.planned = until
        asked, shape = [r for r in task.requests.values() if r.waiting], task.shape.aligned(self._models.layout.platform)
        self._backlog.setdefault(task.shape, []).extend(asked)
        levels = (level for request in asked for level in shape.levels(split_of(request, shape, self._preamble)))
        self._wanted.setdefault(task.shape, {}).update(dict.fromkeys(levels))

    def _next_engine(self) -> Engine | None:
        """The engine whose next chunk has most to do; shapes take turns when there are more of them than fit."""
        for shape in [s for s in self._engines if not self._open[s]]:
            if any(not self._has_place(other) for other in self._backlog.keys() - self._engines.keys()):
                del self._engines[shape]
                memory.give_back()  # on CPUs, slots of another shape would not fit into the holes
        for shape in list(self._backlog):
            if shape in self._engines or self._has_place(shape):
                engine = self._engines.get(shape) or self._make_engine(shape)
                engine.submit(*self._backlog.pop(shape))
        busy = [engine for engine in self._engines.values() if engine.pending]
        return max(busy, key=lambda engine: min(engine.pending, engine.capacity), default=None)

    def _has_place(self, shape: Shape) -> bool:
        """Whether the slots of another shape can be on the devices beside those that are."""
        fits = self._sizes is None or not self._engines or self._sizes.together([*self._engines, shape])
        return fits and len(self._engines) < MAX_ENGINES

    def _make_engine(self, shape: Shape) -> Engine:
        layout, policy = self._models.layout, self._models.policy
        engine = Engine(layout, policy.params, policy.config, shape, self._sampling, self.usage, self._preamble)
        self._engines[shape] = engine
        return engine

    def _compile_ahead(self, pool: futures.Executor) -> None:
        """Has the programs of the prompts that are new compiled, in the order in which they will be drawn."""
        wanted, self._wanted = self._wanted, {}
        seen, new = [shape for shape in wanted if shape not in self._compiled], []
        if self._sizes and (chosen := [shape for shape in seen if shape not in self._said]):
            self._said.update(chosen)
            distributed.say(f"batch_size=auto: {self._sizes.describe(chosen)}")
        for shape, wanted_levels in wanted.items():
            compiled = self._compiled.setdefault(shape, set())
            if levels := [level for level in wanted_levels if level not in compiled]:
                compiled.update(levels)
                programs = engine_programs(self._models.layout, self._models.policy.config, shape, self._sampling)
                new += [f"{shape.max_prompt:,}"] if programs.compile_ahead(pool, levels) and shape in seen else []
        if new:
            distributed.say(f"compiling for prompts of up to {' / '.join(dict.fromkeys(new))} tokens")

    # Reading.

    def _read(self, completion: Finished) -> None:
        """Notes what a completion says; once all of a task's are there, asks for more or has the verdict made."""
        options = self._options
        task, order = completion.request.tag
        read = self._prompter.read if options.mode == "scores" else self._prompter.read_choice
        rollout = read(task.comparison, order, [completion.tokens])
        (scores,), (text,), (truncated,) = rollout.scores, rollout.texts, rollout.truncated
        self._warning.count(scores is not None, truncated)
        # Scores are read in what was drawn, since principles that are given may say anything.
        critique = [*task.prefix, *completion.tokens] if task.prefix else completion.tokens
        text = self._prompter.tokenizer.decode(critique) if task.prefix else text
        task.samples[completion.sample] = Sample(order, scores, None, text, truncated, tokens=len(completion.tokens))
        if options.rescores:
            task.tokens[completion.sample] = critique
        if len(task.samples) < task.planned:
            return
        if options.share_principles and not task.prefix and task.planned < options.k:
            self._share_principles(task)
            return
        if options.adaptive and task.planned < options.k:
            drawn = [task.samples[s].scores for s in range(task.planned)]
            if not adaptive.decided(drawn, task.comparison.n, options.k, options.adaptive):
                self._ask(task, task.planned + options.rounds * task.comparison.n)
                return
        self._open[task.shape] -= 1
        if options.rescores:
            self._rescorer.add(task)
            self._conclude(self._rescorer.flush(only_full=True))
        else:
            self._conclude([task])

    def _share_principles(self, task: Task) -> None:
        """Has the rest of the samples begin with the principles of the last one; where it has none, draws one more without."""
        template = tasks.template_of(task.comparison, self._models, self._options)
        principles = parse.principles(task.samples[task.planned - 1].text, template.parts)
        if principles is None:
            self._ask(task, task.planned + 1)
            return
        prefix = tuple(self._prompter.encode_principles(principles, template))
        try:
            shape = self._shape(task.prompts.longest + len(prefix), task.comparison.n)
        except InputError as error:
            task.outcome = InputError(f"with the principles of its first critique, {error}")
            self._open[task.shape] -= 1
            return
        self._open[task.shape] -= 1
        task.prefix, task.shape = prefix, shape
        self._open_requests(task)
        self._ask(task, max(self._first_round(task), task.planned + 1))

    def _conclude(self, done: Iterable[Task]) -> None:
        for task in done:
            task.outcome = tasks.vote(task, self._options)
