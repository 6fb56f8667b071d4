"""Every number of a configuration has a range, and what is outside is refused by name before anything is done."""

import dataclasses
import math
import typing

import pytest

from spct_jax import config as config_lib
from spct_jax import pipeline
from spct_jax.config import check_positions, validate
from spct_jax.errors import InputError
from spct_jax.judging.options import Options
from spct_jax.models import sizes


def scalars(kind):
    """The types of single values in a type, through tuples."""
    parts = [part for part in typing.get_args(kind) if part is not Ellipsis]
    return {scalar for part in parts for scalar in scalars(part)} if parts else {kind}


def filled(kind, value):
    """`value` as a value of that type: itself, or tuples of it."""
    parts = [part for part in typing.get_args(kind) if part is not Ellipsis]
    return tuple(filled(part, value) for part in parts) if parts else value


def numeric_fields(values, path):
    """(path, field, its type) of all fields that hold numbers, alone or in tuples."""
    kinds = typing.get_type_hints(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            yield from numeric_fields(value, f"{path}{field.name}.")
        elif scalars(kinds[field.name]) & {int, float}:
            yield f"{path}{field.name}", field, kinds[field.name]


FIELDS = {
    path: (field, kind)
    for values, name in ((config_lib.tiny(), "config."), (Options(), "options."))
    for path, field, kind in numeric_fields(values, name)
}


def test_every_number_of_a_configuration_has_a_minimum_and_a_maximum():
    assert len(FIELDS) > 100
    for path, (field, _) in FIELDS.items():
        bounds = field.metadata.get("bounds")
        assert bounds is not None, f"{path} has no bounds; write bounded(default, minimum, maximum)"
        assert math.isfinite(bounds.minimum) and math.isfinite(bounds.maximum) and bounds.minimum < bounds.maximum, path


def set_field(config, path, value):
    *parents, name = path.split(".")[1:]
    for parent in parents:
        config = getattr(config, parent)
    setattr(config, name, value)


@pytest.mark.parametrize("path", [path for path in FIELDS if path.startswith("config.")])
def test_a_number_outside_its_range_is_refused_by_name(path):
    field, kind = FIELDS[path]
    bounds, (scalar,) = field.metadata["bounds"], scalars(kind)
    step = 1 if scalar is int else 1e-3
    wrong = [bounds.minimum - step, bounds.maximum + step, "7", None, True]
    wrong += [math.nan, math.inf, -math.inf] if scalar is float else [1.5]
    wrong += [bounds.minimum] * (bounds.ends[0] == "(") + [bounds.maximum] * (bounds.ends[1] == ")")
    for value in wrong:
        config = config_lib.tiny()
        set_field(config, path, filled(kind, value))
        with pytest.raises(InputError) as error:
            validate(config)
        assert str(error.value).startswith(path), (value, str(error.value))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("config.rl.group_size", 1, "config.rl.group_size: 1 is not in [2, 4096]"),
        ("config.rl.clip", 1.0, "config.rl.clip: 1.0 is not in (0, 1)"),
        ("config.rl.temperature", 0, "config.rl.temperature: 0 is not in [0.01, 100]"),
        ("config.rejection.temperature", -1.0, "config.rejection.temperature: -1.0 is not in [0.01, 100]"),
        ("config.sft.steps", 0, "config.sft.steps: 0 is not in [1, 2147483647]"),
        ("config.seed", 2**32, "config.seed: 4294967296 is not in [0, 4294967295]"),
        ("config.data.toy.seed", -1, "config.data.toy.seed: -1 is not in [0, 4294967295]"),
        ("config.evaluation.k", (), "config.evaluation.k: () has 0 values, not 1 to 64"),
        ("config.evaluation.k", (0,), "config.evaluation.k[0]: 0 is not in [1, 65536]"),
        ("config.evaluation.k", (8, 1), "config.evaluation.k: (8, 1) is not ascending, or a value is there twice"),
        ("config.evaluation.k", (8, 8), "config.evaluation.k: (8, 8) is not ascending, or a value is there twice"),
        ("config.evaluation.k", 8, "config.evaluation.k: 8 is not a tuple"),
        ("config.evaluation.buckets", ((68,),), "config.evaluation.buckets[0]: (68,) has 1 values, not 2"),
        ("config.evaluation.k_meta_fraction", math.nan, "config.evaluation.k_meta_fraction: nan is not in (0, 1]"),
        ("config.data.on_bad", "ignore", "config.data.on_bad: 'ignore' is none of fatal, skip"),
        ("config.rejection.hinted", "no", "config.rejection.hinted: 'no' is not True or False"),
        ("config.data.train", None, "config.data.train: None is not text"),
        ("config.stages", "sft", "config.stages: 'sft' is not a tuple"),
        ("config.rl.stepz", 3, "config.rl.stepz: no such field; did you mean config.rl.steps?"),
        ("config.rl", None, "config.rl: None is no RLConfig"),
        ("config.model.num_kv_heads", 3, "model.num_kv_heads=3 does not divide num_heads=4"),
        ("config.data.toy.demonstration_mix", (0, 0, 0), "config.data.toy.demonstration_mix: one of the frequencies"),
        ("config.data.toy.response_counts", (1, 1), "config.data.toy.response_counts: (1, 1) has 2 values, not 3"),
        ("config.data.toy.criterion_right", (1, 1, 1, 1), "config.data.toy.criterion_right: (1, 1, 1, 1) has 4 values, not 3"),
    ],
)
def test_what_a_configuration_file_may_get_wrong_is_named(path, value, says):
    config = config_lib.tiny()
    set_field(config, path, value)
    with pytest.raises(InputError) as error:
        validate(config)
    assert str(error.value).startswith(says)


@pytest.mark.parametrize(("stage", "longest"), [("btrm", 84), ("pairrm", 168), ("cloud", 188)])
def test_a_bucket_for_longer_completions_than_a_stage_reads_is_refused(stage, longest):
    config = config_lib.tiny()
    config.stages = ("sft", stage)
    config.data.buckets = ((64, longest),)
    validate(config)
    config.data.buckets = ((64, longest + 1),)
    with pytest.raises(
        InputError, match=f"config.data.buckets: .64, {longest + 1}. does not .* completions of {longest} tokens"
    ):
        validate(config)


def test_one_draw_that_would_always_be_wrong_or_too_easy_is_refused():
    """Nothing unhinted would be left for RFT. What else is drawn for may have one draw of each comparison."""
    config = config_lib.tiny()
    config.rejection.samples = 1
    with pytest.raises(InputError, match="^config.rejection.samples=1: .* set config.rejection.drop_too_easy=False$"):
        validate(config)
    config.rejection.samples = 2
    validate(config)
    config.rejection.samples, config.rejection.drop_too_easy = 1, False
    validate(config)
    config.rejection.drop_too_easy, config.stages = True, ("sft", "rejection", "rl")
    validate(config)


def test_the_papers_settings_are_within_their_ranges():
    for name in sizes.SIZES:
        validate(config_lib.paper(sizes.get(name)))


def test_prompts_and_completions_beyond_the_models_positions_are_refused_at_the_start(tmp_path):
    """8,192 + 1,024 tokens on a Gemma-2, which was made for 8,192; before a file is read or a directory made."""
    config = config_lib.paper(sizes.gemma2_27b())
    check_positions(config, config.model)
    config.data.max_prompt, config.init_checkpoint = 8192, ""
    with pytest.raises(InputError, match="max_completion are 8,192 [+] 1,024 = 9,216 tokens; the model has 8,192 positions"):
        check_positions(config, config.model)
    with pytest.raises(InputError, match="the model has 8,192 positions"):
        pipeline.prepare(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_positions(config, sizes.gemma3_27b())
