"""Bradley-Terry scores of responses, and their way through checkpoints of every layout."""

import numpy as np
import pytest
import small_judge
from small_reward_models import scalar_model, score_alone

from spct_jax import checkpoints
from spct_jax.checkpoints import ModelKind
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.reward_models import bradley_terry
from spct_jax.reward_models.base import RewardModel, Scored
from spct_jax.reward_models.bradley_terry import BradleyTerry
from spct_jax.storage import files

TURNS = [Turn("system", "Be brief."), Turn("user", "Hi."), Turn("assistant", "Hello."), Turn("user", "I need wifi.")]


def comparison(*responses):
    return Comparison(conversation=TURNS, responses=responses, id=str(len(responses)))


def test_a_response_scores_as_the_last_turn_of_a_chat_by_itself():
    model, tokenizer = BradleyTerry(scalar_model()), small_judge.tokenizer()
    shown = [comparison("Alba has wifi.", "Birch has sun, tea.\n", "No."), comparison("Coral has light.")]
    found = model.score(shown)
    assert isinstance(model, RewardModel) and isinstance(found[0], Scored) and [s.id for s in found] == ["3", "1"]
    for given, scored in zip(shown, found, strict=True):
        for response, score in zip(given.responses, scored.scores, strict=True):
            tokens = [*tokenizer.encode_turns(TURNS), *tokenizer.encode(response.strip()), tokenizer.end_of_turn_id]
            assert score == pytest.approx(score_alone(tokens), abs=2e-5)


def test_it_scores_alike_from_every_layout_and_says_what_it_is(tmp_path):
    one = BradleyTerry(scalar_model())
    model = checkpoints.Model(
        one.model.params, one.model.config, small_judge.tokenizer(), ModelKind.BTRM, prompt=PromptConfig()
    )
    checkpoints.save(tmp_path / "ours", model)
    checkpoints.convert(tmp_path / "ours", tmp_path / "hf", "hf")
    checkpoints.convert(tmp_path / "hf", tmp_path / "again", "orbax")
    config = files.read_json(tmp_path / "hf" / "config.json")
    assert config["architectures"] == ["Gemma2ForSequenceClassification"] and config["reward_model"] == "btrm"
    assert config["id2label"] == {"0": "LABEL_0"} and config["pad_token_id"] == small_judge.tokenizer().pad_id
    shown = [comparison("Alba has wifi.", "No.")]
    for name in ("ours", "hf", "again"):
        assert checkpoints.read_kinds(tmp_path / name) == (ModelKind.BTRM,)
        assert BradleyTerry.load(tmp_path / name, one.model.layout).score(shown) == one.score(shown), name
    with pytest.raises(InputError, match="holds a btrm checkpoint, not a meta_rm one"):
        checkpoints.load(tmp_path / "hf", kind=ModelKind.META_RM)


def test_a_classifier_that_does_not_say_what_it_scores_is_what_it_is_asked_for(tmp_path):
    one = scalar_model()
    model = checkpoints.Model(one.params, one.config, small_judge.tokenizer(), ModelKind.BTRM)
    checkpoints.save(tmp_path / "ours", model)
    checkpoints.convert(tmp_path / "ours", tmp_path / "hf", "hf")
    path = tmp_path / "hf" / "config.json"
    config = files.read_json(path)
    config.pop("reward_model")
    files.write_json(path, config)
    for kind in (ModelKind.META_RM, ModelKind.BTRM):
        found = checkpoints.load(tmp_path / "hf", kind=kind)
        assert found.kind is kind and np.array_equal(found.params["head"]["score"], one.params["head"]["score"])
    for asked, kind in ((None, ModelKind.META_RM), (ModelKind.BTRM, ModelKind.BTRM)):
        checkpoints.convert(tmp_path / "hf", tmp_path / kind.value, "orbax", kind=asked)
        assert checkpoints.read_card(tmp_path / kind.value).kind is kind
    with pytest.raises(InputError, match="holds a meta_rm checkpoint, not a policy one"):
        checkpoints.load(tmp_path / "hf")
    files.write_json(path, config | {"reward_model": "banana"})
    with pytest.raises(InputError, match="reward_model is 'banana', none of meta_rm, btrm"):
        checkpoints.load(tmp_path / "hf", kind=ModelKind.BTRM)


def test_a_conversation_that_no_chat_has_is_one_turn_that_names_the_speakers():
    turns = [Turn("assistant", "Hello."), Turn("user", "Hi."), Turn("user", "Tea?")]
    (turn,) = bradley_terry.chat_turns(Comparison(conversation=turns, responses=["Yes."]))
    assert turn == Turn("user", "Assistant: Hello.\nUser: Hi.\nUser: Tea?")
    assert bradley_terry.chat_turns(Comparison(conversation=turns[2:], responses=["Yes."])) == tuple(turns[2:])
