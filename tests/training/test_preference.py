"""Scalar reward models of responses: their loss on pairs by hand, and their stages from data to accuracy."""

import contextlib
import copy
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stand_ins import stand_in

from micro_experiment import make_config
from spct_jax import checkpoints, pipeline, sharding
from spct_jax.checkpoints import ModelKind, train_state
from spct_jax.data.batches import Groups
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.index import Records
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout
from spct_jax.models import sizes
from spct_jax.reward_models.bradley_terry import BradleyTerry
from spct_jax.reward_models.pairrm import PairRM
from spct_jax.sampling import engine_shape
from spct_jax.training import btrm, cloud, pairrm, preambles, preference, rollout
from spct_jax.training.context import Run
from spct_jax.training.metrics import compute
from spct_jax.training.micro_batches import Batch

pytestmark = pytest.mark.usefixtures("shared_programs")

LABELS = np.array([[1, -1, -1], [-1, 1, 0], [-1, -1, 1], [1, -1, 0]], np.float32)
"""Of Bradley-Terry: which of three responses is best, where there are three."""
SIGNS = np.array([[1, -1], [-1, 0], [1, 1], [-1, 0]], np.float32)


def by_hand(rewards, pairs):
    """(loss, gradient) of -log sigmoid(a - b), averaged over pairs (row, a, b); no b is a reward of 0. Float64."""
    loss, gradient = 0.0, np.zeros(rewards.shape)
    for row, a, b in pairs:
        margin = rewards[row][a] - (rewards[row][b] if b is not None else 0)
        loss += np.log1p(np.exp(-margin)) / len(pairs)
        slope = -1 / (1 + np.exp(margin)) / len(pairs)
        gradient[row][a] += slope
        if b is not None:
            gradient[row][b] -= slope
    return loss, gradient


@pytest.mark.parametrize("count", [1, 2])
def test_loss_and_gradient_of_pairs_are_those_made_by_hand(count):
    """The rewards themselves are the parameters here."""
    rng = np.random.default_rng(0)
    for labels, margins in ((LABELS, btrm.margins), (SIGNS, pairrm.margins)):
        rewards = 3 * rng.standard_normal(labels.shape)
        if margins is btrm.margins:
            pairs = [(b, list(row).index(1), o) for b, row in enumerate(labels) for o in range(3) if row[o] < 0]
            loss, gradient = by_hand(rewards, pairs)
        else:
            pairs = [(b, i, None) for b, row in enumerate(labels) for i in range(2) if row[i]]
            loss, gradient = by_hand(rewards * labels, pairs)
            gradient *= labels
        groups = Groups(np.zeros((4, 1)), np.arange(4), np.zeros((*labels.shape, 1)), np.abs(labels))
        objective = preference.Objective(margins, lambda params, config, groups, _: params[groups.trunk_lengths])
        layout, optimizer = sharding.make_layout(devices=jax.devices()[:1]), optax.sgd(1.0)
        state = train_state.make_state(layout, jnp.float32(rewards), optimizer)
        step = preference.make_step(layout, state, sizes.toy(64), optimizer, objective)
        state, metrics, _ = step(state, [Batch(layout.split((groups, labels)), [(2, 0)] * count)])
        np.testing.assert_allclose(rewards - state.params, gradient, atol=1e-6)
        values = compute(metrics)
        right = [rewards[b][i] * labels[b][i] > 0 if o is None else rewards[b][i] > rewards[b][o] for b, i, o in pairs]
        assert values["loss"] == pytest.approx(loss, rel=1e-5) and values["accuracy"] == pytest.approx(np.mean(right))


def test_pairs_are_shown_in_orders_that_change_from_step_to_step():
    shown = Comparison(conversation=[Turn("user", "q")], responses=["a", "b", "c"], scores=[0, 2, 1], id="x")
    seen = [pairrm.shuffled_pairs(shown, 0, step) for step in range(64)]
    assert seen[:8] == [pairrm.shuffled_pairs(shown, 0, step) for step in range(8)]
    for pairs, labels in seen:
        assert [sorted(pair) for pair in pairs] == [[0, 1], [1, 2]]
        assert [1.0 if pair[0] == 1 else -1.0 for pair in pairs] == labels
    first = np.mean([labels for _, labels in seen], axis=0)
    assert (np.abs(first) < 0.5).all()


@contextlib.contextmanager
def many_ends():
    """Random parameters hardly ever end a critique; here some tokens more do, and a third is cut."""
    own = Tokenizer._with_own_stops
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "_with_own_stops", lambda self, ids: tuple(dict.fromkeys((*own(self, ids), *range(300, 310)))))
        patch.setattr(engine_shape, "LEAST_SHARED", 4)  # so that CLoud's template has a preamble
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(configuration, directory, report) of a run of all baselines from random parameters, on pairs: few programs."""
    config, workdir = make_config(), tmp_path_factory.mktemp("baselines")
    config.data.toy.response_counts = (1.0, 0.0, 0.0)
    config.btrm.optimizer.name = config.pairrm.optimizer.name = config.cloud.optimizer.name = "adam"
    config.stages, config.evaluation.k = ("btrm", "pairrm", "cloud", "evaluate"), (1, 2)
    config.btrm.accumulate, config.data.buckets = 2, ((28, 6), (36, 124))
    with many_ends():
        yield config, workdir, pipeline.train(copy.deepcopy(config), workdir)


def test_a_run_of_baselines_alone_ends_in_their_accuracy(finished):
    config, workdir, report = finished
    assert set(report["accuracy"]) == {"btrm", "pairrm", "cloud"} and report["problems"] == 10
    assert set(report["accuracy"]["cloud"]) == {"greedy", "vote@1", "vote@2"}
    assert report["stages"]["cloud"]["critiques"] == 16 * 2
    run = pipeline.prepare(config, workdir)
    drawn = rollout.read(workdir / "cloud" / "critiques-000000.jsonl")
    cut = [any(first.truncated + second.truncated) for first, second in zip(drawn[::2], drawn[1::2], strict=True)]
    left_out = {"a single response": 4, "beyond cloud.problems": 28, "a critique cut in every draw": sum(cut)}
    assert report["stages"]["cloud"]["data"] == {"read": 48, "used": 16 - sum(cut), "skipped": left_out} and 0 < sum(cut) < 16
    assert report["stages"]["cloud"]["truncated"] == sum(sum(one.truncated) for one in drawn)
    assert report["stages"]["btrm"]["data"] == {"read": 48, "used": 44, "skipped": {"a single response": 4}}
    comparisons = [run.dataset.test[i] for i in range(24)]
    for kind, model in (("btrm", BradleyTerry), ("pairrm", PairRM)):
        rows = [json.loads(line) for line in (workdir / "evaluate" / f"{kind}_greedy.jsonl").read_text().splitlines()]
        by_id = {scored.id: scored.scores for scored in model.load(workdir / kind).score(comparisons)}
        assert [tuple(row["samples"][0]["scores"]) for row in rows] == [by_id[row["id"]] for row in rows]
    assert (workdir / "report.md").read_text().count("Bradley-Terry") > 1
    assert all(0 < report["stages"][stage]["padding"] < 1 for stage in ("btrm", "pairrm", "cloud"))
    assert [report["stages"][stage].get("preambles", 0) > 0 for stage in ("btrm", "pairrm", "cloud")] == [False, False, True]


def test_an_interrupted_stage_ends_bitwise_the_same(finished, tmp_path):
    config, workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "again")
    (tmp_path / "again" / "cloud" / "critiques-000000.jsonl").unlink()
    for stage in ("btrm", "pairrm", "cloud"):
        shutil.rmtree(tmp_path / "again" / stage / "checkpoints" / "2")
        (tmp_path / "again" / stage / "summary.json").unlink()
    pipeline.train(copy.deepcopy(config), tmp_path / "again")
    for kind in (ModelKind.BTRM, ModelKind.PAIRRM, ModelKind.CLOUD):
        ended, calm = (checkpoints.load(end / kind.value, kind=kind).digest for end in (tmp_path / "again", workdir))
        assert ended == calm


def test_a_response_has_the_mean_reward_of_its_critiques(monkeypatch):
    def scalar_rewards(params, config, flat, _):
        return params * flat.inputs[..., 0]

    monkeypatch.setattr(cloud, "scalar_rewards", scalar_rewards)
    lengths = np.array([[3, 2, 1, 0], [2, 2, 0, 0]])
    groups = Groups(np.zeros((2, 1)), np.array([0, 1]), np.array([[[1.0], [2.0], [10.0], [20.0]]] * 2), lengths)
    found = cloud.rewards(jnp.array([[1.0], [100.0]]), sizes.toy(64), groups, samples=2)
    np.testing.assert_array_equal(found, [[1.5, 10], [150, 0]])


def test_a_group_is_what_prompts_have_in_common_and_the_rest_of_each_with_its_critiques():
    prompts, critiques = [[1, 2, 3, 4], [1, 2, 5, 4]], [[[6], [7, 8]], [[9], [6]]]
    assert cloud.group_of(prompts, critiques) == ([1, 2], [[3, 4, 6], [3, 4, 7, 8], [5, 4, 9], [5, 4, 6]])
    # Nothing is left of two prompts that are the same but for their last token, which begins each completion.
    assert cloud.group_of([[1, 2], [1, 2]], [[[3]], [[4]]]) == ([1], [[2, 3], [2, 4]])
    # A critique that does not count leaves its place empty, so that others are still those of their response.
    assert cloud.group_of(prompts, [[[6], None], [[9], None]]) == ([1, 2], [[3, 4, 6], [], [5, 4, 9], []])


@pytest.fixture
def critiqued(monkeypatch):
    """`critiqued(*cut)`: (what CLoud's stage learns from, its summary) where of each comparison these critiques are cut.

    They are given by (response, draw), of two draws for each of two responses, and have a token for each place.
    """

    def rollouts(cut):
        for response in (0, 1):
            truncated, tokens = (((response, draw) in cut) for draw in (0, 1)), ([7 + 2 * response + draw] for draw in (0, 1))
            yield Rollout("x", (0,), tuple(tokens), None, (None, None), tuple(truncated), None)

    def run(*cut):
        shown = Comparison(conversation=[Turn("user", "q")], responses=["a", "b"], scores=[1, 0], id="x")
        config, given = make_config(), []
        config.cloud.samples, config.cloud.problems = 2, 0
        dataset = types.SimpleNamespace(train=Records.of([shown] * len(cut)), responses=np.full(len(cut), 2))
        prompter = types.SimpleNamespace(encode=lambda single, _: [1, 2, int(single.id[-1]), 4], single=None)
        prompter.tokenizer = types.SimpleNamespace(stop_ids=(1,))
        for name, value in (("draw", lambda *_: {"seconds": 1, "useful_slots": 1}), ("read", lambda *_: map(list, found))):
            monkeypatch.setattr(cloud, name, value)
        monkeypatch.setattr(preference, "longest", lambda *_: (8, 8))
        monkeypatch.setattr(preambles, "of", lambda *_: ())
        monkeypatch.setattr(preference, "train", lambda *arguments: given.append(arguments) or {"flops": 0.0})
        found = [rollouts(those) for those in cut]
        summary = cloud.run_cloud(stand_in(Run, config=config, dataset=dataset, prompter=prompter, model=sizes.toy(64)))
        numbers, shape, _, make, *left_out = given[0][3:]
        groups = {number: make(number, shown, 0)[0]()[1] for number in numbers.tolist()}
        return groups, left_out, shape, summary

    return run


def test_a_draw_with_a_critique_that_was_cut_is_not_learned_from_as_it_is_not_judged_by(critiqued):
    groups, left_out, shape, summary = critiqued([], [(0, 1)], [(0, 0), (1, 1)])
    assert groups == {0: [[0, 4, 7], [0, 4, 8], [1, 4, 9], [1, 4, 10]], 1: [[0, 4, 7], [], [1, 4, 9], []]}
    assert left_out == [{"a critique cut in every draw": 1}] and shape.group_size == 4
    assert (summary["critiques"], summary["truncated"]) == (12, 3)
    with pytest.raises(
        InputError, match="^cloud: of 2 comparisons, none has a draw whose critiques all end .*=84; train the cr"
    ):
        critiqued([(0, 0), (1, 1)], [(1, 0), (1, 1)])


def test_the_lengths_of_a_comparison_are_measured_at_once(tmp_path):
    """What is encoded for them is encoded once."""
    comparisons, seen = [Comparison(conversation=[Turn("user", "q")], responses=["a"], id=str(i)) for i in range(3)], []

    def lengths(comparison):
        seen.append(comparison.id)
        return 20 + int(comparison.id), 9 - 4 * int(comparison.id)

    (tmp_path / "data").mkdir()
    run = stand_in(Run, config=make_config(), prompter=types.SimpleNamespace(digest="d"), workdir=tmp_path)
    vars(run).update(dataset=types.SimpleNamespace(train=Records.of(comparisons)))
    assert preference.longest(run, "cloud", lengths) == preference.longest(run, "cloud", lengths) == (24, 16)
    assert seen == ["0", "1", "2"]


def test_without_comparisons_of_several_responses_there_is_nothing_to_learn(micro_config, tmp_path):
    """Which is said before the first stage."""
    path = tmp_path / "one.jsonl"
    path.write_text('{"query": "q", "responses": ["a"], "scores": [1]}\n')
    shown = tmp_path / "shown.jsonl"
    said = [{"turns": [{"role": "user", "content": f"Say {i}"}], "completions": [f"{i * i} {i}"]} for i in range(400)]
    shown.write_text("".join(json.dumps(record) + "\n" for record in said))
    micro_config.stages, micro_config.data.train, micro_config.data.demonstrations = ("sft", "btrm"), str(path), str(shown)
    micro_config.data.vocab_size = 320
    with pytest.raises(InputError, match="btrm: all training comparisons have a single response"):
        pipeline.train(micro_config, tmp_path / "run")
    assert not (tmp_path / "run" / "sft").exists()
