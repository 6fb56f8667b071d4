"""What a step of fine-tuning learns from, counted in completions."""

import collections

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sharded

from spct_jax import config as config_lib
from spct_jax import sharding
from spct_jax.checkpoints import train_state
from spct_jax.data import batches
from spct_jax.data.batches import Example
from spct_jax.data.draws import Shares
from spct_jax.models import sizes
from spct_jax.training import mixture, sft
from spct_jax.training.micro_batches import Batch

RETAINED = np.random.default_rng(0).choice([1, 2, 3], 200, p=[0.4, 0.3, 0.3])
"""Kept completions of each comparison."""


def examples(name, counts):
    """Example i has completions (i, 0), (i, 1), .. and the prompt (i,)."""
    counts = np.asarray(counts, np.int32)

    def make(i):
        return Example(f"{name} {i}", int(counts[i]), lambda: ((i,), [(i, c) for c in range(counts[i])]))

    return mixture.Pool([make(i) for i in range(len(counts))], counts)


def mixed(batch_size=256, fraction=0.85, judging=RETAINED, general=(1, 2) * 500, seed=3):
    return mixture.Mixture(seed, "rft", batch_size, fraction, examples("judging", judging), examples("general", general))


FEW_SINGLES = (2,) * 90 + (1,) * 10
"""Completions of each comparison, of which one in 19 is alone."""


def completions(batch, kind):
    """(example, completion) of a step."""
    return [c for rows in batch.values() for e in rows if e.id.startswith(kind) for c in e.tokens()[1]]


@pytest.mark.parametrize("fraction", [0.0, 0.04, 0.85, 1.0])
def test_the_batch_size_and_the_share_of_general_count_examples_not_prompts(fraction):
    batch = mixed(fraction=fraction).batch(7)
    judging, general = completions(batch, "judging"), completions(batch, "general")
    assert (len(general), len(judging) + len(general)) == (round(256 * fraction), 256)


@pytest.mark.parametrize("shards", [1, 4, 16])
@pytest.mark.parametrize("judging", [RETAINED, (2,) * 60, (1,) * 60, (3,) * 60, FEW_SINGLES])
@pytest.mark.parametrize("fraction", [0.04, 0.1, 0.85])
def test_at_least_85_percent_of_the_branch_slots_hold_a_token(shards, judging, fraction):
    made = mixed(512, fraction, judging)
    slots = sum(size * rows for size, (rows, _) in mixture.shapes(made.rows, 512, 512 // (2 * shards), shards).items())
    assert sum(e.size for rows in made.batch(0).values() for e in rows) == 512 >= 0.85 * slots


@pytest.mark.parametrize("judging", [RETAINED, (2,) * 100, (1, 1, 1, 2), FEW_SINGLES])
def test_every_completion_that_judges_comes_up_equally_often(judging):
    made = mixed(40, 0.2, judging)
    steps = 40 * sum(judging) // 32
    seen = collections.Counter(c for step in range(steps) for c in completions(made.batch(step), "judging"))
    assert len(seen) == sum(judging) and 36 <= min(seen.values()) <= max(seen.values()) <= 44


def test_a_batch_is_a_function_of_seed_and_step():
    def ids(made, step):
        return {size: [(e.id, e.tokens()) for e in rows] for size, rows in made.batch(step).items()}

    made = mixed()
    assert ids(made, 5) != ids(made, 6) and ids(made, 5) == ids(mixed(), 5) != ids(mixed(seed=4), 5)


def test_two_completions_of_a_prompt_are_one_row():
    batch = mixed(general=()).batch(0)
    assert len(batch[2]) > 30 and all(e.tokens()[1][1] == (e.tokens()[1][0][0], e.tokens()[1][0][1] + 1) for e in batch[2])


def test_few_rows_of_one_completion_are_no_program_of_their_own():
    """They are in rows of two, which stay as many as the completions need; many rows of one stay apart."""
    few, many = mixed(40, 0.05, FEW_SINGLES), mixed(40, 0.5, FEW_SINGLES)
    assert [*few.batch(3)] == [2] and sorted(e.size for e in few.batch(3)[2]) == [1, 1, 1, 1] + [2] * 18
    assert mixture.shapes(few.rows, 40, 2, 1) == {2: (24, 3)} and mixture.shapes(few.rows, 40, 1, 4) == {2: (24, 1)}
    assert sorted(many.batch(3)) == [1, 2] and {e.size for e in many.batch(3)[1]} == {1}


def test_half_of_the_papers_cold_start_judges_however_many_general_instructions_there_are():
    config = config_lib.paper(sizes.get("gemma2_2b")).sft
    batch = mixed(config.batch_size, config.general_fraction, (2,) * 40, (1,) * 9000).batch(0)
    assert len(completions(batch, "judging")) >= config.batch_size / 2


def test_tiny_mixes_in_as_many_general_instructions_as_before():
    config, toy = config_lib.tiny().sft, config_lib.ToyConfig()
    before = toy.general / (toy.general + toy.demonstrations * toy.completions_per_demonstration)
    assert config.general_fraction == pytest.approx(before, abs=0.001)


@pytest.mark.parametrize(("rows", "most", "shards"), [(46, 16, 16), (932, 16, 16), (15, 32, 2), (5, 8, 4), (33, 32, 4)])
def test_parts_are_equal_and_no_larger_than_they_may_be(rows, most, shards):
    whole, parts = mixture.split(rows, most, shards)
    assert whole % parts == 0 and whole // parts % shards == 0
    assert rows <= whole < rows + parts * shards and whole // parts <= most


gradient = jax.jit(jax.grad(sft.sft_loss, has_aux=True), static_argnums=1)


@pytest.mark.parametrize("counts", [(1, 1), (2, 4)])
def test_rows_of_one_and_of_two_branches_give_the_gradient_of_all_their_tokens(counts):
    """That of the same completions in one batch with empty branches."""
    model, rng = sharded.config_of("sft"), np.random.default_rng(0)
    params = compiled.init(model, jax.random.key(0))
    prompts = [rng.integers(6, 64, n).tolist() for n in (12, 5, 7, 9, 3, 8)]
    shown = [[rng.integers(6, 64, n).tolist() for n in lengths] for lengths in ((8, 3), (2, 6), (1,), (5,), (7,), ())]

    def pack(first, last, size):
        packed = batches.pack(prompts[first:last], shown[first:last], max_prompt=12, max_completion=8, group_size=size)
        return jax.tree.map(jnp.asarray, packed)

    whole = pack(0, 6, 2)
    want, expected = gradient(params, model, whole, jnp.float32(whole.lengths.sum()))
    layout, optimizer = sharding.make_layout(devices=jax.devices()[:1]), sharded.watched()
    state = train_state.make_state(layout, params, optimizer)
    parts = [Batch(rows, [(12, 8)] * count) for rows, count in zip((pack(0, 2, 2), pack(2, 6, 1)), counts, strict=True)]
    state, metrics, _ = sft.make_step(layout, state, model, optimizer)(state, parts)
    got = state.opt_state["gradients"]
    assert sharded.worst(got, want) < 1e-5
    # 38 tokens of trunks and 32 of completions; six rows of 11 + 2 * 8 slots, or two of them and four of 11 + 8.
    assert metrics["padding"].compute() == pytest.approx(1 - 70 / 130)
    assert expected["padding"].compute() == pytest.approx(1 - 70 / 162)
    expected, metrics = sharded.totals(expected), sharded.totals(metrics)
    assert metrics.pop("branch_slots_used") == 7 / 8 and expected.pop("branch_slots_used") == 7 / 12
    np.testing.assert_allclose([metrics[name] for name in expected], [*expected.values()], rtol=1e-5)


@pytest.mark.parametrize("kind", ["judging", "general"])
def test_completions_of_several_sources_come_up_in_the_shares_of_the_sources(kind):
    """Whatever the sizes of the sources; a step is drawn without those before it."""
    counts = np.array([1, 2, 3] * 100 + [2] * 30)
    sources = np.repeat(np.arange(2, dtype=np.uint8), [300, 30])
    pools = {"judging": examples("judging", RETAINED), "general": examples("general", (1, 2) * 500)}
    pools[kind] = mixture.Pool(examples(kind, counts).examples, counts, Shares(sources, (1.0, 3.0)))

    def made():
        return mixture.Mixture(0, "rft", 100, 0.5, pools["judging"], pools["general"])

    drawn = [sources[i] for step in range(200) for (i, _) in completions(made().batch(step), kind)]
    assert np.bincount(drawn) / len(drawn) == pytest.approx([0.25, 0.75], abs=0.01)


@pytest.mark.parametrize(
    ("counts", "weights"),
    [
        (([2] * 100, [1] * 2000), (1, 1)),
        (([2] * 500, [1] * 500), (1, 9)),
        (([3] * 40, [2] * 60, [1] * 50), (3, 1, 1)),
        (([2] * 200, [2, 1, 1]), (9, 1)),
    ],
)
def test_sources_whose_prompts_have_more_or_fewer_completions_keep_their_shares(counts, weights):
    """And all completions of a source come up equally often, those of one pair apart, whether they can be in pairs or not."""
    sources, sizes = np.repeat(np.arange(len(counts), dtype=np.uint8), [*map(len, counts)]), np.concatenate(counts)
    pool = mixture.Pool(examples("judging", sizes).examples, sizes, Shares(sources, weights))
    made = mixture.Mixture(0, "sft", 256, 0.0, pool, examples("general", ()))
    seen = collections.Counter(c for step in range(100) for c in completions(made.batch(step), "judging"))
    assert len(seen) == sizes.sum() and made.rows.pairs
    for source, weight in enumerate(weights):
        times = np.array([count for (i, _), count in seen.items() if sources[i] == source])
        assert times.sum() / 25_600 == pytest.approx(weight / sum(weights), abs=0.002)
        assert sum(abs(times - times.mean()) > max(0.1 * times.mean(), 2)) <= 2
