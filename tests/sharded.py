"""What one update comes to under a layout, for tests that compare layouts; run as a program, it compares several and reports.

python tests/sharded.py DIRECTORY                                                 one process of eight devices
python launch/local.py -- python tests/sharded.py DIRECTORY         two of four

Writes DIRECTORY/report.json, or pod.json if there are two processes. These come after the one, which leaves there what it
computed on one device, and compare theirs with that.
"""

import argparse
import collections
import dataclasses
import functools
import pathlib
import pickle
import signal
from collections.abc import Sequence

import jax
import numpy as np
import optax

from spct_jax import models, sharding
from spct_jax.checkpoints import steps, train_state
from spct_jax.data import batches
from spct_jax.models import heads, sizes
from spct_jax.models.config import ModelConfig
from spct_jax.runtime import distributed
from spct_jax.sampling import Engine, Request, SamplingParams, Shape
from spct_jax.sharding.config import MeshConfig
from spct_jax.storage import files
from spct_jax.training import accumulation, buckets, grpo, meta, metrics, micro_batches, optimizers, sft
from spct_jax.training.config import OptimizerConfig
from spct_jax.training.micro_batches import Batch
from spct_jax.training.preambles import Preamble

B, G, P, T = 16, 4, 24, 40
ADAM = optimizers.make(OptimizerConfig(warmup_steps=1), 10)
HYPERPARAMETERS = grpo.GRPOHyperparameters(beta=0.08, clip=0.2, temperature=0.7)
MICRO_BATCHES = {"multislice": 4}
"""How many a mesh's updates and scores are computed in, where not in one; one device always takes the batch at once."""
WHOLE = (P, T)
BUCKETS = ((20, 26), WHOLE)
"""Those of batches in buckets, which are computed in four micro-batches."""
SHORT = (12, T)
"""That of all four micro-batches of updates "behind a preamble"; of a long prompt the rest comes before its completions."""
PREAMBLE = (7, 3, 50, 21, 9, 33, 40, 12)
"""What every second prompt begins with; updates "behind a preamble" compute it once."""
MESHES = {
    "data": MeshConfig(),
    "fsdp": MeshConfig(strategy="fsdp", tensor=2, rollout="tensor"),
    "tensor": MeshConfig(strategy="tensor", tensor=2),
    "fsdp_tensor": MeshConfig(strategy="fsdp_tensor", tensor=2),
    "multislice": MeshConfig(strategy="multislice", slices=2, tensor=2),
}
UPDATES = ["rl tensor", "sft fsdp", "meta_rm data", "meta_rm fsdp_tensor"]
"""What one process compares. SFT and the meta RM run through the model as RL does, so fewer meshes are enough for them."""
UPDATES_OF_A_POD = ["rl multislice", "rl fsdp_tensor behind a preamble"]
"""What two processes compare: everything that crosses from one to the other: gradients, and weights by the last of them."""


def config_of(stage: str) -> ModelConfig:
    """Three layers of one kind, scanned over; RL's are global, the others local. Two key heads for four heads."""
    return dataclasses.replace(
        sizes.toy(64),
        num_layers=3,
        pattern=("global",) if stage == "rl" else ("local",),
        width=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        ffw_width=64,
        window=12,
    )


def groups_of(rows: int = B) -> batches.Groups:
    """Random prompts and completions of random lengths; of the prompts every second one begins with the preamble."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(6, 64, rng.integers(4, P)).tolist() for _ in range(rows)]
    prompts[::2] = [[*PREAMBLE, *prompt][: P - 1] for prompt in prompts[::2]]
    completions = [[rng.integers(1, 64, rng.integers(2, T)).tolist() for _ in range(G)] for _ in range(rows)]
    return batches.pack(prompts, completions, max_prompt=P, max_completion=T, group_size=G)


def ones_of() -> batches.Groups:
    """Prompts with one completion each, the last one without any."""
    groups = groups_of()
    lengths = groups.lengths[:, :1] * (np.arange(B) < B - 1)[:, None]
    return dataclasses.replace(groups, inputs=groups.inputs[:, :1], lengths=lengths)


@functools.cache
def params_of(stage: str):
    """Host parameters of a stage."""
    params = jax.jit(functools.partial(models.init, config_of(stage)))(jax.random.key(0))
    if stage == "meta_rm":
        params = {"model": params, "head": heads.init_score_head(config_of(stage), jax.random.key(1))}
    return jax.tree.map(np.asarray, params)


def rows_of(stage: str) -> list:
    """The rows of a stage's batches: host arrays, every one with B first."""
    rng, groups = np.random.default_rng(1), groups_of()
    if stage == "sft":
        return [groups, ones_of()]
    if stage == "meta_rm":
        return [(groups, rng.integers(0, 2, (B, G)).astype(np.float32))]
    # About what the model says of random tokens, so that some ratios are clipped and some are not.
    logprobs = [(-4.2 + 0.2 * rng.standard_normal((B, G, T))).astype(np.float32) for _ in range(3)]
    return [grpo.GRPOBatch(groups, rng.standard_normal((B, G)).astype(np.float32), *logprobs)]


def given_of(stage: str) -> tuple:
    """What else a stage's update is given."""
    return (HYPERPARAMETERS,) if stage == "rl" else ()


def watched() -> optax.GradientTransformation:
    """SGD, whose state has the gradients, and the moments of an Adam that saw them."""

    def init(params):
        return {"gradients": optax.tree.zeros_like(params), "adam": ADAM.init(params)}

    def update(gradients, state, params):
        _, moments = ADAM.update(gradients, state["adam"], params)
        return jax.tree.map(lambda x: -0.1 * x, gradients), {"gradients": gradients, "adam": moments}

    return optax.GradientTransformation(init, update)


def make_step(stage: str, layout: sharding.Layout, preamble: Preamble = ()) -> accumulation.Step:
    """The update of a stage by the optimiser above."""
    state = train_state.abstract_state(None, params_of(stage), watched())
    return {"rl": grpo, "sft": sft, "meta_rm": meta}[stage].make_step(layout, state, config_of(stage), watched(), preamble)


_step_of = functools.cache(make_step)


def step_of(stage: str, layout: sharding.Layout, preamble: Preamble = ()) -> accumulation.Step:
    """The same, made once and so compiled once, however it is asked for."""
    return _step_of(stage, layout, preamble)


def in_buckets(rows, preamble: Preamble = ()) -> Batch:
    """Rows in an order for four micro-batches, and the bucket of each, with or without the preamble apart."""
    rows = behind_preamble(rows) if preamble else rows
    groups = next(x for x in jax.tree.leaves(rows, is_leaf=_is_groups) if _is_groups(x))
    own = groups.trunk_lengths + 1 - (groups.shared if preamble else 0)
    order, chosen = buckets.arrange(own, groups.lengths.sum(1), BUCKETS, groups.lengths.shape[1], 4)
    return Batch(jax.tree.map(lambda x: x[order], rows), chosen, BUCKETS)


def behind_preamble(rows):
    """Rows of which each prompt says how much of it is the preamble."""
    return jax.tree.map(lambda x: _with_preamble(x) if _is_groups(x) else x, rows, is_leaf=_is_groups)


def _with_preamble(groups: batches.Groups) -> batches.Groups:
    trunks = zip(groups.trunk_tokens, groups.trunk_lengths, strict=True)
    prompts = [[*tokens[P - 1 - length :], 0] for tokens, length in trunks]
    return groups.replace(shared=np.array([batches.shared_tokens(prompt, PREAMBLE) for prompt in prompts], np.int32))


def without_preamble(rows):
    """Rows whose prompts are complete in every shape."""
    return jax.tree.map(lambda x: x.replace(shared=None) if _is_groups(x) else x, rows, is_leaf=_is_groups)


def _is_groups(node) -> bool:
    return isinstance(node, batches.Groups)


def batches_of(stage: str, count: int = 1) -> list[Batch]:
    """A stage's batches, each in so many micro-batches without buckets."""
    return [Batch(rows, [WHOLE] * count) for rows in rows_of(stage)]


def compute(stage: str, layout: sharding.Layout, parts: Sequence[Batch], preamble: Preamble = ()):
    """(state, metrics) after one step, on the layout's devices; the metrics hold the loss."""
    params = distributed.put(params_of(stage), layout.params(params_of(stage)))
    state = train_state.make_state(layout, params, watched())
    placed = [dataclasses.replace(part, rows=layout.split(part.rows)) for part in parts]
    state, found, _ = step_of(stage, layout, preamble)(state, placed, *given_of(stage))
    return state, found


def worst(got, want) -> float:
    """The largest ||d|| / ||g|| over the leaves."""

    def gap(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))

    return max(jax.tree.leaves(jax.tree.map(gap, distributed.fetch(got), distributed.fetch(want))))


def totals(found: metrics.Metrics) -> dict[str, float]:
    """What a step reports but for its slots, and how many tokens or critiques its loss is a mean of."""
    left_out = ("padding", "preambles")
    return {k: v for k, v in metrics.compute(found).items() if k not in left_out} | {"count": found["loss"].count}


def largest_share(tree) -> float:
    """Of all leaves of more than 1,000 numbers, the largest share of one that a single device holds."""
    big = [leaf for leaf in jax.tree.leaves(tree) if leaf.size > 1000]
    return max(leaf.addressable_shards[0].data.size / leaf.size for leaf in big)


def score(params, groups, layout: sharding.Layout, count: int = 1) -> np.ndarray:
    """Log-probabilities of given completions."""
    params = distributed.put(params, layout.params(params))
    return distributed.fetch(_reference_of(layout)(params, Batch(layout.split(groups), [WHOLE] * count), 1.0))


@functools.cache
def _reference_of(layout: sharding.Layout):
    return grpo.make_reference(layout, params_of("rl"), config_of("rl"))


def round_trips(directory: pathlib.Path) -> dict:
    """A state saved on eight devices and read on other meshes: whether it is the same to the bit, and a device's share."""
    optimizer, first = ADAM, sharding.make_layout(MESHES["fsdp_tensor"])
    params = params_of("sft")
    placed = jax.device_put(params, first.params(params))
    state = train_state.make_state(first, placed, optimizer)
    # Moments that are not all zero.
    state = jax.jit(lambda s: train_state.apply_gradients(s, s.params, optimizer), out_shardings=first.state(state))(state)
    with steps.manager(directory) as manager:
        train_state.save(manager, 1, state, {"tokens": 1.0})
    report = {}
    for name, mesh, count in (("fsdp", "fsdp", 4), ("multislice", "multislice", 8), ("one device", "data", 1)):
        layout = sharding.make_layout(MESHES[mesh], jax.devices()[:count])
        target = train_state.abstract_state(layout, params, optimizer)
        _, restored, _ = train_state.restore_newest(target, directory)
        same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), restored, state)
        where = jax.tree.map(lambda a, b: a.sharding == b.sharding, restored, target)
        report[name] = {"same": all(jax.tree.leaves((same, where))), "share": largest_share(restored)}
    return report


def on_one_device(stage: str, directory: pathlib.Path):
    """(state, metrics) after one step on one device, on the host; computed only if they are not in the directory."""
    file = directory / f"{stage}.pickle"
    if not file.exists():
        alone = sharding.make_layout(devices=jax.local_devices()[:1])
        file.write_bytes(pickle.dumps(jax.device_get(compute(stage, alone, batches_of(stage)))))
    return pickle.loads(file.read_bytes())


def compare(updates: Sequence[str], directory: pathlib.Path) -> dict:
    """Updates, "STAGE MESH" or "STAGE MESH behind a preamble" each, against those of one device."""
    report = {}
    for update in updates:
        stage, mesh, *rest = update.split()
        want, want_metrics = on_one_device(stage, directory)
        parts, preamble = batches_of(stage, MICRO_BATCHES.get(mesh, 1)), ()
        if rest == ["behind", "a", "preamble"]:
            parts, preamble = [Batch(behind_preamble(rows), [SHORT] * 4) for rows in rows_of(stage)], PREAMBLE
        state, found = compute(stage, sharding.make_layout(MESHES[mesh]), parts, preamble)
        report[update] = {
            "metrics": worst(totals(found), totals(want_metrics)),
            "sgd": worst(state.params, want.params),
            **{kept: worst(state.opt_state[kept], want.opt_state[kept]) for kept in ("gradients", "adam")},
            "share": largest_share(state),
        }
    return report


def compare_scores(meshes: Sequence[str]) -> dict:
    """Given completions' log-probabilities in some layouts: how far they are from one device's."""
    alone, report = sharding.make_layout(devices=jax.local_devices()[:1]), {}
    want = score(params_of("rl"), groups_of(), alone)
    for name in meshes:
        found = score(params_of("rl"), groups_of(), sharding.make_layout(MESHES[name]), MICRO_BATCHES.get(name, 1))
        report[name] = float(np.abs(found - want).max())
    return report


def compare_draws(name: str) -> dict:
    """Log-probabilities of what all devices draw in rollouts on this mesh: how far they are from one device's."""
    alone, params = sharding.make_layout(devices=jax.local_devices()[:1]), params_of("rl")
    mesh = MESHES[name]
    update = sharding.make_layout(mesh)
    layout, placed = sharding.rollout_layout(update, mesh), distributed.put(params, update.params(params))
    rng = np.random.default_rng(2)
    prompts = [rng.integers(6, 64, rng.integers(4, P)).tolist() for _ in range(8)]
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(3), 8)))
    # A row for two prompts: the samples of the second replace those of the first.
    shape = Shape(P, T, rows=layout.batch_shards, prefill_rows=layout.batch_shards)
    engine = Engine(layout, placed, config_of("rl"), shape, SamplingParams(1.0, (1,)))
    requests = [Request(i, prompts[i], keys[i], collections.deque(range(G))) for i in range(8)]
    tokens, logprobs = [[[]] * G for _ in prompts], np.zeros((8, G, T), np.float32)
    for done in engine.run(requests):
        at, length = (done.request.tag, done.sample), len(done.tokens)
        tokens[at[0]][at[1]], logprobs[at][:length] = done.tokens, done.logprobs
    groups = batches.pack(prompts, tokens, max_prompt=P, max_completion=T, group_size=G)
    inside = np.arange(T) < groups.lengths[..., None]
    return {f"drawn, {name}": float(np.abs(score(params, groups, alone) - logprobs)[inside].max())}


def interrupted() -> dict:
    """What becomes of an update of four micro-batches in which one process is told to stop, after it began the first."""
    layout, begun = sharding.make_layout(MESHES["multislice"]), []
    params = distributed.put(params_of("rl"), layout.params(params_of("rl")))
    state, (part,) = train_state.make_state(layout, params, watched()), batches_of("rl", 4)
    step, in_turn = step_of("rl", layout), micro_batches.in_turn

    def told(compute, parts, stoppable):
        for found in in_turn(compute, parts, stoppable):
            begun.append(found)
            if len(begun) == 1 and not distributed.is_first():
                signal.raise_signal(signal.SIGTERM)
            yield found

    distributed.PREEMPTION.listen()
    accumulation.micro_batches.in_turn, stopped = told, False
    try:
        step(state, [dataclasses.replace(part, rows=layout.split(part.rows))], *given_of("rl"))
    except distributed.StoppedError:
        stopped = True
    same = jax.tree.map(lambda a, b: bool((a == b).all()), distributed.fetch(state.params), params_of("rl"))
    return {"begun": distributed.gather((stopped, len(begun))), "same": jax.tree.all(same)}


def read_flags(description: str) -> argparse.Namespace:
    """A directory, and the flags that `launch/local.py` gives to each process."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--coordinator", default="")
    parser.add_argument("--num_processes", type=int, default=1)
    parser.add_argument("--process_id", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Writes the report."""
    flags = read_flags(__doc__)
    sharding.use_devices(MeshConfig(cpu_devices=8 // flags.num_processes))
    distributed.initialize(flags.coordinator, flags.num_processes, flags.process_id)
    if flags.num_processes == 1:
        report = {"restored": round_trips(flags.directory), "updates": compare(UPDATES, flags.directory)}
        report["scores"] = compare_scores(["data", "fsdp_tensor"]) | compare_draws("fsdp_tensor")
    else:
        report = {"updates": compare(UPDATES_OF_A_POD, flags.directory)}
        report["scores"] = compare_scores(["multislice"]) | compare_draws("fsdp")
        report["interrupted"] = interrupted()  # last, since the processes have then been told to stop
    files.write_json(flags.directory / ("report.json" if flags.num_processes == 1 else "pod.json"), report)


if __name__ == "__main__":
    main()
