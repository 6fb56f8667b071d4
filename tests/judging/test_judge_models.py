"""What a judge is loaded from: templates, dtypes and layouts of checkpoints."""

import dataclasses

import jax
import numpy as np
import pytest
from small_judge import OPTIONS, comparisons, judge, tokenizer, verdicts

import spct_jax
from spct_jax import checkpoints
from spct_jax.checkpoints import ModelKind
from spct_jax.config import Config
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.template import load_template
from spct_jax.judging import scheduler
from spct_jax.sharding import logical
from spct_jax.training.data import name_templates


def test_templates_travel_with_a_model_in_every_layout(tmp_path, monkeypatch):
    """A template file of the user's own, gone by the time the model is used, and from another directory."""
    monkeypatch.chdir(tmp_path)
    own = load_template("short_no_principles").text.replace("Judge:", "Judge well:")
    (tmp_path / "mine.txt").write_text(own)
    one = judge()
    model = checkpoints.Model(one.models.policy.params, one.models.policy.config, tokenizer())
    checkpoints.save(tmp_path / "bare", model)
    assert spct_jax.Judge.load(tmp_path / "bare", mesh=one.models.layout).models.policy.prompter.template.name == "default"
    checkpoints.save(tmp_path / "ours", dataclasses.replace(model, prompt=PromptConfig(template="mine.txt")))
    (tmp_path / "mine.txt").unlink()
    for source, target, layout in [("ours", "hf", "hf"), ("hf", "again", "orbax"), ("again", "last", "hf")]:
        checkpoints.convert(tmp_path / source, tmp_path / target, layout)
    monkeypatch.chdir("/")
    for name in ("ours", "hf", "again", "last"):
        loaded = spct_jax.Judge.load(tmp_path / name, mesh=one.models.layout)
        assert loaded.models.policy.prompter.template.text == own, name
        assert loaded.models.policy.prompter.meta.text == load_template("short_meta").text, name
        config = Config(init_checkpoint=str(tmp_path / name))
        assert load_template(name_templates(config).prompt.template).text == own, name
        config.prompt.template = "default"
        named = name_templates(config).prompt
        assert named.template == "default" and load_template(named.meta_template) == loaded.models.policy.prompter.meta
    asked = PromptConfig(template="default", single_template="", meta_template="", choice_template="")
    loaded = spct_jax.Judge.load(tmp_path / "last", mesh=one.models.layout, prompt=asked)
    assert (
        loaded.models.policy.prompter.template.name == "default"
        and loaded.models.policy.prompter.meta.text == load_template("short_meta").text
    )
    with pytest.raises(InputError, match="holds a policy checkpoint, not a meta_rm one"):
        spct_jax.Judge.load(tmp_path / "ours", tmp_path / "ours", mesh=one.models.layout)
    (tmp_path / "last" / "templates" / "meta_template.txt").unlink()
    with pytest.raises(InputError, match="meta_template.txt: missing"):
        spct_jax.Judge.load(tmp_path / "last", mesh=one.models.layout)


def test_a_judge_holds_matrices_in_the_models_dtype(tmp_path):
    """Stages keep float32; a judge of bfloat16 takes half of it from the start, its meta RM too, norm scales and head apart."""
    one = judge()
    half = dataclasses.replace(one.models.policy.config, dtype="bfloat16")
    meta_params = one.models.meta.params
    for kind, params in ((ModelKind.POLICY, one.models.policy.params), (ModelKind.META_RM, meta_params)):
        checkpoints.save(tmp_path / kind.value, checkpoints.Model(params, half, tokenizer(), kind, prompt=PromptConfig()))
        found = checkpoints.load(tmp_path / kind.value, kind=kind, dtype=checkpoints.COMPUTE)
        wanted = logical.cast(params, "bfloat16")
        assert jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), found.params, wanted))
        assert found.config == half
    loaded = spct_jax.Judge.load(tmp_path / "policy", tmp_path / "meta_rm", mesh=one.models.layout)
    for held, stored in ((loaded.models.policy.params, one.models.policy.params), (loaded.models.meta.params, meta_params)):
        sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (held, stored)]
        assert sizes[0] < 0.51 * sizes[1]


def test_a_hugging_face_directory_judges_alike(tmp_path):
    one = judge()
    checkpoints.save(tmp_path / "model", checkpoints.Model(one.models.policy.params, one.models.policy.config, tokenizer()))
    checkpoints.convert(tmp_path / "model", tmp_path / "hf", "hf")
    loaded = spct_jax.Judge.load(tmp_path / "hf", mesh=one.models.layout, prompt=PromptConfig())
    got = loaded.score(comparisons()[:4], **OPTIONS)
    assert [[s.text for s in v.samples] for v in got] == [[s.text for s in v.samples] for v in verdicts()[:4]]


def test_a_judge_in_int8_judges_alike_alone_and_weighs_its_choices(tmp_path, monkeypatch):
    pytest.importorskip("qwix", reason="needs qwix (pip install -e '.[dev]')")
    one = judge()
    checkpoints.save(tmp_path / "model", checkpoints.Model(one.models.policy.params, one.models.policy.config, tokenizer()))
    loaded = spct_jax.Judge.load(tmp_path / "model", mesh=one.models.layout, prompt=PromptConfig(), quantize="int8")
    assert loaded.models.policy.config.quantize == "int8"
    together, (alone,) = loaded.score(comparisons()[:4], **OPTIONS), loaded.score(comparisons()[2:3], **OPTIONS)
    assert [s.text for s in together[2].samples] == [s.text for s in alone.samples]
    answer, collect = tokenizer().encode_completion("Best: \\boxed{2}"), scheduler.Engine.collect
    monkeypatch.setattr(
        scheduler.Engine, "collect", lambda self: [dataclasses.replace(f, tokens=answer) for f in collect(self)]
    )
    (verdict,) = loaded.score([next(c for c in comparisons() if c.n == 2)], **OPTIONS, mode="token_prob")
    assert sum(verdict.scores) == pytest.approx(6, abs=1e-4) and 1 < min(verdict.scores) < 3
