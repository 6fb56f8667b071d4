"""Layouts: the same update on one device and on eight, nothing large replicated, checkpoints that fit any mesh."""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys

import compiled
import jax
import limits
import numpy as np
import optax
import pytest
import sharded
from jax.sharding import AbstractMesh, PartitionSpec

from spct_jax import checkpoints, sharding
from spct_jax import config as config_lib
from spct_jax.checkpoints import train_state
from spct_jax.config import validate
from spct_jax.data import batches
from spct_jax.errors import InputError
from spct_jax.models import sizes
from spct_jax.sampling import Engine, Request, SamplingParams, Shape
from spct_jax.sharding import strategies
from spct_jax.sharding.config import MeshConfig
from spct_jax.training import config as training_config
from spct_jax.training import context, grpo, optimizers, sft
from spct_jax.training.micro_batches import Batch


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """With what `sharded.py` computes on one device, and what it reports of eight."""
    directory = tmp_path_factory.mktemp("sharded")
    subprocess.run([sys.executable, sharded.__file__, directory], check=True, timeout=limits.SECONDS)
    return directory


@pytest.fixture(scope="module")
def report(directory):
    """What `sharded.py` reports of eight devices."""
    return json.loads((directory / "report.json").read_text())


@pytest.fixture(scope="module")
def pod_report(directory):
    """What `sharded.py` reports of two processes of four devices each."""
    launcher = pathlib.Path(sharded.__file__).parents[1] / "launch" / "local.py"
    command = [sys.executable, launcher, "--restarts=0", "--", sys.executable, sharded.__file__, directory]
    subprocess.run(command, check=True, timeout=limits.SECONDS)
    return json.loads((directory / "pod.json").read_text())


@pytest.mark.parametrize("update", sharded.UPDATES)
def test_an_update_is_the_same_on_any_mesh(report, update):
    """Loss and metrics, every leaf's gradient, parameters after SGD, Adam's moments: against one device."""
    found = report["updates"][update]
    for what in ("metrics", "gradients", "sgd", "adam"):
        assert found[what] <= 1e-5, what


@pytest.mark.parametrize("mesh", sharded.MESHES)
def test_nothing_large_is_replicated_but_along_data(report, pod_report, mesh):
    """Eight devices hold an eighth each of gradients, parameters and moments; of two copies, a quarter; of four, a half."""
    share = {"data": 1, "tensor": 1 / 2, "multislice": 1 / 4}.get(mesh, 1 / 8)
    updates = (report["updates"] | pod_report["updates"]).items()
    shares = {found["share"] for update, found in updates if update.split()[1] == mesh}
    assert shares == {share}


def test_log_probabilities_of_given_completions_are_those_of_one_device(report):
    """Of completions drawn on eight devices too."""
    assert len(report["scores"]) == 3 and max(report["scores"].values()) <= 1e-4


def test_a_checkpoint_fits_any_mesh_to_the_bit(report):
    found = report["restored"]
    assert all(entry["same"] for entry in found.values())
    assert [entry["share"] for entry in found.values()] == [1 / 4, 1 / 4, 1]


def test_axes_are_left_whole_where_the_devices_do_not_divide_them():
    layout = sharding.make_layout(MeshConfig(strategy="fsdp_tensor", tensor=2))
    assert layout.resolve((4, 2, 2), ("batch", "kv_heads", "heads_per_kv")).spec == PartitionSpec(None, ("tensor",))
    assert layout.resolve((4, 1, 2), ("batch", "kv_heads", "heads_per_kv")).spec == PartitionSpec(None, None, ("tensor",))
    assert layout.resolve((3, 5), ("heads", "ffw")).spec == PartitionSpec()
    over_two = sharding.Layout(AbstractMesh((1, 4, 4), strategies.AXES), "fsdp")
    widths = {1008: PartitionSpec(("fsdp", "tensor")), 1004: PartitionSpec(("fsdp",)), 1002: PartitionSpec()}
    assert {width: over_two.resolve((width,), ("embed",)).spec for width in widths} == widths
    assert over_two.resolve((4,), ("batch",)).spec == PartitionSpec()
    params = checkpoints.abstract_params(dataclasses.replace(sizes.toy(64), num_heads=2, num_kv_heads=1))
    specs = jax.tree.map(lambda s: s.spec, layout.params(params))["blocks"]["0"]["attn"]
    assert specs["q"] == PartitionSpec(None, None, ("tensor",)) and specs["k"] == PartitionSpec()


@pytest.mark.parametrize("name", training_config.OPTIMIZERS)
def test_what_the_optimiser_keeps_of_a_parameter_lies_where_the_parameter_does(name):
    layout = sharding.make_layout(MeshConfig(strategy="fsdp"))
    params = checkpoints.abstract_params(sharded.config_of("sft"))
    state = train_state.abstract_state(layout, params, optimizers.make(config_lib.OptimizerConfig(name=name), 10))
    large = [leaf for leaf in jax.tree.leaves(state) if leaf.size > 1000]
    assert large and all(np.prod(leaf.sharding.shard_shape(leaf.shape)) == leaf.size / 2 for leaf in large)


def test_no_logits_of_a_whole_sequence_ever_exist():
    """A vocabulary of 256k: an update in FSDP compiles to less memory than the logits of its completions alone would take."""
    layout = sharding.make_layout(MeshConfig(strategy="fsdp"))
    config = dataclasses.replace(sharded.config_of("rl"), vocab_size=262_144, width=8, remat="full")
    B, G, T = 2, 2, 1024
    groups = batches.Groups(*(jax.ShapeDtypeStruct(s, np.int32) for s in ((B, 31), (B,), (B, G, T + 1), (B, G))))
    rows = [jax.ShapeDtypeStruct((B, G, T), np.float32)] * 2
    optimizer = optax.sgd(0.1)
    state = train_state.abstract_state(layout, checkpoints.abstract_params(config), optimizer)
    batch = grpo.GRPOBatch(groups, jax.ShapeDtypeStruct((B, G), np.float32), None, *rows)
    step = grpo.make_step(layout, state, config, optimizer)
    (part,) = step.lower(state, [Batch(batch, [(32, T)])], sharded.HYPERPARAMETERS)
    memory = part.program.compile().memory_analysis()
    logits = B // 2 * G * T * config.vocab_size * 4
    assert memory.temp_size_in_bytes < logits / 4


def test_an_engine_decodes_with_the_weights_split_by_heads():
    """The same completions as with whole weights, to the last token."""
    config, tokens = sharded.config_of("sft"), []
    params = compiled.init(config, jax.random.key(0))
    shape = Shape(max_prompt=16, max_new_tokens=8, rows=2, branches=2, prefill_rows=2)
    for mesh in (MeshConfig(), MeshConfig(strategy="fsdp_tensor", tensor=2, rollout="tensor")):
        layout = sharding.rollout_layout(sharding.make_layout(mesh), mesh)
        engine = Engine(layout, jax.device_put(params, layout.params(params)), config, shape, SamplingParams(1.0, (1,)))
        key = np.asarray(jax.random.key_data(jax.random.key(5)))
        requests = [Request(i, [7, 8, 9 + i], key, collections.deque(range(3))) for i in range(3)]
        tokens.append({(f.request.tag, f.sample): f.tokens for f in engine.run(requests)})
    assert tokens[0] == tokens[1] and len(tokens[0]) == 9


def test_remat_policies_differ_in_what_is_computed_again():
    """Products in the jaxpr of a gradient: all of a block's again, those without weights only, or none."""
    groups, counts = sharded.groups_of(2), []
    for remat in ("none", "dots", "full"):
        config = dataclasses.replace(sharded.config_of("sft"), remat=remat)
        params = checkpoints.abstract_params(config)

        def loss(params, groups, config=config):
            return sft.sft_loss(params, config, groups, groups.lengths.sum(dtype="float32"))[0]

        jaxpr = jax.make_jaxpr(jax.grad(loss))(params, groups)
        counts.append(str(jaxpr).count("dot_general["))
    assert counts[0] < counts[1] < counts[2]


def test_adafactor_moves_every_parameter_that_has_a_gradient():
    gradients = {"w": np.linspace(-1, 1, 256 * 128, dtype=np.float32).reshape(256, 128), "scale": np.ones(8, np.float32)}
    optimizer = optimizers.make(config_lib.OptimizerConfig(name="adafactor", learning_rate=0.1, warmup_steps=1), 10)
    state = train_state.TrainState(params=gradients, opt_state=optimizer.init(gradients))
    after = train_state.apply_gradients(state, gradients, optimizer).params
    for got, start in zip(jax.tree.leaves(after), jax.tree.leaves(gradients), strict=True):
        assert (np.sign(start - got) == np.sign(start)).all()
    # Two vectors instead of a matrix.
    assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) < 1000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: setattr(c.mesh, "strategy", "ring"), "config.mesh.strategy: 'ring' is none of"),
        (lambda c: setattr(c.mesh, "rollout", "ring"), "config.mesh.rollout"),
        (lambda c: setattr(c.mesh, "tensor", 2), "config.mesh.tensor: 2 does not go with strategy='data'"),
        (lambda c: vars(c.mesh).update(strategy="fsdp", tensor=2), "config.mesh.tensor: 2 goes with strategy='fsdp' only"),
        (lambda c: setattr(c.mesh, "slices", 0), "config.mesh.slices"),
        (lambda c: setattr(c.rl, "accumulate", 5), "config.rl.accumulate=5 does not divide config.rl.batch_size=32"),
        (lambda c: setattr(c.rl, "ref_dtype", "int8"), "config.rl.ref_dtype"),
        (lambda c: setattr(c.sft.optimizer, "name", "lion"), "config.sft.optimizer.name"),
        (lambda c: setattr(c, "stages", ("rejection", "rft")), "rejection needs a policy; put sft before it or set"),
        (lambda c: setattr(c, "stages", ("sft", "rft")), "rft learns from what rejection draws"),
        (lambda c: setattr(c, "stages", ("sft", "meta_rm")), "meta_rm learns from what rejection or rl draws"),
        (lambda c: setattr(c, "stages", ("evaluate",)), "evaluate judges with what sft, rft, rl, .* trained in this run"),
        (lambda c: setattr(c.evaluation, "order", "sorted"), "config.evaluation.order: 'sorted'"),
        (lambda c: setattr(c.checkpoint, "every_steps", 0), "config.checkpoint.every_steps: 0"),
        (lambda c: setattr(c.checkpoint, "keep", 0), "config.checkpoint.keep: 0"),
        (lambda c: setattr(c.rl, "updates_per_rollout", 0), "config.rl.updates_per_rollout: 0"),
    ],
)
def test_wrong_fields_are_named(change, says):
    config = config_lib.tiny()
    change(config)
    with pytest.raises(InputError, match=says):
        validate(config)


def test_a_batch_that_the_devices_do_not_divide_is_named():
    config = config_lib.tiny()
    config.rejection.batch_size = 5  # its engine takes any number
    for batch_size, accumulate, said in ((3, 1, "batch_size: a batch"), (6, 2, "accumulate: a micro-batch")):
        config.rl.batch_size, config.rl.accumulate = batch_size, accumulate
        with pytest.raises(InputError, match=rf"config\.rl\.{said} of 3 cannot be split over 2 devices"):
            context.make_layouts(config)
    with pytest.raises(InputError, match=r"2 devices cannot be arranged in slices=1 and tensor=3 \(cpu_devices says"):
        sharding.make_layout(MeshConfig(strategy="fsdp_tensor", tensor=3))


def test_a_strategy_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="^mesh.strategy: 'tenso' is none of data, fsdp, tensor"):
        sharding.make_layout(MeshConfig(strategy="tenso"))


@pytest.mark.parametrize("update", sharded.UPDATES_OF_A_POD)
def test_an_update_of_two_processes_is_that_of_one_device(pod_report, update):
    found = pod_report["updates"][update]
    for what in ("metrics", "gradients", "sgd", "adam"):
        assert found[what] <= 1e-5, what


def test_two_processes_are_interrupted_after_the_same_micro_batch_if_one_is_told_to_stop(pod_report):
    found = pod_report["interrupted"]
    assert found["begun"] == [[True, 1]] * 2, "the second look of four sees it, on both"
    assert found["same"]


def test_two_processes_score_and_draw_as_one_device(pod_report):
    assert len(pod_report["scores"]) == 2 and max(pod_report["scores"].values()) <= 1e-4


@pytest.mark.parametrize(
    "mesh",
    [
        MeshConfig(),
        MeshConfig(strategy="fsdp"),
        MeshConfig(strategy="fsdp", tensor=2, rollout="tensor"),
        MeshConfig(strategy="tensor", tensor=2),
        MeshConfig(strategy="fsdp_tensor", tensor=2),
        MeshConfig(strategy="fsdp_tensor"),
        MeshConfig(strategy="multislice", slices=2),
    ],
)
def test_into_how_many_shards_a_batch_is_split_is_known_without_the_devices(mesh):
    assert strategies.batch_shards(mesh, 2) == sharding.make_layout(mesh, jax.devices()[:2]).batch_shards
