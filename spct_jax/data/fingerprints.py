"""Digests of what records say, the same for copies that differ only in case, white space or the form of a character."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.demonstration import Demonstration

_SCRIPTS_WITHOUT_SPACES = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{_SCRIPTS_WITHOUT_SPACES}]|[^\\W{_SCRIPTS_WITHOUT_SPACES}]+")


def normalise(text: str) -> str:
    """The text without differences of case, of white space and of compatible characters (Unicode's NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a text, normalised and without punctuation; in scripts without spaces every character is one."""
    return _WORD.findall(normalise(text))


def turns_of(record: Comparison | Demonstration) -> tuple[Turn, ...]:
    """The prompt of a record: its conversation."""
    return record.conversation if isinstance(record, Comparison) else record.turns


def answers_of(record: Comparison | Demonstration) -> tuple[str, ...]:
    """The responses of a comparison, the completions of a demonstration."""
    return record.responses if isinstance(record, Comparison) else record.completions


def of(record: Comparison | Demonstration) -> tuple[int, int]:
    """(digest of the prompt, digest of prompt and answers in whatever order), signed integers of 64 bits.

    Among a million records the chance that any two different ones share a digest is one in thirty million.
    """
    prompt = [f"{turn.role}:{normalise(turn.content)}" for turn in turns_of(record)]
    return digest(prompt), digest([*prompt, *sorted(map(normalise, answers_of(record)))])


def digest(texts: Iterable[str]) -> int:
    """A signed integer of 64 bits for a sequence of texts."""
    content = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
