"""Rollouts: completions of training comparisons as all stages draw them, and the files that they are kept in.

Each process makes an equal part of a draw's prompts and reads what is drawn for them. The engine's shape follows from the
configuration and the devices, so the tokens drawn for a prompt depend only on its content, its id and the seed.
"""

import collections
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from jaxtyping import Float, UInt32

from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import read_jsonl, write_jsonl
from spct_jax.errors import InputError
from spct_jax.grm import orders
from spct_jax.grm.prompts import Rollout
from spct_jax.runtime import distributed
from spct_jax.sampling import Engine, Request, SamplingParams, Shape, Usage, engine_size
from spct_jax.storage import files, paths
from spct_jax.storage.paths import Path
from spct_jax.training import parameters, performance
from spct_jax.training.context import Run

Shown = dict[int, tuple[Comparison, tuple[int, ...]]]
"""By row of a draw, a comparison and the order in which it is shown."""


def draw(
    run: Run,
    params: Any,
    numbers: Sequence[int],
    key: jax.Array,
    *,
    shape: Shape,
    samples: int,
    temperature: float,
    index: int = 0,
    hinted: bool = False,
    usage: Usage | None = None,
    before: Sequence[int] = (),
) -> tuple[list[Rollout], Float[np.ndarray, "B G T"]]:
    """Draws completions of B training comparisons, each shown in an order of its own.

    A comparison that occurs again gets another order and other completions than before.

    Args:
      run: the run.
      params: from `parameters.for_sampling`.
      numbers: B numbers of training comparisons.
      key: random key of the draw.
      shape: the engine's; see `shape_of`.
      samples: G, completions of each.
      temperature: 0, or less than 1e-5, is greedy.
      index: number of the draw; a comparison has another order in each draw.
      hinted: whether the prompt names the best response.
      usage: a counter to add to.
      before: numbers of comparisons that were drawn earlier with the same key and index.

    Returns:
      (B rollouts, the sampler's log-probabilities), the same on all processes.

    Raises:
      InputError: logits are not finite.
      distributed.StoppedError: SIGTERM or SIGINT came; looked for before each chunk of tokens.
    """
    repeats = _repeats([*before, *numbers])[len(before) :]
    shown = _shown(run, numbers, index, repeats)
    requests = _requests(run, shown, key, hinted, repeats, samples)
    sampling = SamplingParams(temperature, run.limits.stop_ids)
    engine = Engine(run.rollout_layout, params, run.model, shape, sampling, usage, run.prompter.preamble)
    tokens: list[dict[int, np.ndarray]] = [{} for _ in numbers]
    logprobs = np.zeros((len(numbers), samples, run.limits.max_completion), np.float32)
    read = {}
    for done in engine.run(requests):
        row, sample = done.request.tag, done.sample % samples
        tokens[row][sample] = np.array(done.tokens, np.int32)
        logprobs[row, sample, : len(done.tokens)] = done.logprobs
        if row in shown and len(tokens[row]) == samples:
            read[row] = run.prompter.read(*shown[row], [tokens[row][i] for i in range(samples)])
    return _joined(read), logprobs


def _shown(run: Run, numbers: Sequence[int], index: int, repeats: Sequence[int]) -> Shown:
    """What a draw shows in the rows that are this process's own."""
    first, processes = distributed.process_index_and_count()
    shown = {row: run.dataset.train[numbers[row]] for row in range(first, len(numbers), processes)}
    return {row: (c, orders.random_order(c.n, run.config.seed, c.id, index, repeats[row])) for row, c in shown.items()}


def _requests(run: Run, shown: Shown, key: jax.Array, hinted: bool, repeats: Sequence[int], samples: int) -> list[Request]:
    """What the engine is asked for in each row of a draw, of all processes, which make the prompts of `shown` each.

    If a comparison occurred before, its samples are numbered on from those of the last occurrence.
    """
    made = {row: np.array(run.prompter.encode(c, order, hinted=hinted), np.int32) for row, (c, order) in shown.items()}
    prompts, ids = zip(*_joined({row: (prompt, shown[row][0].id) for row, prompt in made.items()}), strict=True)
    return [
        Request(row, prompt, key_data, collections.deque(range(repeats[row] * samples, (repeats[row] + 1) * samples)))
        for row, (prompt, key_data) in enumerate(zip(prompts, comparison_keys(key, ids), strict=True))
    ]


def shape_of(run: Run, stage: str, *, slots: int, prompts: int, samples: int, beside: int = 0) -> Shape:
    """The engine's shape for a stage that draws `samples` completions of each of `prompts` prompts together.

    Where `slots` is 0, it is chosen for the memory of a device of which others hold `beside` bytes.
    """
    model, limits, chosen_for = parameters.sampling_model(run), run.limits, 0 if slots else _memory_for(run, stage)
    sizes = engine_size.Sizes(run.rollout_layout, model, chosen_for, beside, preamble=len(run.prompter.preamble))
    shape = sizes.of_slots(slots, limits.max_prompt, limits.max_completion, samples, prompts)
    if not slots:
        distributed.say(f"{stage}: slots=0: {sizes.describe([shape])}")
    return shape


def _memory_for(run: Run, stage: str) -> int:
    """Bytes of a device to choose a stage's shapes for: those it was begun with; InputError where there are fewer now."""
    kept = run.workdir / stage / "device_memory.json"

    def known() -> tuple[int, int]:
        there = engine_size.memory_of(run.rollout_layout)
        if kept.exists():
            return there, files.read_json(kept)["bytes"]
        files.make_directory(kept.parent)
        files.write_json(kept, {"bytes": there})
        return there, there

    try:
        return engine_size.memory_for(*distributed.from_first(known), f"config.{stage}.slots")
    except InputError as error:
        raise InputError(f"{stage}: {error}") from None


def _joined(mine: dict[int, Any]) -> list[Any]:
    """By row, what the processes know, each of rows of its own."""
    together = {row: value for part in distributed.gather(mine) for row, value in part.items()}
    return [together[row] for row in range(len(together))]


def comparison_keys(key: jax.Array, ids: Sequence[str]) -> UInt32[np.ndarray, "B 2"]:
    """Key data of comparisons: `key` folded with a hash of each id."""
    return np.asarray(_fold(key, np.array([orders.stable_hash(i) for i in ids], np.uint32)))


@jax.jit
def _fold(key: jax.Array, hashes: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.vmap(lambda h: jax.random.fold_in(key, h))(hashes))


def _repeats(numbers: Sequence[int]) -> list[int]:
    """For each element, how often its number occurs earlier in the sequence."""
    seen, repeats = collections.Counter(), []
    for number in numbers:
        repeats.append(seen[number])
        seen[number] += 1
    return repeats


def write(path: str | os.PathLike, rollouts: Iterable[Rollout]) -> None:
    """Writes rollouts as JSON lines, all or nothing; only the first process writes."""
    if not distributed.is_first():
        return
    files.make_directory(paths.of(path).parent)
    write_jsonl(path, (vars(r) | {"completions": [tokens.tolist() for tokens in r.completions]} for r in rollouts))


def read(path: str | os.PathLike, *, texts: bool = False) -> list[Rollout]:
    """Reads what `write` wrote; the texts only if they are wanted.

    Raises:
      InputError: a line is something else; names file and line.
    """

    def tuples(value):
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    read = []
    for line, record in read_jsonl(path):
        try:
            completions = tuple(np.array(tokens, np.int32) for tokens in record.pop("completions"))
            fields = {name: tuples(value) for name, value in record.items()}
            read.append(Rollout(**fields | {"completions": completions, "texts": fields["texts"] if texts else None}))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{path}:{line}: not a rollout as this version writes them") from None
    return read


def draw_files(
    run: Run, stage: str, batches: Sequence[Mapping[Path, Callable[[Any, Usage], list[Rollout]]]]
) -> dict[str, float]:
    """Draws, with the policy before a stage, what is kept in files; files that exist are not drawn again.

    Args:
      run: the run.
      stage: its name.
      batches: files of the stage in order, each with what draws its completions: from parameters as of `draw` and a counter to
        add to. After each batch a signal is looked for.

    Returns:
      {"seconds", "compile_seconds"} it took, restarts included, "padding": the share of the sampler's slots, of trunks and of
      branches, that held no token, and "useful_slots": the share of those of branches that drew one.

    Raises:
      distributed.StoppedError: SIGTERM or SIGINT came.
    """
    progress = run.workdir / stage / "progress.json"
    earlier = files.read_json(progress) if progress.exists() else {}
    watch, usage, params = performance.Stopwatch(earlier), Usage(**earlier.get("usage", {})), None
    for batch in tqdm.tqdm(batches, f"{stage} draws", unit="batch", disable=not distributed.is_first()):
        for path, draw_one in batch.items():
            if distributed.agree(path.exists()):
                continue
            if params is None:
                params = parameters.for_sampling(run, parameters.policy_before(run, stage))
            write(path, draw_one(params, usage))
            files.write_json(progress, watch.read() | {"usage": vars(usage)})
        distributed.PREEMPTION.check()
    distributed.barrier(f"{stage} draws")
    return watch.read() | {"padding": usage.padding, "useful_slots": usage.useful_slots}
