"""The rows of the paper's Table 2, of the tiny experiment and of every size."""

import dataclasses
import importlib.util
import pathlib

import pytest

from spct_jax import pipeline
from spct_jax.config import SYSTEMS, as_system, tiny, validate
from spct_jax.errors import InputError
from spct_jax.field_bounds import MOST
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.template import load_template
from spct_jax.storage import paths

EXPERIMENTS = sorted((pathlib.Path(__file__).parents[2] / "experiments").glob("*.py"))
SHORT = PromptConfig()
"""What empty names stand for."""


def get_config(path, *arguments):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module.get_config(*arguments)


def parts(config, name="config"):
    """All dataclasses in a configuration, with their names."""
    yield name, config
    for field, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            yield from parts(value, f"{name}.{field}")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_field_that_is_set_changes_no_other(path):
    """No two sections of an experiment are the same object, of one stage's optimiser and another's for instance."""
    names = {}
    for name, part in parts(get_config(path)):
        names.setdefault(id(part), []).append(name)
    assert [found for found in names.values() if len(found) > 1] == []


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_can_be_every_system(path):
    usual = get_config(path)
    for name in SYSTEMS:
        config = get_config(path, name)
        validate(config)
        assert config.model == usual.model and config.mesh == usual.mesh and config.sft == usual.sft and config != usual
        for stage in {"btrm", "pairrm"} & set(config.stages):
            rows = getattr(config, stage).batch_size // getattr(config, stage).accumulate
            assert rows * max(config.rl.accumulate, 1) <= max(config.rl.batch_size, rows)
    with pytest.raises(InputError, match="banana"):
        get_config(path, "banana")


@pytest.mark.parametrize("name", ["", *SYSTEMS])
def test_every_prompt_of_the_tiny_experiment_fits(name, tmp_path):
    """Those with a hint too; the limit of prompts is fatal there."""
    config = as_system(tiny(), name)
    toy = config.data.toy
    toy.train, toy.development, toy.test, toy.demonstrations = 300, 50, 100, 1500
    pipeline.prepare(config, paths.parse(str(tmp_path), "--workdir"))


def test_an_llm_judge_is_trained_by_its_choice_template_on_comparisons_it_can_choose_in():
    config = as_system(tiny(), "llm_judge")
    assert config.prompt.template == config.prompt.choice_template == "short_judge"
    assert config.data.responses == (2, MOST) and "rl" in config.stages and "meta_rm" not in config.stages
    (paper,) = [path for path in EXPERIMENTS if path.stem == "gemma2_27b"]
    config = get_config(paper, "llm_judge")
    assert load_template(config.prompt.template).parts[-1] == "Best Response" and config.data.responses == (2, 2)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_without_principles_no_verdict_names_criteria(path):
    """Those on single responses included; templates stay as long or as short as the experiment's own, and the rest as it is."""
    usual, without = get_config(path).prompt, get_config(path, "no_principles").prompt
    for role in ("template", "single_template"):
        own, plain = (load_template(getattr(prompt, role) or getattr(SHORT, role)) for prompt in (usual, without))
        assert own.principles and not plain.principles and plain.parts == own.parts[1:]
        assert (plain.low, plain.high, plain.response, plain.hint) == (own.low, own.high, own.response, own.hint)
        assert "pecific" in own.prompt and "pecific" not in plain.prompt and "weight" not in plain.prompt
    assert (without.meta_template, without.choice_template) == (usual.meta_template, usual.choice_template)


def test_templates_of_ones_own_are_not_taken_for_the_packages():
    config = tiny()
    config.prompt = PromptConfig("mine.txt", "single.txt", "meta.txt", "choice.txt")
    with pytest.raises(InputError, match=r"config.prompt.template: no_principles knows no form of 'mine.txt'"):
        as_system(config, "no_principles")
    config.prompt.template = "short"
    with pytest.raises(InputError, match="config.prompt.single_template: .* 'single.txt'"):
        as_system(config, "no_principles")
    as_system(config, "llm_judge")
    assert config.prompt == PromptConfig("choice.txt", "single.txt", "meta.txt", "choice.txt")
