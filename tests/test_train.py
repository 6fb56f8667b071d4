"""The whole pipeline in miniature: every stage runs, and a run that was stopped ends as if it had not been."""

import copy
import dataclasses
import json
import pathlib
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import study_modules
from jax.flatten_util import ravel_pytree
from stand_ins import KeyedEngine

from micro_experiment import make_config
from spct_jax import checkpoints, pipeline
from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError
from spct_jax.models import flops
from spct_jax.runtime import distributed
from spct_jax.sharding.config import MeshConfig
from spct_jax.training import packing, parameters, rollout
from spct_jax.training.metric_writer import read_metrics

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def cold_start(tmp_path_factory):
    """The directory of a run that has finished its first stage; tests go on in copies of it."""
    config, workdir = make_config(), tmp_path_factory.mktemp("cold_start")
    config.stages = ("sft",)
    pipeline.train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def digests():
    """Of the parameters in a workdir, by stage."""
    with study_modules.imported("kill_test") as (kill_test,):
        yield kill_test.digests


def test_every_stage_runs_and_a_second_start_does_nothing_again(micro_config, tmp_path, monkeypatch):
    """An untrained model parses nothing, so RFT's examples are stood in for; everything else is the real thing."""
    from spct_jax.training import rejection

    def first_draws(run):
        return [packing.example_of(run, number, r, r.completions[:1]) for number, r, _ in rejection.rollouts_by_comparison(run)]

    monkeypatch.setattr(rejection, "retained_examples", first_draws)
    made = pipeline.train(micro_config, tmp_path)
    assert set(made["stages"]) == set(micro_config.stages)
    assert {"greedy", "vote@1", "vote@4", "meta@4"} <= made["accuracy"]["rl"].keys()
    assert (tmp_path / "report.md").exists() and made["problems"] == 10
    assert all(0 < stage["padding"] < 1 for stage in made["stages"].values())
    for stage in made["stages"].values():
        assert stage["padded_over_real"] == pytest.approx(1 / (1 - stage["padding"]))
    steps = read_metrics(tmp_path / "rl" / "metrics.jsonl")
    assert made["stages"]["rl"]["zero_spread"] == pytest.approx(np.mean([step["zero_spread"] for step in steps]))
    assert made["peak_memory_gib"] == made["stages"]["evaluate"]["peak_memory_gib"] > 0
    assert made["stages"]["rl"]["data"] == {"read": 48, "used": 48, "skipped": {}}
    none = {"general_fraction=0.04 of batch_size=8 is no example": 16}
    assert made["stages"]["sft"]["data"] == {"read": 80, "used": 64, "skipped": none}
    assert all(0 < made["stages"][stage]["useful_slots"] <= 1 for stage in ("rejection", "rl"))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.parent != tmp_path}
    again = pipeline.train(micro_config, tmp_path)
    assert again == made
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.parent != tmp_path}

    # Killed in the midst of the votes, it draws the rest; what it counts is what an undisturbed run counts.
    (tmp_path / "evaluate" / "summary.json").unlink()
    done = tmp_path / "evaluate" / "rl_sampled.jsonl"
    first = done.read_text().splitlines(keepends=True)[:3]
    done.unlink()
    done.with_name("rl_sampled.partial.jsonl").write_text("".join(first))
    resumed = pipeline.train(micro_config, tmp_path)
    assert resumed["accuracy"] == made["accuracy"]
    assert resumed["stages"]["evaluate"]["tokens"] == made["stages"]["evaluate"]["tokens"] > 0


def test_steps_say_how_near_the_roofline_they_are(known_chip, micro_config, tmp_path):
    """A step's least time, by way of its tokens per second; RL's has a rollout, whose decoding reads the parameters."""
    micro_config.stages = ("sft", "rl")
    pipeline.train(micro_config, tmp_path)
    model, trunk, time = checkpoints.read_architecture(tmp_path / "sft"), 103, 84
    steps = {stage: read_metrics(tmp_path / stage / "metrics.jsonl") for stage in micro_config.stages}
    ratio = {stage: [row["roofline_fraction"] / row["tokens_per_second"] for row in rows] for stage, rows in steps.items()}
    tokens = sum(flops.update(model, 4, 2, trunk, time) / 4 / r for r in ratio["sft"])
    assert tokens == pytest.approx(json.loads((tmp_path / "sft" / "summary.json").read_text())["tokens"])
    read = 4 * sum(leaf.size for leaf in jax.tree.leaves(checkpoints.abstract_params(model)))
    assert len(steps["rl"]) == 2
    for step, found in enumerate(ratio["rl"]):
        drawn = rollout.read(tmp_path / "rl" / "rollouts" / f"{step:06d}.jsonl")
        lengths = [len(c) for r in drawn for c in r.completions]
        work = [flops.prefill(model, 8, trunk), flops.forward(model, 8, 4, trunk, time), flops.update(model, 8, 4, trunk, time)]
        decode = max(flops.decode(model, 8 * 4, trunk) / 4, read)
        assert found * sum(lengths) == pytest.approx(sum(work) / 4 + max(lengths) * decode)


def test_rft_says_when_nothing_was_retained(micro_config, cold_start, tmp_path):
    micro_config.stages = ("sft", "rejection", "rft")
    shutil.copytree(cold_start, tmp_path / "run")
    with pytest.raises(InputError, match="kept no draw"):
        pipeline.train(micro_config, tmp_path / "run")


def test_a_field_may_change_until_a_stage_has_read_it(micro_config, tmp_path):
    micro_config.stages = ("sft",)
    pipeline.train(dataclasses.replace(micro_config, profile_steps=(1, 2)), tmp_path)
    (trace,) = (tmp_path / "profile" / "sft").rglob("*.xplane.pb")
    assert b"$loop.py:" not in trace.read_bytes(), "calls of Python functions are hooked"
    longer = dataclasses.replace(micro_config, sft=dataclasses.replace(micro_config.sft, steps=3))
    with pytest.raises(InputError, match=r"config\.sft\.steps: was 2 when sft began .* is 3 now"):
        pipeline.train(longer, tmp_path)
    # Another mesh is no other run, nor is one without a profile, nor what no stage has read yet.
    mended = copy.deepcopy(dataclasses.replace(micro_config, mesh=MeshConfig(strategy="fsdp"), stages=("sft", "rl")))
    mended.rl.steps, mended.data.toy.test = 1, 9
    pipeline.train(mended, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["data"]["toy"]["test"] == 9
    mended.rl.kl_beta = 0.5
    with pytest.raises(InputError, match=r"config\.rl\.kl_beta: was 0.08 when rl began"):
        pipeline.train(mended, tmp_path)


def test_a_stage_that_ran_out_of_memory_goes_on_with_less_at_once(micro_config, cold_start, tmp_path):
    """In smaller micro-batches, layers computed again: the same but for rounding."""
    less = tmp_path / "less"
    shutil.copytree(cold_start, less)
    (less / "sft" / "summary.json").unlink()  # as if it had been killed after a step
    shutil.rmtree(less / "sft" / "checkpoints" / "2")
    micro_config.stages, micro_config.model.remat, micro_config.sft.accumulate = ("sft",), "full", 2
    pipeline.train(micro_config, less)
    assert json.loads((less / "config.json").read_text())["sft"]["accumulate"] == 2
    a, b = (ravel_pytree(checkpoints.load(run / "sft").params)[0] for run in (cold_start, less))
    assert 0 < jnp.linalg.norm(a - b) < 1e-5 * jnp.linalg.norm(a)


def test_another_model_at_the_path_of_the_initial_checkpoint_is_named(micro_config, cold_start, tmp_path):
    micro_config.stages, base = ("sft",), str(tmp_path / "base" / "sft")
    shutil.copytree(cold_start / "sft", base)
    run = pipeline.prepare(dataclasses.replace(micro_config, init_checkpoint=base), tmp_path / "run")
    parameters.initial(run)
    parameters.initial(run)
    shutil.rmtree(tmp_path / "base" / "sft" / "checkpoints" / "2")
    with pytest.raises(InputError, match=r"config\.init_checkpoint: .* is not the model that this run began with"):
        parameters.initial(run)


def test_a_run_may_start_from_a_checkpoint_at_any_stage(micro_config, cold_start, tmp_path, capsys):
    micro_config.stages, micro_config.init_checkpoint = ("rl", "meta_rm"), str(cold_start / "sft")
    micro_config.meta_rm.policy_data, micro_config.model.num_layers = "draws", 3
    made = pipeline.train(micro_config, tmp_path / "second")
    assert made["stages"]["meta_rm"]["critiques"] == 24 * 3 and made["stages"]["meta_rm"]["branch_slots_used"] == 1
    assert set(made["stages"]) == set(micro_config.stages)
    said = f"the model is that of {cold_start / 'sft'}, not of the size of config.model: num_layers 1, not 3\n"
    assert said in capsys.readouterr().err
    run = pipeline.prepare(micro_config, tmp_path / "second")
    assert jax.tree.all(jax.tree.map(np.array_equal, parameters.policy_before(run, "rl"), parameters.initial(run)))
    first = json.loads((tmp_path / "second" / "rl" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["kl"] == 0.0


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_as_if_it_had_been_whole(
    micro_config, cold_start, digests, tmp_path
):
    micro_config.stages, damaged = ("sft",), tmp_path / "damaged"
    shutil.copytree(cold_start, damaged)
    (damaged / "sft" / "summary.json").unlink()
    last = damaged / "sft" / "checkpoints" / "2" / "params"
    largest = max((p for p in last.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    largest.write_bytes(content)
    pipeline.train(micro_config, damaged)
    assert digests(damaged) == digests(cold_start)


def test_a_damaged_end_of_a_finished_stage_is_trained_again_before_a_later_one_builds_on_it(
    micro_config, cold_start, digests, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    micro_config.stages = ("sft", "rl")
    calm, damaged = pathlib.Path("calm"), pathlib.Path("damaged")
    shutil.copytree(cold_start, calm)
    pipeline.train(micro_config, calm)
    shutil.copytree(calm, damaged)
    shutil.rmtree(damaged / "rl")
    last = sorted((damaged / "sft/checkpoints/2/params/d").iterdir(), key=lambda p: p.stat().st_size)[-1]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 16
    last.write_bytes(content)
    pipeline.train(micro_config, damaged)
    assert "checkpoint 2 is damaged" in capsys.readouterr().err
    assert digests(damaged) == digests(calm)


def test_rollouts_since_the_last_checkpoint_are_read_instead_of_drawn_and_it_ends_bitwise_the_same(
    micro_config, cold_start, digests, tmp_path, monkeypatch, capsys
):
    from spct_jax.training import group_rewards

    micro_config.stages = ("sft", "rl")
    # All verdicts of an untrained model are malformed, and without spread nothing would be learned.
    monkeypatch.setattr(group_rewards, "advantages", lambda r: np.random.default_rng(0).standard_normal(r.shape, np.float32))
    calm, resumed = tmp_path / "calm", tmp_path / "resumed"
    shutil.copytree(cold_start, calm)
    shutil.copytree(cold_start, resumed)
    pipeline.train(micro_config, calm)
    micro_config.checkpoint.reuse_rollouts = True
    pipeline.train(micro_config, resumed)
    (resumed / "rl" / "summary.json").unlink()
    shutil.rmtree(resumed / "rl" / "checkpoints" / "2")
    with monkeypatch.context() as nothing:
        nothing.setattr(rollout, "draw", None)
        pipeline.train(micro_config, resumed)
    assert digests(resumed) == digests(calm)
    seen = [json.loads((run / "rl" / "metrics.jsonl").read_text().splitlines()[-1]) for run in (calm, resumed)]
    assert seen[0]["step"] == seen[1]["step"] and seen[0]["sampler_drift"] == seen[1]["sampler_drift"] > 0
    (resumed / "rl" / "rollouts" / "000001.npy").write_bytes(b"torn")
    (resumed / "rl" / "summary.json").unlink()
    shutil.rmtree(resumed / "rl" / "checkpoints" / "2")
    pipeline.train(micro_config, resumed)
    assert "000001.npy: not an array" in capsys.readouterr().err
    assert digests(resumed) == digests(calm)


def test_rollouts_that_lag_are_of_the_policy_before_last_and_a_run_that_was_killed_ends_bitwise_the_same(
    micro_config, cold_start, digests, tmp_path, monkeypatch
):
    from spct_jax.training import group_rewards

    micro_config.stages, micro_config.checkpoint.keep = ("sft", "rl"), 4
    micro_config.rl = dataclasses.replace(micro_config.rl, rollout_lag=1, steps=3)
    micro_config.rl.optimizer = dataclasses.replace(micro_config.rl.optimizer, learning_rate=0.01, warmup_steps=0)
    monkeypatch.setattr(group_rewards, "advantages", lambda r: np.random.default_rng(0).standard_normal(r.shape, np.float32))
    drawn, draw = {}, rollout.draw

    def noted(run, params, *arguments, index, **options):
        drawn[index] = jax.device_get(params)
        return draw(run, params, *arguments, index=index, **options)

    monkeypatch.setattr(rollout, "draw", noted)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    shutil.copytree(cold_start, calm)
    pipeline.train(micro_config, calm)
    shutil.copytree(calm, killed)

    def die_after(step):
        (killed / "rl" / "summary.json").unlink()
        for later in range(step + 1, 4):
            shutil.rmtree(killed / "rl" / "checkpoints" / str(later), ignore_errors=True)

    def same(params, other):
        return jax.tree.all(jax.tree.map(np.array_equal, params, other))

    die_after(1)
    run = pipeline.prepare(micro_config, killed)
    begun, once = (checkpoints.load(killed / stage, shardings=run.layout.params).params for stage in ("sft", "rl"))
    begun, once = (jax.device_get(parameters.for_sampling(run, params)) for params in (begun, once))
    assert same(drawn[0], begun) and same(drawn[1], begun) and same(drawn[2], once) and not same(begun, once)
    steps = read_metrics(calm / "rl" / "metrics.jsonl")
    # The ratio is to the policy that drew, whose log-probabilities are the sampler's.
    assert [step["ratio_max"] > 1.01 for step in steps] == [False, True, True]
    assert all(0 < step["sampler_drift"] < 1e-4 for step in steps)

    logged = killed / "rl" / "rollouts"
    for file in logged.glob("000002*"):
        file.unlink()
    drawn.clear()
    pipeline.train(micro_config, killed)
    assert list(drawn) == [2] and digests(killed) == digests(calm)
    die_after(2)
    pipeline.train(micro_config, killed)
    assert list(drawn) == [2] and digests(killed) == digests(calm)
    die_after(1)
    (logged / "000001.old.npy").unlink()
    with pytest.raises(InputError, match=r"000001\.jsonl: is not there .* remove .*/rl/checkpoints/1 to go on"):
        pipeline.train(micro_config, killed)


def test_a_run_learns_by_a_reward_of_its_own_which_may_not_change_meanwhile(
    micro_config, cold_start, digests, tmp_path, monkeypatch
):
    (tmp_path / "own.py").write_text("def brevity(scores, truth, text):\n    return -len(text) / 10\n")
    monkeypatch.chdir(tmp_path)
    micro_config.stages, micro_config.rl = ("sft", "rl"), dataclasses.replace(micro_config.rl, reward="own.py:brevity", steps=2)
    shutil.copytree(cold_start, "once")
    shutil.copytree(cold_start, "again")
    pipeline.train(micro_config, pathlib.Path("once"))
    micro_config.rl = dataclasses.replace(micro_config.rl, reward=str(tmp_path / "own.py:brevity"))
    pipeline.train(micro_config, pathlib.Path("again"))
    assert digests(tmp_path / "once") == digests(tmp_path / "again")
    for line, logged in read_jsonl("once/rl/metrics.jsonl"):
        drawn = rollout.read(f"once/rl/rollouts/{line - 1:06d}.jsonl", texts=True)
        assert logged["reward"] == pytest.approx(-np.mean([len(text) for r in drawn for text in r.texts]) / 10)
        assert logged["zero_spread"] < 1 and logged["accuracy"] == 0
    (tmp_path / "own.py").write_text("def brevity(scores, truth, text):\n    return -len(text) / 11\n")
    with pytest.raises(InputError, match="rl.reward"):
        pipeline.train(micro_config, pathlib.Path("once"))


def test_stopped_between_two_draws_of_a_step_that_looks_for_signal_it_ends_bitwise_the_same(
    micro_config, cold_start, digests, tmp_path, monkeypatch
):
    """Completions and rewards are functions of the keys, so that about two groups in five have signal; the updates are real."""
    from spct_jax.training import group_rewards, rl

    def by_tokens(rollouts, reward=None):
        return np.array([[2.0 * (c.sum() % 8 == 0) - 1 for c in r.completions] for r in rollouts])

    monkeypatch.setattr(group_rewards, "rewards_of", by_tokens)
    monkeypatch.setattr(rollout, "Engine", KeyedEngine)
    micro_config.stages = ("sft", "rl")
    micro_config.rl = dataclasses.replace(micro_config.rl, dynamic_sampling=4, rollout_lag=1, steps=3)
    calm, stopped, draw, drawn = tmp_path / "calm", tmp_path / "stopped", rollout.draw, []
    shutil.copytree(cold_start, calm)
    shutil.copytree(cold_start, stopped)

    def noted(run, params, numbers, *arguments, index, before, **options):
        if stop and index == 2 and before:
            raise distributed.StoppedError
        drawn.append((index, len(numbers)))
        return draw(run, params, numbers, *arguments, index=index, before=before, **options)

    monkeypatch.setattr(rollout, "draw", noted)
    stop = False
    pipeline.train(micro_config, calm)
    counts = [sum(count for index, count in drawn if index == step) for step in range(3)]
    assert any(8 < count < 32 for count in counts) and counts[2] > 8
    stop = True
    with pytest.raises(distributed.StoppedError):
        pipeline.train(micro_config, stopped)
    stop = bool(drawn.clear())
    pipeline.train(micro_config, stopped)
    assert {index for index, _ in drawn} == {2}, "the second step's are read"
    assert digests(stopped) == digests(calm)

    run, found = pipeline.prepare(micro_config, stopped), read_metrics(stopped / "rl" / "metrics.jsonl")
    assert [step["groups_drawn"] for step in found] == counts
    summary, every = json.loads((stopped / "rl" / "summary.json").read_text()), [*rl.read_rollouts(run)]
    assert len(every) == sum(counts) and all(run.dataset.train[number].id == r.id for number, r in every)
    assert summary["groups_drawn"] == pytest.approx(np.mean(counts))
    share = summary["with_signal"]
    assert share == pytest.approx(np.mean([step["with_signal"] for step in found])) and share > 1 - summary["zero_spread"]


def test_told_to_stop_in_a_rollout_and_in_an_update_it_saves_what_the_step_began_with_and_ends_bitwise_the_same(
    micro_config, cold_start, digests, tmp_path, monkeypatch
):
    from spct_jax.training import group_rewards, grpo, micro_batches

    micro_config.stages, micro_config.checkpoint.every_steps, micro_config.rl.slots = ("sft", "rl"), 100, 8
    micro_config.rl.steps, micro_config.rl.accumulate = 3, 4
    monkeypatch.setattr(group_rewards, "advantages", lambda r: np.random.default_rng(0).standard_normal(r.shape, np.float32))
    calm, stopped, calls, updates = tmp_path / "calm", tmp_path / "stopped", [], []
    shutil.copytree(cold_start, calm)
    shutil.copytree(cold_start, stopped)
    pipeline.train(micro_config, calm)
    run, in_turn = rollout.Engine.run, micro_batches.in_turn

    def told(*arguments):
        calls.append(arguments)
        if len(calls) == 2:  # of the second step
            signal.raise_signal(signal.SIGTERM)
        return run(*arguments)

    def told_between(compute, batches, stoppable=True):
        for found in in_turn(compute, batches, stoppable):
            yield found
            updates.extend([found] * isinstance(batches[0].rows, grpo.GRPOBatch))
            if len(updates) == 4 + 1:  # the first micro-batch of the second update of this life
                signal.raise_signal(signal.SIGTERM)

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    for where, name, patched in ((rollout.Engine, "run", told), (micro_batches, "in_turn", told_between)):
        with monkeypatch.context() as patch:
            patch.setattr(distributed, "PREEMPTION", distributed.Preemption())
            patch.setattr(where, name, patched)
            try:
                distributed.PREEMPTION.listen()
                with pytest.raises(distributed.StoppedError):
                    pipeline.train(micro_config, stopped)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        saved = sorted(path.name for path in (stopped / "rl" / "checkpoints").iterdir())
        assert saved == (["1"] if patched is told else ["1", "2"])
    assert len(calls) == 2 and len(updates) == 4 + 1
    pipeline.train(micro_config, stopped)
    assert digests(stopped) == digests(calm)
