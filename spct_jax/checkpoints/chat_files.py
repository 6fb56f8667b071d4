"""The chat format and the control pieces of a tokenizer, as Hugging Face's files and ours name them.

Hugging Face's directories have a chat template in `chat_template.jinja` or `tokenizer_config.json`, and in the latter under
`added_tokens_decoder` the pieces that are not in `tokenizer.model` or have another name there. The template is not run: the
markers in it tell which format it makes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from spct_jax.data import chat
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.storage import files
from spct_jax.storage.paths import Path

TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
_CHAT, _ADDED = "chat", "added_tokens"
"""Fields of `model.json`."""
MOST_PIECES = 1 << 24


class Chat(NamedTuple):
    """Keyword arguments of `Tokenizer`."""

    chat: str = ""
    added: Mapping[str, int] = {}


def read_hf(directory: Path) -> Chat:
    """What a directory in Hugging Face's layout says; InputError, naming the file, where it cannot be understood."""
    path = files.contained(directory, TOKENIZER_CONFIG)
    config = files.read_json(path) if files.is_there(path) else {}
    alone = files.contained(directory, CHAT_TEMPLATE)
    template = files.read_bytes(alone).decode(errors="replace") if files.is_there(alone) else config.get("chat_template") or ""
    if isinstance(template, list):  # several by name; a list of something else has none
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default") or ""
    if not isinstance(template, str):
        raise InputError(f"{path}: chat_template is no text")
    name = chat.find_format(template)
    if not name:
        return Chat()
    entries = config.get("added_tokens_decoder") or {}
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InputError(f"{path}: added_tokens_decoder is no object of objects")
    known = chat.FORMATS[name]
    wanted = {*known.markers, *known.begin, *known.end} - {"<bos>", "<eos>"}
    pieces = {entry.get("content"): id for id, entry in entries.items() if entry.get("content") in wanted}
    return Chat(name, _checked(path, "added_tokens_decoder", {piece: _number(id) for piece, id in pieces.items()}))


def write_hf(tokenizer: Tokenizer) -> dict[str, Any]:
    """Fields of `tokenizer_config.json` that say it; the chat template always, since transformers falls back on none."""
    plain = {name: False for name in ("lstrip", "normalized", "rstrip", "single_word")} | {"special": True}
    added = {str(id): {"content": piece} | plain for piece, id in tokenizer.added.items()}
    return {"chat_template": chat.FORMATS[tokenizer.chat or chat.GEMMA].jinja} | (
        {"added_tokens_decoder": added} if added else {}
    )


def read_card(path: Path, card: dict[str, Any]) -> Chat:
    """What a `model.json` says, whose fields are taken out of it; InputError where it names a format that there is not."""
    name, added = card.pop(_CHAT, ""), card.pop(_ADDED, {})
    if name not in ("", *chat.FORMATS):
        raise InputError(f"{path}: {_CHAT} is {name!r}, none of {', '.join(chat.FORMATS)}")
    if not isinstance(added, dict):
        raise InputError(f"{path}: {_ADDED} is no object")
    return Chat(name, _checked(path, _ADDED, added))


def write_card(tokenizer: Tokenizer) -> dict[str, Any]:
    """Fields of `model.json` that say it; none where nothing was named."""
    return ({_CHAT: tokenizer.chat} if tokenizer.chat else {}) | ({_ADDED: tokenizer.added} if tokenizer.added else {})


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else text


def _checked(path: Path, field: str, pieces: dict[str, Any]) -> dict[str, int]:
    for piece, id in pieces.items():
        if type(id) is not int or not 0 <= id < MOST_PIECES:
            raise InputError(f"{path}: {field}: {id!r} is no id of {piece}")
    return pieces
