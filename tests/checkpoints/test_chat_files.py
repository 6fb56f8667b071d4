"""The chat format that a model directory names goes where the model goes."""

import json

import jax
import numpy as np
import pytest
from stand_ins import stand_in

from spct_jax import checkpoints, sharding
from spct_jax.data import chat
from spct_jax.data.comparison import Turn
from spct_jax.errors import InputError
from spct_jax.training import context, data, parameters

DEEPSEEK = chat.FORMATS["deepseek_v3"]
USER, ASSISTANT = DEEPSEEK.markers


def name_chat(directory, template, added=None, alone=False):
    if alone:
        (directory / "chat_template.jinja").write_text(template)
    entries = {str(id): {"content": piece, "special": True} for piece, id in (added or {}).items()}
    config = {"added_tokens_decoder": entries} | ({} if alone else {"chat_template": template})
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("alone", [False, True])
def test_a_chat_format_travels_through_every_layout(source, tmp_path, tokenizer, alone):
    """Ids behind those of `tokenizer.model` are tokens of the model, too."""
    added = {USER: tokenizer.vocab_size + 1, ASSISTANT: tokenizer.vocab_size}
    template = "{{ bos_token + '" + USER + "' + messages[0].content + '" + ASSISTANT + "' }}"
    name_chat(source, template, added | {"<unrelated>": 9}, alone)
    for directory, target, layout in (("source", "ours", "orbax"), ("ours", "hf", "hf"), ("hf", "copy", "hf")):
        found = checkpoints.load(tmp_path / directory)
        assert (found.tokenizer.chat, found.tokenizer.added) == ("deepseek_v3", added)
        assert found.config.num_tokens == tokenizer.vocab_size + 2
        shown = [tokenizer.bos_id, added[USER], *tokenizer.encode("tea"), added[ASSISTANT]]
        assert found.tokenizer.encode_turns([Turn("user", "tea")]) == shown
        checkpoints.convert(tmp_path / directory, tmp_path / target, layout)
    written = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    assert written["chat_template"] == DEEPSEEK.jinja and len(written["added_tokens_decoder"]) == 2


def test_it_stays_with_a_tokenizer_from_elsewhere(source, micro_config, tmp_path, tokenizer):
    """As DeepSeek-GRM needs it, should its directory have no `tokenizer.model`; ids that the model stops at stay, too."""
    added = {USER: tokenizer.vocab_size + 1, ASSISTANT: tokenizer.vocab_size}
    name_chat(source, DEEPSEEK.jinja, added)
    elsewhere = (source / "tokenizer.model").rename(tmp_path / "elsewhere.model")
    checkpoints.convert(source, tmp_path / "ours", "orbax", tokenizer=str(elsewhere))
    micro_config.init_checkpoint, micro_config.data.tokenizer = str(source), str(elsewhere)
    trained = data.load_tokenizer(micro_config, stand_in(context.Dataset), tmp_path / "unused")
    for found in (checkpoints.read_tokenizer(tmp_path / "ours"), trained):
        assert (found.chat, found.added) == ("deepseek_v3", added)
        assert 7 in found.stop_ids
    (tmp_path / "run" / "data").mkdir(parents=True)
    run = stand_in(context.Run, config=micro_config, layout=sharding.make_layout(), workdir=tmp_path / "run")
    ours = checkpoints.load(tmp_path / "ours", dtype="float32").params
    jax.tree.map(np.testing.assert_array_equal, parameters.initial(run), ours)


def test_a_directory_that_names_none_or_another_is_spoken_to_as_before(source, tmp_path):
    plain = checkpoints.read_tokenizer(source)
    for template in ("{{ '<|im_start|>user' }}", [{"name": "rag", "template": DEEPSEEK.jinja}], None):
        name_chat(source, template)
        assert checkpoints.read_tokenizer(source).chat == ""
    name_chat(source, [{"name": "default", "template": chat.FORMATS["gemma"].jinja}])
    assert checkpoints.read_tokenizer(source).description == plain.description
    checkpoints.convert(source, tmp_path / "ours", "orbax")
    assert json.loads((tmp_path / "ours" / "model.json").read_text())["chat"] == "gemma"


def test_a_model_that_names_no_format_is_written_with_the_chat_template_of_the_turns_that_it_sees(source, tmp_path):
    """Without one transformers refuses to lay out a conversation."""
    checkpoints.convert(source, tmp_path / "ours", "orbax")
    assert "chat" not in json.loads((tmp_path / "ours" / "model.json").read_text())
    checkpoints.convert(tmp_path / "ours", tmp_path / "hf", "hf")
    written = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    assert written["chat_template"] == chat.FORMATS["gemma"].jinja
    assert checkpoints.read_tokenizer(tmp_path / "hf").description == checkpoints.read_tokenizer(source).description


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"chat_template": 5}, "tokenizer_config.json: chat_template is no text"),
        ({"added_tokens_decoder": []}, None),
        ({"added_tokens_decoder": {"7": "x"}}, "added_tokens_decoder is no object of objects"),
        ({"added_tokens_decoder": {"-7": {"content": USER}}}, f"added_tokens_decoder: '-7' is no id of {USER}"),
        ({"added_tokens_decoder": {"9" * 30: {"content": USER}}}, "is no id of"),
        ({"added_tokens_decoder": {"99999": {"content": USER}}}, "the tokenizer has 100000 pieces, the model 320 rows"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(source, fields, said):
    config = {"chat_template": DEEPSEEK.jinja} | fields
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    if said is None:
        assert checkpoints.read_tokenizer(source).chat == "deepseek_v3"
        return
    with pytest.raises(InputError, match=said):
        checkpoints.load(source)
