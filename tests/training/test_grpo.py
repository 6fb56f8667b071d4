"""GRPO: advantages and loss against hand-computed numbers, ratios, and the clip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stand_ins import stand_in

from spct_jax import checkpoints, models, sampling, sharding
from spct_jax.checkpoints import train_state
from spct_jax.data import batches
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.models import sizes
from spct_jax.training import context, group_rewards, grpo, metrics, optimizers, parameters
from spct_jax.training.config import OptimizerConfig
from spct_jax.training.group_logprobs import completion_mask, group_logprobs
from spct_jax.training.micro_batches import Batch

CONFIG = dataclasses.replace(sizes.toy(64), num_layers=2)
OPTIMIZER = OptimizerConfig(warmup_steps=0)
HYPERPARAMETERS = grpo.GRPOHyperparameters(beta=0.08, clip=0.2, temperature=1.0)
P, T, G = 12, 8, 4
ALONE = sharding.make_layout(devices=jax.devices()[:1])


# Compiled: operations one by one, each compiled for itself, take several times as long.
scored = jax.jit(group_logprobs, static_argnums=1)
loss = jax.jit(grpo.grpo_loss, static_argnums=1)
gradient = jax.jit(jax.grad(grpo.grpo_loss, has_aux=True), static_argnums=1)


@pytest.fixture(scope="module")
def params():
    return jax.jit(models.init, static_argnums=0)(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def groups():
    rng = np.random.default_rng(0)
    prompts = [rng.integers(6, 64, n).tolist() for n in (12, 5)]
    completions = [[rng.integers(6, 64, n).tolist() for n in lengths] for lengths in ((8, 3, 1, 5), (2, 8, 8, 4))]
    packed = batches.pack(prompts, completions, max_prompt=P, max_completion=T, group_size=G)
    return jax.tree.map(jnp.asarray, packed)


def given(groups, advantages, old, reference, **options):
    """What loss and gradient are given besides the parameters."""
    hyperparameters = dataclasses.replace(HYPERPARAMETERS, **options)
    batch = grpo.GRPOBatch(groups, advantages, old, reference, reference)
    return CONFIG, batch, hyperparameters, jnp.float32(groups.lengths.size)


def test_advantages_of_the_papers_groups():
    """With G = 4 and rewards of +-1: one right gives +1.73 and -0.58, two right +-1, all equal 0."""
    got = group_rewards.advantages(np.array([[1, -1, -1, -1], [1, 1, -1, -1], [1, 1, 1, 1], [-1, -1, -1, -1]]))
    np.testing.assert_allclose(got[0], [3**0.5, *[-(3**-0.5)] * 3], rtol=1e-6)
    np.testing.assert_array_equal(got[1:], [[1, 1, -1, -1], [0] * 4, [0] * 4])


@pytest.mark.parametrize("group", [[0.7, 0.7, 0.7, 0.7000021], [1e30, -1e30, 3.0, 0.0], [1e-30, 0.0, 0.0, 0.0], [5, 5, 7, 6]])
def test_advantages_of_any_rewards_are_those_of_a_slow_sum(group):
    """Rewards of a user's own, near each other and far from 1, beside a group that differs by nothing but rounding."""
    rewards = np.array([group, [0.1 + 0.2, 0.3, 0.3, 0.3], [0.0] * 4])
    got, signal = group_rewards.advantages(rewards), group_rewards.with_signal(rewards)
    mean = sum(group) / 4
    deviation = (sum((r - mean) ** 2 for r in group) / 4) ** 0.5
    np.testing.assert_allclose(got[0], [(r - mean) / deviation for r in group], rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(got[1:], 0)
    assert signal.tolist() == [True, False, False] and got.dtype == np.float32


def test_a_token_that_the_policy_has_all_but_ruled_out_leaves_the_loss_finite(params, groups):
    """Also where the weight of the KL term is 0, and 0 times infinity would be NaN."""
    reference = scored(params, CONFIG, groups)[0] + 200
    for beta in (0.0, 0.08):
        arguments = given(groups, jnp.ones((2, G)), None, reference, beta=beta)
        assert jnp.isfinite(loss(params, *arguments)[0])
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params, *arguments)[0]))


def test_loss_equals_a_slow_sum_over_tokens(params, groups):
    rng = np.random.default_rng(1)
    logprobs = np.asarray(scored(params, CONFIG, groups, 0.6)[0], np.float64)
    old = logprobs + rng.normal(0, 0.3, logprobs.shape)
    reference = logprobs + rng.normal(0, 0.3, logprobs.shape)
    advantages = rng.normal(0, 1, (2, G)).astype(np.float32)
    total = 0.0
    for b in range(2):
        for g in range(G):
            length = int(groups.lengths[b, g])
            tokens = 0.0
            for t in range(length):
                ratio = np.exp(logprobs[b, g, t] - old[b, g, t])
                gain = advantages[b, g]
                log_ref = reference[b, g, t] - logprobs[b, g, t]
                tokens += min(ratio * gain, np.clip(ratio, 0.8, 1.2) * gain) - 0.05 * (np.exp(log_ref) - log_ref - 1)
            total += tokens / length
    as32 = [jnp.asarray(x, jnp.float32) for x in (advantages, old, reference)]
    got, _ = loss(params, *given(groups, *as32, beta=0.05, temperature=0.6))
    np.testing.assert_allclose(got, -total / (2 * G), rtol=2e-5)


def test_first_update_has_ratio_one_and_the_policy_gradient(params, groups):
    """Without old log-probabilities the gradient is that of -A log p, mean over a sequence, then sequences."""
    advantages = jnp.array([[1.0, -1.0, 0.5, 0.0], [2.0, 0.0, -1.0, -1.0]])
    reference = scored(params, CONFIG, groups)[0]

    @jax.jit
    @jax.grad
    def expected(params):
        mask = completion_mask(groups)
        per_sequence = (scored(params, CONFIG, groups)[0] * mask).sum(-1) / mask.sum(-1)
        return -(per_sequence * advantages).mean()

    got, (found, _) = gradient(params, *given(groups, advantages, None, reference, beta=0.0))
    assert metrics.compute(found)["ratio_mean"] == 1.0
    for name, want in jax.tree_util.tree_leaves_with_path(expected(params)):
        have = got
        for key in name:
            have = have[key.key]
        assert jnp.linalg.norm(have - want) <= 1e-5 * jnp.linalg.norm(want), name


def test_k3_pulls_towards_the_reference_where_k1_would_not(params, groups):
    """The gradient of the KL term alone vanishes at the reference and not beside it."""
    reference = scored(params, CONFIG, groups)[0]
    none = jnp.zeros((2, G))
    at, beside = (gradient(params, *given(groups, none, None, r, beta=1.0))[0] for r in (reference, reference - 0.5))
    norm_at, norm_beside = (float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(t)))) for t in (at, beside))
    assert norm_at < 1e-5 < norm_beside


def step(params, groups, updates, learning_rate=0.05):
    optimizer = optimizers.make(dataclasses.replace(OPTIMIZER, learning_rate=learning_rate), 10)
    state = train_state.TrainState(params=jax.tree.map(jnp.copy, params), opt_state=optimizer.init(params))
    reference = scored(params, CONFIG, groups)[0]
    advantages = jnp.array([[1.0, -1.0, 1.0, -1.0]] * 2)
    update = grpo.make_step(ALONE, state, CONFIG, optimizer)
    old, seen = None, []
    for _ in range(updates):
        batch = grpo.GRPOBatch(groups, advantages, old, reference, reference)
        state, found, (logprobs,) = update(state, [Batch(batch, [(P, T)])], dataclasses.replace(HYPERPARAMETERS, beta=0.0))
        old = logprobs if old is None else old
        seen.append((metrics.compute(found), logprobs))
    return seen


def test_two_updates_per_rollout_see_the_clip_act(params, groups):
    first, second = (found for found, _ in step(params, groups, updates=2))
    assert first["clip_fraction"] == 0 and first["ratio_mean"] == first["ratio_p95"] == first["ratio_max"] == 1
    assert second["clip_fraction"] > 0


def test_ratio_metrics_are_those_of_the_tokens_and_the_same_in_micro_batches(params, groups):
    rng = np.random.default_rng(4)
    logprobs, inside = np.asarray(scored(params, CONFIG, groups)[0]), np.asarray(completion_mask(groups)) > 0
    old = (logprobs - rng.normal(0, 0.4, logprobs.shape)).astype(np.float32)
    old[~inside] = logprobs[~inside] - 30  # what padding holds must not count
    ratio = np.exp(logprobs - old, dtype=np.float64)[inside]
    batch = grpo.GRPOBatch(groups, jnp.ones((2, G)), *map(jnp.asarray, (old, logprobs, logprobs)))
    optimizer = optimizers.make(OPTIMIZER, 10)
    update = grpo.make_step(ALONE, train_state.abstract_state(None, params, optimizer), CONFIG, optimizer)
    for count in (1, 2):
        got = metrics.compute(update.gradients(params, [Batch(batch, [(P, T)] * count)], HYPERPARAMETERS)[1])
        exact = np.sort(ratio)[int(np.ceil(0.95 * ratio.size)) - 1]
        assert exact * 0.999999 <= got["ratio_p95"] <= exact * 1.0101
        np.testing.assert_allclose([got["ratio_mean"], got["ratio_max"]], [ratio.mean(), ratio.max()], rtol=1e-5)


def test_the_reference_scores_the_same_in_micro_batches(params, groups):
    reference = grpo.make_reference(ALONE, params, CONFIG)
    once, twice = (np.asarray(reference(params, Batch(groups, [(P, T)] * count), 0.6)) for count in (1, 2))
    np.testing.assert_allclose(twice, once, rtol=0, atol=1e-5)


def test_clipped_tokens_get_no_gradient(params, groups):
    """Beyond the clip, on the side the advantage pushes to, a token's gradient is zero."""
    logprobs = scored(params, CONFIG, groups)[0]
    up = jnp.ones((2, G))
    gradients, _ = gradient(params, *given(groups, up, logprobs - 0.5, logprobs, beta=0.0))
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradients)) == 0.0


def test_old_logprobs_recomputed_by_the_same_program_are_bitwise_equal(params, groups):
    (_, once), (_, again) = step(params, groups, updates=1)[0], step(params, groups, updates=1)[0]
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_trainer_and_sampler_agree(params, temperature):
    """exp(trainer - sampler) is within 1e-4 of 1 on every drawn token."""
    rng = np.random.default_rng(2)
    prompts = [rng.integers(6, 64, n).tolist() for n in (12, 7, 3)]
    out = sampling.generate(
        params,
        CONFIG,
        prompts,
        jax.random.key(3),
        num_samples=G,
        max_new_tokens=T,
        temperature=temperature,
        stop_ids=(1, 5),
        bucket=P,
    )
    drawn = [
        [t[:n].tolist() for t, n in zip(group, ns, strict=True)]
        for group, ns in zip(np.asarray(out.tokens), np.asarray(out.lengths), strict=True)
    ]
    groups = batches.pack(prompts, drawn, max_prompt=P, max_completion=T, group_size=G)
    logprobs = scored(params, CONFIG, jax.tree.map(jnp.asarray, groups), temperature)[0]
    ratio = jnp.exp(logprobs - out.logprobs)[completion_mask(groups) > 0]
    assert ratio.size > 3 * G and float(jnp.abs(ratio - 1).max()) < 1e-4


def test_a_ratio_too_large_for_float32_leaves_no_nan(params, groups):
    """Where the clip or a zero advantage leaves it out, and behind the end of a completion."""
    logprobs = scored(params, CONFIG, groups, 1.0)[0]
    behind = completion_mask(groups) == 0
    reference = jnp.where(behind, logprobs + 200, logprobs)
    advantages = jnp.array([[1.0, 0.0, 0.0, 1.0]] * 2)
    gradients, (found, _) = gradient(params, *given(groups, advantages, logprobs - 100, reference, clip=0.2))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    assert float(found["loss"].total / found["loss"].count) == pytest.approx(-1.2 / 2, rel=1e-5)


def test_a_reference_in_bfloat16_is_the_policy_it_starts_from(params, groups, micro_config, tmp_path):
    """Its norms, which are not bfloat16's numbers, are not rounded: the KL before the first update is 0."""
    rng, config = np.random.default_rng(0), dataclasses.replace(CONFIG, dtype="bfloat16")
    params = jax.tree.map(lambda x: x + 0.01 * rng.standard_normal(x.shape, np.float32), params)
    tokenizer = train_tokenizer(["Alba has wifi, sun.", "Birch has tea."], vocab_size=300)
    checkpoints.save(tmp_path / "start", checkpoints.Model(params, config, tokenizer))
    micro_config.stages, micro_config.init_checkpoint = ("rl",), str(tmp_path / "start")
    (tmp_path / "data").mkdir()
    layout = sharding.make_layout()
    run = stand_in(context.Run, config=micro_config, workdir=tmp_path, model=config, layout=layout)
    reference = jax.device_get(parameters.policy_before(run, "rl", "bfloat16"))
    assert {str(x.dtype) for x in jax.tree.leaves(reference)} == {"float32", "bfloat16"}

    wanted = jax.jit(lambda p: group_logprobs(p, config, groups, 1.0)[0])(reference)
    batch = grpo.GRPOBatch(groups, jnp.ones((2, G)), None, wanted, wanted)
    _, (found, _) = gradient(params, config, batch, HYPERPARAMETERS, jnp.float32(groups.lengths.size))
    assert float(found["kl"].total) == 0.0
