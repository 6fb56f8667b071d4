"""The choice of an engine's shape, by itself, and the account behind it against what XLA allots."""

import dataclasses

import jax
import pytest

from spct_jax import sharding
from spct_jax.errors import InputError
from spct_jax.models import sizes, tiles
from spct_jax.sampling import SamplingParams, Shape, engine_size
from spct_jax.sampling.engine_programs import engine_programs
from spct_jax.sampling.engine_shape import padded_prompt
from spct_jax.sampling.engine_size import USABLE, Sizes
from spct_jax.sharding.config import MeshConfig

AMPLE = 1 << 40
SMALL = dataclasses.replace(sizes.toy(600), num_layers=3)
SCANNED = dataclasses.replace(sizes.toy(600), num_layers=9)


def made(config=SMALL, devices=1, memory=AMPLE, mesh=None, **more):
    return Sizes(sharding.make_layout(mesh, devices=jax.devices()[:devices]), config, memory, **more)


@pytest.fixture
def on_an_accelerator(monkeypatch):
    """The CPU's devices count as those of a machine that has nothing else to do."""
    monkeypatch.setattr(engine_size, "CPU_SHARE", 1 << 20)


def large(memory, **more):
    """Gemma-2 2B, of which nothing is computed."""
    return made(sizes.get("gemma2_2b"), memory=memory, **more)


@pytest.mark.parametrize(
    ("samples", "shape"),
    [(1, (64, 1, 1)), (2, (32, 2, 2)), (3, (32, 2, 2)), (4, (16, 4, 2)), (16, (4, 16, 2)), (99, (4, 16, 2))],
)
def test_a_row_has_no_more_branches_than_a_prompt_has_samples(samples, shape):
    chosen = made().choose(256, 64, samples)
    assert (chosen.rows, chosen.branches, chosen.trunks) == shape
    assert (chosen.max_prompt, chosen.max_new_tokens) == (256, 64)


def test_rows_are_as_many_as_fit_and_a_multiple_of_the_devices(on_an_accelerator):
    for memory in (20 << 30, 40 << 30, 80 << 30):
        for samples in (1, 4, 16):
            one = large(memory, devices=2)
            chosen = one.choose(2048, 1024, samples)
            assert chosen.rows % 2 == 0 and one.account(chosen).total <= USABLE * memory
            more = dataclasses.replace(chosen, rows=chosen.rows + 2)
            assert one.account(more).total > USABLE * memory or more.rows * more.branches > one.most
    fewer, more = (large(memory).choose(2048, 1024, 4) for memory in (20 << 30, 40 << 30))
    assert fewer.rows < more.rows
    assert large(20 << 30).choose(1024, 1024, 4).rows > fewer.rows
    assert large(20 << 30, beside=4 << 30).choose(2048, 1024, 4).rows < fewer.rows
    assert large(20 << 30, read=32768, readers=[sizes.get("gemma2_2b")]).choose(2048, 1024, 4).rows < fewer.rows


def test_what_is_read_is_counted_by_the_model_that_reads_it():
    shape = made().choose(256, 64, 4)
    wide = dataclasses.replace(SMALL, ffw_width=64 * SMALL.ffw_width)
    itself, other, both = (
        made(read=32768, readers=readers).account(shape).work for readers in ([SMALL], [wide], [SMALL, wide])
    )
    assert made().account(shape).work < itself and other == both
    assert other - itself == 32768 * 4 * 2 * (wide.ffw_width - SMALL.ffw_width)


@pytest.mark.parametrize(("platform", "most"), [("tpu", 256), ("gpu", 1536)])
def test_a_device_of_its_own_has_as_many_branches_as_it_profits_from(monkeypatch, platform, most):
    monkeypatch.setattr(sharding.Layout, "platform", platform)
    small, ample = (large(memory, devices=2).choose(640, 192, 16) for memory in (14 << 30, 1 << 40))
    assert ample.rows * ample.branches == 2 * most > small.rows * small.branches


def test_a_choice_depends_on_nothing_that_was_chosen_before(on_an_accelerator):
    one = large(40 << 30)
    first = one.choose(1024, 1024, 4)
    one.choose(8192, 1024, 1)
    assert one.choose(1024, 1024, 4) == first == large(40 << 30).choose(1024, 1024, 4)


@pytest.mark.parametrize("samples", [1, 3, 4, 32])
@pytest.mark.parametrize("devices", [1, 2])
def test_slots_that_are_asked_for_are_not_exceeded_but_for_a_row_of_each_device(samples, devices):
    one = made(devices=devices)
    for slots in (1, 7, 8, 100, 16 * samples - 1):
        shape = one.of_slots(slots, 64, 32, samples, 100)
        assert shape.rows * shape.branches <= max(slots, devices) and shape.rows % devices == shape.prefill_rows % devices == 0
        assert shape.trunks == 1 + (shape.branches > 1) or slots >= 100 * samples
    assert one.of_slots(16 * samples, 64, 32, samples, 16) == Shape.of_groups(64, 32, 16, samples)
    assert one.of_slots(15 * samples, 64, 32, samples, 15) == Shape.of_groups(64, 32, 14 + devices, samples)
    assert one.of_slots(0, 64, 32, samples, 16) == one.choose(64, 32, samples, 16)


@pytest.mark.parametrize("devices", [1, 2])
def test_prompts_that_begin_together_are_not_all_read_at_once(devices):
    """About 4,096 tokens at a time, as of a stream: 200 prompts of 2,048 would need 30 GiB for their activations."""
    together, stream = Shape.of_groups(2048, 32, 200, 4, devices=devices), Shape.of_stream(2048, 32, 200, 4, devices=devices)
    assert together.prefill_rows == stream.prefill_rows == 2 and together.rows == 200
    assert Shape.of_groups(64, 32, 16, 4, devices=devices).prefill_rows == 16


def test_a_draw_gets_the_slots_that_read_the_fewest_bytes_until_its_end(on_an_accelerator):
    """More of them for more prompts, up to those of a stream; where every prompt can have its row, it needs no second trunk."""
    one = large(80 << 30)
    shapes = [one.choose(2048, 1024, 4, prompts) for prompts in (2, 16, 128, 512, 1 << 20)]
    slots = [shape.rows * shape.branches for shape in shapes]
    assert slots == sorted(slots) and slots[0] == 8 and shapes[0].trunks == 1 and shapes[-1] == one.choose(2048, 1024, 4)

    def read(rows):
        account = one.account(dataclasses.replace(shapes[1], rows=rows))
        return (account.parameters + account.slots) * (1 + rows / 16) ** 2 / (rows / 16)

    assert shapes[1].branches == 4 and shapes[1].rows == min(range(1, 16), key=read)


def test_a_cpu_gives_an_engine_a_few_times_its_parameters():
    """However much memory there is; a long prompt has its row nevertheless."""
    one = made(sizes.get("gemma3_270m"))
    parameters = one.account(one.choose(64, 64, 1)).parameters
    two = [one.choose(length, 16, 2) for length in (512, 1024)]
    share = max(engine_size.CPU_SHARE * parameters, engine_size.CPU_LEAST)
    assert all(share / 2 < one.account(shape).total <= share for shape in two)
    assert one.together(two[:1]) and not one.together(two)
    assert one.account(one.choose(1 << 17, 1024, 2)).total > share
    assert made().choose(1024, 1024, 4).rows == 16  # a small model has all of its slots


def test_where_nothing_fits_it_is_said_what_would_be_needed():
    with pytest.raises(InputError, match=r"^a prompt of 64 and a completion of 64 tokens need [\d.]+ of 5.00 GiB of a device"):
        large(5 << 30).choose(64, 64, 4)


def test_what_is_split_over_devices_is_counted_once():
    whole = large(40 << 30)
    shape = whole.choose(2048, 1024, 4)
    split = large(40 << 30, devices=2, mesh=MeshConfig(strategy="tensor", tensor=2))
    assert whole.account(shape).parameters / split.account(shape).parameters == pytest.approx(2, rel=0.01)
    assert whole.account(shape).slots / split.account(shape).slots == pytest.approx(2, rel=0.01)
    rows = large(40 << 30, devices=2)
    assert whole.account(shape).parameters == rows.account(shape).parameters
    assert whole.account(shape).slots == 2 * rows.account(shape).slots


def test_engines_are_together_only_where_their_slots_fit_at_once(on_an_accelerator):
    one = large(30 << 30)
    two = [one.choose(length, 1024, 4) for length in (1024, 2048)]
    assert one.together(two[:1]) and not one.together(two)
    few = [dataclasses.replace(shape, rows=2) for shape in two]
    assert one.together(few)


@pytest.mark.parametrize(
    ("config", "shape"),
    [(SMALL, Shape(64, 32, rows=6, branches=4, prefill_rows=3)), (SCANNED, Shape(96, 16, rows=2, branches=8, prefill_rows=2))],
)
def test_the_account_is_what_the_compiler_allots(config, shape, monkeypatch):
    """Arrays to the last kilobyte; what programs take beside them at the most."""
    monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.of("cpu"), unrolled_layers=SMALL.num_layers))
    sizes_, layout = made(config), sharding.make_layout(devices=jax.devices()[:1])
    account = sizes_.account(shape)
    programs = engine_programs(layout, config, shape, SamplingParams(1.0, (1,)))
    (level,) = shape.levels(shape.split(shape.max_prompt))
    drawing, prefill = (p.lower().compile().memory_analysis() for p in (programs.chunk, programs.trunks(level)))
    once = account.parameters / 2 if config is SMALL else account.parameters
    assert drawing.argument_size_in_bytes == pytest.approx(once + account.slots, abs=2048)
    assert max(drawing.temp_size_in_bytes, prefill.temp_size_in_bytes) <= account.work
    assert 2 * prefill.output_size_in_bytes == pytest.approx(account.arriving, abs=2048)
    stem = sizes_.account(dataclasses.replace(shape, siblings=shape.prefill_rows)).arriving - account.arriving
    assert shape.prefill_rows * stem == pytest.approx(prefill.output_size_in_bytes, abs=2048)


def test_a_run_keeps_to_the_memory_that_it_began_with():
    assert engine_size.memory_for(8 << 30, 0, "slots") == engine_size.memory_for(16 << 30, 8 << 30, "slots") == 8 << 30
    with pytest.raises(InputError, match="^shapes were chosen for 16.00 GiB of a device, and these have 8.00"):
        engine_size.memory_for(8 << 30, 16 << 30, "slots")


@pytest.mark.parametrize(("preamble", "max_prompt", "has"), [(63, 1024, 0), (64, 1024, 64), (510, 512, 510), (511, 512, 0)])
def test_a_preamble_is_computed_once_where_it_is_long_enough_and_something_follows(preamble, max_prompt, has):
    """All shapes say so, and the account counts the bytes of its trunk."""
    one, without = made(preamble=preamble), made()
    for slots in (0, 8, 64):
        assert one.of_slots(slots, max_prompt, 64, 4, 16).preamble == has
    shape = one.choose(max_prompt, 64, 4)
    assert shape.preamble == has and dataclasses.replace(shape, preamble=0) == without.choose(max_prompt, 64, 4)
    more = one.account(shape).arriving - without.account(dataclasses.replace(shape, preamble=0)).arriving
    assert (more > 0) == (has > 0) and more <= without.account(without.choose(max_prompt, 64, 4)).arriving // 2


def test_prompts_are_padded_behind_the_preamble_alone():
    assert [padded_prompt(length, 500) for length in (20, 500, 501, 516, 517, 900)] == [32, 512, 516, 516, 532, 1012]
    assert [padded_prompt(length, 63) for length in (20, 64, 900)] == [32, 64, 1024]
