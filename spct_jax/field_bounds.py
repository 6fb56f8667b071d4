"""What the fields of a dataclass may hold, written next to each field and checked in one function.

steps: int = bounded(520, 1, MOST)
clip: float = bounded(0.2, 0, 1, ends="()")
k: tuple[int, ...] = bounded((1, 8, 32), 1, 4096, length=(1, 64), ascending=True)
name: str = one_of("adam", ("adam", "muon"))

What must hold between fields is checked by a method of the dataclass, called when every field is within its own range:

def conflicts(self, prefix: str) -> Iterator[str]:
    if self.batch_size % self.accumulate:
        yield f"{prefix}accumulate: ..."
"""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator
from typing import Any

from spct_jax.errors import InputError

MOST = 2**31 - 1
"""Largest count of anything; most counts become 32-bit integers on the devices."""
SEEDS = (0, 2**32 - 1)
"""Range of the seeds: `jax.random.key` takes them modulo 2**32."""
NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "text", tuple: "a tuple"}


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The range of a number; for a tuple, of each of its numbers, and of how many there are."""

    minimum: float
    maximum: float
    ends: str = "[]"
    """Brackets of the interval: a round one excludes its end."""
    length: tuple[int, int] = (0, MOST)
    ascending: bool = False

    def __contains__(self, number: float) -> bool:
        above = number > self.minimum if self.ends[0] == "(" else number >= self.minimum
        below = number < self.maximum if self.ends[1] == ")" else number <= self.maximum
        return above and below  # NaN is in no interval

    def __str__(self) -> str:
        return f"{self.ends[0]}{self.minimum}, {self.maximum}{self.ends[1]}"


def bounded(default: Any, minimum: float, maximum: float, **more: Any) -> Any:
    """A dataclass field that holds a number, or a tuple of numbers, from `minimum` to `maximum`.

    Args:
      default: the field's default; `dataclasses.MISSING` for a required field.
      minimum: smallest value of each number.
      maximum: largest value of each number.
      more: `ends`, `length` and `ascending`, as in `Bounds`.
    """
    return dataclasses.field(default=default, metadata={"bounds": Bounds(minimum, maximum, **more)})


def one_of(default: str, choices: tuple[str, ...]) -> Any:
    """A dataclass field that holds one of these strings."""
    return dataclasses.field(default=default, metadata={"choices": choices})


def check(values: Any, prefix: str = "") -> None:
    """Checks a dataclass and those inside it: types and ranges of their fields, and what must hold between fields.

    Args:
      values: the dataclass.
      prefix: what stands before a field's name where the user writes it, such as `config.` or `--`.

    Raises:
      InputError: a value has the wrong type or is out of range, values do not go together, or the dataclass has no such field.
    """
    for problem in problems(values, prefix):
        raise InputError(problem)


def problems(values: Any, prefix: str) -> Iterator[str]:
    """One line for every problem; see `check`."""
    fields = {field.name: field for field in dataclasses.fields(values)}
    for name in vars(values).keys() - fields.keys():
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)[0]
        yield f"{prefix}{name}: no such field; did you mean {prefix}{near}?"
    kinds = _kinds(type(values))
    sound = True
    for name, field in fields.items():
        for problem in _problems_of(f"{prefix}{name}", kinds[name], field.metadata, getattr(values, name)):
            sound = False
            yield problem
    if sound and hasattr(values, "conflicts"):
        yield from values.conflicts(prefix)


@functools.cache
def _kinds(dataclass: type) -> dict[str, Any]:
    return typing.get_type_hints(dataclass)


def _problems_of(name: str, kind: Any, rules: types.MappingProxyType, value: Any) -> Iterator[str]:
    arguments = typing.get_args(kind)
    kind = typing.get_origin(kind) or kind
    if dataclasses.is_dataclass(kind):
        yield from problems(value, f"{name}.") if isinstance(value, kind) else [f"{name}: {value!r} is no {kind.__name__}"]
    elif not _is(value, kind):
        yield f"{name}: {value!r} is not {NAMES[kind]}"
    elif kind is tuple:
        yield from _problems_of_tuple(name, arguments, rules, value)
    elif kind in (int, float) and value not in rules["bounds"]:
        yield f"{name}: {value} is not in {rules['bounds']}"
    elif "choices" in rules and value not in rules["choices"]:
        yield f"{name}: {value!r} is none of {', '.join(rules['choices'])}"


def _problems_of_tuple(name: str, kinds: tuple, rules: types.MappingProxyType, value: tuple) -> Iterator[str]:
    bounds, endless = rules.get("bounds", Bounds(0, 0)), kinds[-1] is Ellipsis
    low, high = bounds.length if endless else (len(kinds),) * 2
    if not low <= len(value) <= high:
        yield f"{name}: {value!r} has {len(value)} values, not {low if low == high else f'{low} to {high}'}"
        return
    inner = dict(rules, bounds=dataclasses.replace(bounds, length=(0, MOST), ascending=False))
    for number, (kind, element) in enumerate(zip(kinds[:1] * len(value) if endless else kinds, value, strict=True)):
        wrong = list(_problems_of(f"{name}[{number}]", kind, inner, element))
        yield from wrong
        if wrong:
            return
    if bounds.ascending and any(a >= b for a, b in zip(value, value[1:], strict=False)):
        yield f"{name}: {value!r} is not ascending, or a value is there twice"


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, (tuple, list) if kind is tuple else kind)
