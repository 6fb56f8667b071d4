"""Length buckets: where rows go, and that an update is the same but for the slots that it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sharded

from spct_jax import config as config_lib
from spct_jax import sharding
from spct_jax.data.batches import Groups
from spct_jax.errors import InputError
from spct_jax.reward_models.scalar import scalar_rewards
from spct_jax.training import buckets, grpo
from spct_jax.training.metrics import compute
from spct_jax.training.micro_batches import Batch
from spct_jax.training.packing import Packed, Packing

RNG = np.random.default_rng(0)


def test_a_bucket_outside_the_limits_is_named():
    config = config_lib.tiny()
    config.data.buckets = ((40, 20), (200, 10))
    with pytest.raises(InputError, match=r"config\.data\.buckets: \(200, 10\) does not lie within config\.data\.max_prompt"):
        config_lib.validate(config)


def test_rows_of_like_lengths_share_a_micro_batch():
    prompts, completions = np.array([9, 3, 20, 4, 8, 2, 9, 1]), np.array([10, 3, 17, 6, 13, 2, 12, 1])
    order, chosen = buckets.arrange(prompts, completions, ((4, 3), (10, 6), (20, 10)), group_size=2, micro_batches=4)
    # (20, 17) and (8, 13) need the largest; (9, 10) and (9, 12) the middle one; of the small ones two and two are together.
    assert chosen == [(20, 10), (10, 6), (4, 3), (4, 3)]
    np.testing.assert_array_equal(order.reshape(2, 4).T, [[2, 4], [0, 6], [1, 3], [5, 7]])


def test_a_micro_batch_that_nothing_more_fits_into_takes_a_larger_bucket():
    """A long prompt and a long completion, which does not fit into the bucket of the prompt."""
    order, chosen = buckets.arrange(np.array([10, 2]), np.array([2, 10]), ((2, 9), (10, 2), (10, 10)), 1, 1)
    assert chosen == [(10, 10)] and sorted(order) == [0, 1]


def test_padding_by_hand():
    """Prompts of 3 and 1 tokens of 5, completions of 2, 1, 4 and 0 tokens of 4; as groups and, as CLoud has them, apart."""
    groups = Groups(np.zeros((2, 5)), np.array([3, 1]), np.zeros((2, 2, 5)), np.array([[2, 1], [4, 0]]))
    assert compute(buckets.usage(groups)) == pytest.approx({"padding": 1 - 11 / 26})
    assert compute(buckets.usage(groups.replace(shape=(2, 6)))) == pytest.approx({"padding": 1 - 11 / 16})
    apart = jax.tree.map(lambda x: x[:, None], groups)
    assert compute(buckets.usage(apart)) == pytest.approx({"padding": 1 - 11 / 26})
    # Two tokens of the first prompt are the preamble; at the full shape it is computed with the prompt.
    shared = groups.replace(shared=np.array([2, 0]))
    assert compute(buckets.usage(shared)) == pytest.approx({"padding": 1 - 11 / 26, "preambles": 0.0})
    behind = shared.replace(shape=(2, 6))
    assert compute(buckets.usage(behind)) == pytest.approx({"padding": 1 - 9 / 16, "preambles": 2 / 11})
    assert behind.own_lengths.tolist() == [1, 1] and behind.rest.tolist() == [0, 0]


def test_a_scalar_model_computes_a_slot_more_for_each_completion():
    """Two micro-batches of a row of two completions, the second at the largest shape, by a formula that counts their slots."""
    groups = Groups(np.zeros((2, 9)), np.array([3, 9]), np.zeros((2, 2, 5)), np.array([[2, 1], [4, 4]]))
    packed = Packed(groups, np.arange(2), [(4, 3), (10, 4)], 11, Packing(2, (10, 4), 2))

    def slots(rows, group, trunk, time, prefix=0):
        return rows * (trunk + group * time)

    assert [packed.arithmetic(slots, behind) for behind in (0, 1)] == [3 + 2 * 3 + 9 + 2 * 4, 3 + 2 * 4 + 9 + 2 * 5]


def test_a_bucket_holds_a_longer_prompt_where_completions_leave_room():
    found = buckets.holds((10, 6), 2, np.array([10, 14, 14, 22, 3]), np.array([12, 8, 9, 0, 13]))
    assert found.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("micro_batches", [1, 3, 8, 24])
@pytest.mark.parametrize("group_size", [1, 4])
def test_every_row_has_a_place_and_its_bucket_holds_it(micro_batches, group_size):
    prompts, completions = RNG.integers(1, 41, 48), RNG.integers(0, 30 * group_size + 1, 48)
    table = ((10, 30), (20, 8), (20, 16), (40, 4), (40, 30))
    order, chosen = buckets.arrange(prompts, completions, table, group_size, micro_batches)
    assert sorted(order) == list(range(48)) and set(chosen) <= set(table)
    for m, (prompt, completion) in enumerate(chosen):
        rows = order[m::micro_batches]
        assert ((prompts[rows] - prompt).clip(0) + completions[rows]).max() <= group_size * completion


def test_which_bucket_is_cheapest_depends_on_the_group():
    """(8, 2) against (2, 4): with one branch the second has fewer slots, with four the first."""
    for group_size, cheapest in ((1, (2, 4)), (4, (8, 2))):
        assert buckets.arrange(np.array([2]), np.array([2]), ((2, 4), (8, 2), (9, 9)), group_size, 1)[1] == [cheapest]


def test_rewards_are_those_of_branches_of_their_own():
    """Of an absent completion, too; the rest of the longest prompts lies before the completions."""
    groups = jax.tree.map(jnp.asarray, sharded.groups_of())
    groups = groups.replace(lengths=groups.lengths.at[3, 1].set(0))
    params, config = sharded.params_of("meta_rm"), sharded.config_of("meta_rm")
    weights = np.random.default_rng(1).standard_normal(groups.lengths.shape)

    @jax.jit
    def rewarded(params, groups):
        def loss(params):
            found = scalar_rewards(params, config, groups)
            return (found * weights).sum(), found

        return jax.grad(loss, has_aux=True)(params)

    want, expected = rewarded(params, groups)
    got, found = rewarded(params, groups.replace(shape=(9, int(groups.lengths.sum(1).max()) + sharded.P - 10)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sharded.worst(got, want) < 1e-5


def test_the_reference_scores_the_same_in_buckets():
    params, (rows,) = sharded.params_of("rl"), sharded.rows_of("rl")
    part = sharded.in_buckets(rows.groups)
    score = grpo.make_reference(sharding.make_layout(devices=jax.devices()[:1]), params, sharded.config_of("rl"))
    once, cut = (np.asarray(score(params, Batch(part.rows, chosen), 0.6)) for chosen in ([sharded.WHOLE] * 4, part.buckets))
    inside = np.arange(sharded.T) < part.rows.lengths[..., None]
    assert len({*part.buckets}) > 1
    np.testing.assert_allclose(cut[inside], once[inside], atol=1e-5)
