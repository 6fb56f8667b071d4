"""Scalar reward models behind the commands that judge."""

import dataclasses
import json

import pytest
import small_judge
from small_reward_models import scalar_model

from spct_jax import checkpoints
from spct_jax.checkpoints import ModelKind
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.judging import files, scalar_judge
from spct_jax.judging.explain import explanation
from spct_jax.judging.scalar_judge import ScalarJudge
from spct_jax.reward_models import scalar
from spct_jax.reward_models.bradley_terry import BradleyTerry


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(scalar, "BATCH_TOKENS", 512)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with one checkpoint of each kind, by the word for it."""
    directory, one = tmp_path_factory.mktemp("saved"), scalar_model()
    for kind in ModelKind:
        params = one.params if kind.has_head else one.params["model"]
        model = checkpoints.Model(params, one.config, small_judge.tokenizer(), kind, prompt=PromptConfig())
        checkpoints.save(directory / kind.value, model)
    return directory


def test_verdicts_of_a_file_are_the_models_scores_and_one_that_does_not_fit_is_an_error_of_its_own(saved, tmp_path):
    layout, shown = scalar_model().layout, small_judge.comparisons()[:3]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    records = [{"query": c.query, "responses": list(c.responses)} for c in shown]
    records.insert(1, {"query": "long " * 400, "responses": ["a", "b"]})
    source.write_text("".join(json.dumps(record) + "\n" for record in records))

    def load():
        found = scalar_judge.load(str(saved / "btrm"), mesh=layout)
        found._model = dataclasses.replace(found._model, config=dataclasses.replace(found._model.config, max_positions=512))
        return found

    files.judge_file(str(source), str(target), load, options={"k": 8}, settings={}, on_bad="skip")
    got = [json.loads(line) for line in target.read_text().splitlines()]
    assert "the model has 512 positions" in got.pop(1)["error"]
    wanted = BradleyTerry(scalar_model()).score(shown)
    assert [tuple(record["scores"]) for record in got] == [scored.scores for scored in wanted]
    assert {(record["k"], record["samples"][0]["order"], len(record["samples"])) for record in got} == {(1, None, 1)}
    assert "Sample 1\n" in explanation(shown[0], got[0])


def test_it_is_asked_from_python_as_a_judge_that_writes_is(saved):
    judge, shown = scalar_judge.load(str(saved / "btrm"), mesh=scalar_model().layout), small_judge.comparisons()[:3]
    assert judge.score(shown) == list(judge.stream(iter(shown))) and judge.score([]) == []
    with pytest.raises(InputError, match="to be judged is one Comparison; put it into a list"):
        judge.score(shown[0])
    with pytest.raises(InputError, match="to be judged is a dict, not a spct_jax.Comparison"):
        judge.score([{"query": "tea", "responses": ["a", "b"]}])


def test_a_checkpoint_is_what_it_says_and_goes_with_the_flags_that_it_needs(saved):
    layout, path = scalar_model().layout, {kind.value: str(saved / kind.value) for kind in ModelKind}
    assert isinstance(scalar_judge.load(path["pairrm"], mesh=layout), ScalarJudge)
    cloud = scalar_judge.load(path["cloud"], None, path["policy"], mesh=layout)
    assert set(cloud.digests) == {"checkpoint", "critic_checkpoint"} and all(cloud.digests.values())
    for arguments, message in (
        ((path["cloud"],), "need each other"),
        ((path["btrm"], None, path["policy"]), "need each other"),
        ((path["btrm"], path["meta_rm"]), "no verdicts for it to rate"),
        ((path["btrm"], None, None, layout, PromptConfig("short", "", "", "")), "--template: .* is a btrm model"),
        ((path["meta_rm"],), "holds a meta_rm checkpoint, not a policy one"),
    ):
        with pytest.raises(InputError, match=message):
            scalar_judge.load(*arguments)
    assert isinstance(scalar_judge.load(path["btrm"], prompt=PromptConfig("", "", "", "")), ScalarJudge)
    with pytest.raises(InputError, match="read is for a judge that writes verdicts"):
        cloud.stream([], read="expected")


def test_cloud_draws_k_critiques_of_every_response(saved):
    one = small_judge.judge().models.policy
    critic = scalar_judge.Critic(small_judge.judge().models.layout, one.params, one.config, one.prompter)
    cloud = ScalarJudge(ModelKind.CLOUD, scalar_model(), critic)
    options = {"k": 2, "temperature": 1.0, "max_new_tokens": 16, "batch_size": 4}
    (verdict,) = cloud.stream(small_judge.comparisons()[:1], **options)
    assert verdict.k == 2 and verdict.truncated == 2 - verdict.valid and (verdict.scores is None) == (verdict.valid == 0)
    assert all(sample.order is None and sample.tokens > 0 for sample in verdict.samples)
