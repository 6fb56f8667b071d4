"""SentencePiece with the turns of a chat format; no text a user writes can become a control token."""

import copy
import functools
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from spct_jax.data.chat import FORMATS, GEMMA, Marker
from spct_jax.data.comparison import Turn
from spct_jax.errors import InputError
from spct_jax.rounding import ceil_div
from spct_jax.storage import files

_BPE = TrainerSpec.BPE
_SURROGATE = re.compile("[\ud800-\udfff]")
_LOOKS_LIKE_CONTROL = re.compile(r"<[^<>\s]+>|\[@[^\[\]\s]*\]")
# Gemma keeps the tags of common HTML as user-defined pieces: they are what people write, not control.
_HTML_TAG = re.compile(
    r"</?(?:table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|p|br|hr|a|img|div|span|ul|ol|li|dl|dt|dd"
    r"|blockquote|pre|code|strong|em|b|i|u|s|sub|sup)/?>"
)
# SentencePiece writes a space as the other of these two, so it cannot tell them apart.
_WORD = re.compile("[ \u2581]*[^ \u2581]+|[ \u2581]+")

CONTROL = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
"""Control pieces that every model must have."""
KEPT_WORDS = 1 << 16
LONGEST_KEPT = 64
"""A tokenizer remembers the sizes of so many words of so many characters."""
LARGEST = 64 << 20
"""Bytes of a SentencePiece model; Gemma's have 4 million."""


class Tokenizer:
    r"""Text to piece ids and back.

    Control pieces are found by name, never by number. A piece counts as control when its type is CONTROL, UNKNOWN or
    UNUSED, or when it is USER_DEFINED and looks like `<name>` or `[@name@]` without being an HTML tag; user-defined
    whitespace such as "\n" is ordinary text.

    Attributes:
        vocab_size: number of pieces.
        bos_id, eos_id, pad_id, start_of_turn_id, end_of_turn_id: ids of the control pieces of those names.
        chat: the name of its chat format in `chat.FORMATS`; empty where nobody named one, so that it is Gemma's.
        added: ids of control pieces that are not in the SentencePiece model, or there have another name.
        end_id: the id that ends an answer in the chat format.
        stop_ids: eos_id, end_of_turn_id, end_id and what else the model stops at; any of them ends a completion.
        control_ids: ids that no text of a user encodes to and that `decode` drops.
        model_proto: the content of its `.model` file.
        counts_words: whether `count` is quick, because words are tokenised one by one.
        replaced_surrogates: how many lone surrogates `encode` has replaced by U+FFFD so far.
    """

    def __init__(
        self, model_proto: bytes, stop_ids: Iterable[int] = (), *, chat: str = "", added: Mapping[str, int] | None = None
    ):
        """Wraps a serialised SentencePiece model.

        Args:
            model_proto: the content of a `.model` file.
            stop_ids: further ids that end a completion.
            chat: the name of a chat format, if one is known.
            added: control pieces by name, in place of pieces of the model or behind them.

        Raises:
            InputError: when it is not one, lacks a control piece we need, or has no byte fallback.
        """
        try:
            proto = ModelProto.FromString(model_proto)
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
        except Exception as error:  # protobuf and SentencePiece raise unrelated types for bytes they cannot read
            raise InputError("not a SentencePiece model") from error
        if not proto.pieces:
            raise InputError("not a SentencePiece model (it has no pieces)")
        if not proto.trainer_spec.byte_fallback:
            raise InputError("the SentencePiece model has no byte fallback, so it cannot encode every text")
        self.model_proto = model_proto
        pieces, types = zip(*((piece.piece, piece.type) for piece in proto.pieces), strict=True)
        special = (index for index, type in enumerate(types) if type != ModelProto.SentencePiece.NORMAL)
        control = {index for index in special if _is_control(pieces[index], types[index])}
        there = {(pieces[index], index) for index in control}
        self.chat, self.added = chat, {name: index for name, index in (added or {}).items() if (name, index) not in there}
        self._ids = {piece: index for index, piece in enumerate(pieces)} | self.added
        self.vocab_size = max(len(pieces), *(index + 1 for index in self.added.values()), 0)
        self.control_ids = frozenset(control | {*self.added.values(), *range(len(pieces), self.vocab_size)})
        if missing := [name for name in CONTROL if self._ids.get(name) not in self.control_ids]:
            raise InputError(f"the SentencePiece model has no control piece {', '.join(missing)}")
        self.pad_id, self.eos_id, self.bos_id, self.start_of_turn_id, self.end_of_turn_id = map(self._control_id, CONTROL)
        self._format = FORMATS[chat or GEMMA]
        self._begin_id, self.end_id = (self._first_id(names) for names in (self._format.begin, self._format.end))
        # Markers that are text, since the model has no such pieces.
        self._spelt = [name for name in self._format.markers if self._ids.get(name) not in self.control_ids]
        self.stop_ids = self._with_own_stops(stop_ids)
        self.replaced_surrogates = 0
        normalizer = proto.normalizer_spec
        self._plain = not (
            normalizer.precompiled_charsmap or normalizer.add_dummy_prefix or normalizer.remove_extra_whitespaces
        )
        self.counts_words = self._plain and normalizer.escape_whitespaces and proto.trainer_spec.model_type == _BPE
        # Text that has become a control piece is encoded by its bytes.
        self.counts_words &= all(index in control or index >= len(pieces) for index in self.added.values())
        self.counts_words &= not any("\u2581" in piece.lstrip("\u2581") for piece in pieces)
        self._sizes, self._spaced_sizes = _WordSizes(self._processor), _WordSizes(self._processor, " ")
        self._longest_piece = max(map(len, pieces))
        self._control_pieces = frozenset(pieces[index] for index in control)
        self._control_lengths = sorted({len(piece) for piece in self._control_pieces})
        self._control_firsts = {piece[0] for piece in self._control_pieces}
        starts = sorted({piece[:2] for piece in self._control_pieces})
        self._control_start = re.compile(f"(?={'|'.join(map(re.escape, starts))})")

    @classmethod
    def load(cls, path: str | os.PathLike, stop_ids: Iterable[int] = (), **chat: Any) -> "Tokenizer":
        """Reads a `.model` file; InputError, naming the file, when it is missing or is not a usable model.

        `chat` are keyword arguments as of `Tokenizer`.
        """
        model_proto = files.read_bytes(path, LARGEST)
        try:
            return cls(model_proto, stop_ids, **chat)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def stopping_at(self, stop_ids: Iterable[int]) -> "Tokenizer":
        """The same tokenizer with these further ids that end a completion, in place of its own further ones."""
        other = copy.copy(self)
        other.stop_ids = self._with_own_stops(stop_ids)
        return other

    def save(self, path: str | os.PathLike) -> None:
        """Writes the `.model` file, all of it or nothing."""
        files.write(path, self.model_proto)

    @property
    def description(self) -> bytes:
        """What tells it from other tokenizers, its stop ids apart."""
        usual = self.chat in ("", GEMMA) and not self.added
        return self.model_proto + (b"" if usual else json.dumps([self.chat, sorted(self.added.items())]).encode())

    @property
    def spells_markers(self) -> bool:
        """Whether markers of the chat format are text, which can be tokenised together with what stands beside them."""
        return bool(self._spelt)

    def encode(self, text: str) -> list[int]:
        """Ids of a user's text, without BOS; never a control id.

        A control piece spelt out in the text is cut after its first character, so that it is encoded as plain
        characters. Decoding gives the text back. Lone surrogates become U+FFFD and are counted.
        """
        if not text.isascii():
            text, replaced = _SURROGATE.subn("\ufffd", text)
            self.replaced_surrogates += replaced
        return [index for segment in self._cut(text) for index in self._encode_segment(segment)]

    def count(self, text: str) -> int:
        """`len(encode(text))`, in a fraction of the time: most words have been seen before.

        Words are tokenised one by one where no piece has a space behind another character, since BPE merges nothing across it.
        Elsewhere, this takes as long.
        """
        if not self.counts_words:
            return len(self.encode(text))
        return sum(map(self._count_words, self._cut(text if text.isascii() else _SURROGATE.sub("\ufffd", text))))

    def _count_words(self, text: str) -> int:
        if "  " in text or "\u2581" in text:
            return sum(map(self._sizes.__getitem__, _WORD.findall(text)))
        first, *others = text.split(" ")  # several times as fast
        return self._sizes[first] + sum(map(self._spaced_sizes.__getitem__, others))

    def min_tokens(self, characters: int) -> int:
        """A lower bound on the tokens of any text with this many characters; 0 where the model's normaliser may drop some."""
        return ceil_div(characters, self._longest_piece) if self._plain else 0

    def max_tokens(self, text: str) -> int:
        """An upper bound on the tokens that `encode_turns` makes of one user turn with this text, without tokenising it."""
        size = len(self._processor.normalize(_SURROGATE.sub("\ufffd", self._disarmed(text))).encode())
        # Where each of the parts that a text is cut into gets a space of its own, there may be one more to every byte.
        return (size if self._plain else 2 * size) + self.count_turns([Turn("user", "")])

    def separates(self, before: str, after: str) -> bool:
        """Whether text that ends in one character is tokenised independently of following text that begins with the other."""
        return self._plain and (_escaped(before), _escaped(after)) not in self._neighbours

    @functools.cached_property
    def _neighbours(self) -> set[tuple[str, str]]:
        """All pairs of characters that stand side by side in a piece."""
        return {pair for piece in self._ids.keys() - self.added.keys() for pair in itertools.pairwise(piece)}

    def encode_turns(self, turns: Sequence[Turn]) -> list[int]:
        """Ids of a prompt in the chat format, one BOS first, ready for the model's answer.

        Where a marker of the format is text, one that a user wrote gets a tilde after its first character.

        Raises:
            InputError: unless, after a system turn if any, user and assistant alternate from user to user.
        """
        return [index for part in self._parts(turns) for index in ([part] if isinstance(part, int) else self.encode(part))]

    def count_turns(self, turns: Sequence[Turn]) -> int:
        """`len(encode_turns(turns))`, see `count`."""
        return sum(1 if isinstance(part, int) else self.count(part) for part in self._parts(turns))

    def _parts(self, turns: Sequence[Turn]) -> Iterator[int | str]:
        """Of a prompt: control ids, and the texts between them."""
        text = ""
        yield self._begin_id
        for part in self._format.lay_out(turns):
            if not isinstance(part, Marker):
                text += self._disarmed(part)
            elif part.name in self._spelt:
                text += part.name
            else:
                if text:
                    yield text
                text = ""
                yield self._marker_id(part.name)
        if text:
            yield text

    def _disarmed(self, text: str) -> str:
        for name in self._spelt:
            text = text.replace(name, f"{name[0]}~{name[1:]}")
        return text

    def _marker_id(self, name: str) -> int:
        return self.end_id if name in self._format.end else self._control_id(name)

    def encode_completion(self, text: str) -> list[int]:
        """Ids of an answer to `encode_turns`, closed by what ends one."""
        return [*self.encode(text), self.end_id]

    def count_completion(self, text: str) -> int:
        """`len(encode_completion(text))`, see `count`."""
        return self.count(text) + 1

    def decode(self, ids: Iterable[int]) -> str:
        """The text before the first stop id, control ids and ids outside the vocabulary left out."""
        text_ids = []
        for index in map(int, ids):
            if index in self.stop_ids:
                break
            if 0 <= index < self.vocab_size and index not in self.control_ids:
                text_ids.append(index)
        return self._processor.decode(text_ids)

    def piece(self, id: int) -> str:
        """The piece of that id, spelt as in the SentencePiece model."""
        return self._processor.id_to_piece(id)

    def find(self, piece: str) -> int | None:
        """The id of a piece, or None."""
        return self._ids.get(piece)

    def _with_own_stops(self, stop_ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(dict.fromkeys((self.eos_id, self.end_of_turn_id, self.end_id, *stop_ids)))

    def _first_id(self, names: Sequence[str]) -> int:
        return self._control_id(next((name for name in names if self._ids.get(name) in self.control_ids), names[-1]))

    def _control_id(self, name: str) -> int:
        if self._ids.get(name) not in self.control_ids:
            raise InputError(f"the SentencePiece model has no control piece {name}")
        return self._ids[name]

    def _cut(self, text: str) -> Iterator[str]:
        if not any(character in text for character in self._control_firsts):
            yield text
            return
        start = 0
        for match in self._control_start.finditer(text):
            at = match.start()
            if any(text[at : at + length] in self._control_pieces for length in self._control_lengths):
                yield text[start : at + 1]
                start = at + 1
        yield text[start:]

    def _encode_segment(self, segment: str) -> list[int]:
        ids = self._processor.encode(segment)
        if self.control_ids.isdisjoint(ids):
            return ids
        # Only a model whose normaliser rewrites text (such as full-width brackets) into a control piece comes here.
        return [self._ids[f"<0x{byte:02X}>"] for byte in segment.encode()]


class _WordSizes(dict[str, int]):
    """Word -> number of tokens, what stands before it included; short words are kept, as long as there are not too many."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, before: str = ""):
        super().__init__()
        self._processor, self._before = processor, before

    def __missing__(self, word: str) -> int:
        size = len(self._processor.encode(self._before + word))
        if len(word) <= LONGEST_KEPT and len(self) < KEPT_WORDS:
            self[word] = size
        return size


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    r"""Trains a BPE model on `texts`: identity normalisation, byte fallback, no dummy prefix.

    The pieces <pad> <eos> <bos> <unk> <start_of_turn> <end_of_turn> have ids 0 to 5, and "\n" is a piece of its own.
    The same texts give the same model, byte for byte.

    Args:
        texts: the corpus; may hold any characters.
        vocab_size: upper limit on pieces; fewer when the texts do not support more.

    Raises:
        InputError: when there is no text, or vocab_size is too small for its characters and the 256 bytes.
    """
    # The names of the two roles open every turn, so they are worth a piece each.
    texts = [f"user\n{text}\nmodel" for text in texts]
    lines = (line for text in texts for line in _SURROGATE.sub("\ufffd", text).replace("\0", "").split("\n"))
    lines = [line for line in lines if line.strip()]
    if len(lines) == 2 * len(texts):
        raise InputError("no text to train a tokenizer on")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=False,
            byte_fallback=True,
            character_coverage=0.99995,
            max_sentence_length=max(max(len(line.encode()) for line in lines) + 1, 10),
            user_defined_symbols=["\n"],
            control_symbols=["<start_of_turn>", "<end_of_turn>"],
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            pad_piece="<pad>",
            eos_piece="<eos>",
            bos_piece="<bos>",
            unk_piece="<unk>",
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise InputError(f"cannot train a tokenizer of {vocab_size} pieces ({str(error).strip()})") from None
    return Tokenizer(model.getvalue())


def _escaped(character: str) -> str:
    return "\u2581" if character == " " else character


def _is_control(piece: str, type: int) -> bool:
    kinds = ModelProto.SentencePiece
    if type in (kinds.CONTROL, kinds.UNKNOWN, kinds.UNUSED):
        return True
    looks = _LOOKS_LIKE_CONTROL.fullmatch(piece) and not _HTML_TAG.fullmatch(piece)
    return type == kinds.USER_DEFINED and bool(looks)
