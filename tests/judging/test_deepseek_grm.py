"""Directories like those of DeepSeek-GRM and its meta RM, with small random weights, judged by the command as released."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_judge
from absl.testing import flagsaver

from spct_jax import checkpoints, models
from spct_jax import judge as command
from spct_jax.checkpoints import ModelKind, hugging_face
from spct_jax.data.chat import FORMATS
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.grm.render import render
from spct_jax.grm.template import load_template
from spct_jax.judging import readings

COMPARISON = {"id": "tea", "query": "How do I make green tea?", "responses": ["Boil it.", "Steep it at 80 degrees."]}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """`policy` and `meta`, in Hugging Face's layout and without anything of ours in their files."""
    directory = tmp_path_factory.mktemp("released")
    random_judge.save(directory)
    checkpoints.convert(directory / "model", directory / "policy", "hf")
    model = checkpoints.load(directory / "model")
    decoder = {**model.params, "embedder": {"input_embedding": model.params["embedder"]["input_embedding"]}}
    params = {"model": decoder, "head": models.init_score_head(model.config, jax.random.key(1))}
    hugging_face.save_hf(directory / "meta", params, model.config, kind=ModelKind.META_RM)
    config = json.loads((directory / "meta" / "config.json").read_text())
    assert config["architectures"] == ["Gemma2ForSequenceClassification"] and config.pop("reward_model")
    assert not config["tie_word_embeddings"]  # as of a decoder whose words of answers had a table of their own
    (directory / "meta" / "config.json").write_text(json.dumps(config))
    written = {"chat_template": FORMATS["deepseek_v3"].jinja}
    (directory / "policy" / "tokenizer_config.json").write_text(json.dumps(written))
    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        (directory / "meta" / name).write_bytes((directory / "policy" / name).read_bytes())
    (directory / "in.jsonl").write_text(json.dumps(COMPARISON) + "\n")
    return directory


@pytest.fixture
def judged(released):
    """A function of flags: the one verdict that the command writes in this process."""
    saved = flagsaver.save_flag_values(command.FLAGS)

    def judge(output, *flags):
        target = released / output
        named = [f"--checkpoint={released}/policy", f"--meta_checkpoint={released}/meta", f"--input={released}/in.jsonl"]
        command.FLAGS(["judge", *named, f"--output={target}", "--max_new_tokens=24", "--batch_size=1", *flags])
        command.score()
        return json.loads(target.read_text())

    yield judge
    flagsaver.restore_flag_values(saved, command.FLAGS)


@functools.partial(jax.jit, static_argnums=1)
def last_hidden(params, config, tokens):
    trunk = models.prefill(params, config, tokens[:, :-1], jnp.array([tokens.shape[1] - 1]))
    return models.extend(params, config, trunk, tokens[:, None, -1:])[0, 0, 0]


def reward_by_hand(directory, tokens):
    """The score head at the last token of a text that is one row, as a sequence classifier computes it."""
    params, config, _ = hugging_face.read_weights(directory)
    hidden = np.asarray(last_hidden(params["model"], config, jnp.array([tokens])), np.float64)
    return float(hidden @ np.asarray(params["head"]["score"], np.float64))


def test_critiques_are_drawn_read_and_rated_as_released(released, judged, monkeypatch):
    rated, read_rewards = [], readings.MetaRewards.read

    def record(self, works, trunk, groups):
        rated.extend((work.critiques, self.prompt(work.critiques)[0], work.branches) for work in works if work)
        read_rewards(self, works, trunk, groups)

    monkeypatch.setattr(readings.MetaRewards, "read", record)
    verdict = judged("out.jsonl", "--template=deepseek_grm", "--meta_template=deepseek_grm_meta", "--k=8", "--k_meta=2")
    comparison = Comparison(conversation=[Turn("user", COMPARISON["query"])], responses=COMPARISON["responses"])
    tokenizer = checkpoints.read_tokenizer(released / "meta")
    for sample in verdict["samples"]:
        assert "Scores:" not in sample["text"]  # only a lenient template reads a box that no label stands before
        _, box, rest = sample["text"].rpartition("\\boxed{")
        readable = box and not sample["truncated"]
        found = sample["scores"] and [sample["scores"][index] for index in sample["order"]]
        assert found == ([int(number) for number in rest.partition("}")[0].split(",")] if readable else None)
    read = [sample for sample in verdict["samples"] if sample["scores"]]
    assert len(read) == verdict["valid"] >= 3
    kept = sorted(read, key=lambda sample: -sample["meta"])[:2]
    assert verdict["scores"] == [sum(column) for column in zip(*(sample["scores"] for sample in kept), strict=True)]

    settings = json.loads((released / "out.jsonl.settings.json").read_text())
    assert settings["meta_template"] == "deepseek_grm_meta" and "meta_template" in settings["digests"]
    for critiques, prompt, branches in rated:
        (turn,) = render(comparison, critiques.order, load_template("deepseek_grm_meta"))
        expected = [tokenizer.bos_id, *tokenizer.encode(f"<\uff5cUser\uff5c>{turn.content}<\uff5cAssistant\uff5c>")]
        assert prompt.tolist() == expected and len(branches) == len(critiques.samples)
    reward = reward_by_hand(released / "meta", expected + branches[0])
    assert verdict["samples"][critiques.samples[0][0]]["meta"] == pytest.approx(reward, abs=2e-5)
