"""Parses the text of a compiled program into instructions."""

import dataclasses
import math
import re

_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
}
_BYTES |= {"f64": 8, "s4": 1, "u4": 1, "f8e4m3fn": 1, "f8e5m2": 1, "token": 0}


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array in a program."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool
    """Whether it is in the chip's main memory, not in its scratch memory."""

    @property
    def bytes(self) -> int:
        """Size without padding."""
        return _BYTES.get(self.dtype, 4) * math.prod(self.dims)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    text: str
    """Everything after the operands."""
    argument: str
    """The text between the parentheses."""

    def called(self, attribute: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.text)
        return found[1] if found else None


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """(instructions by computation, name of the computation that is the program)."""
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", None
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line)
        if header:
            lines = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif line.rstrip() == "}":
            lines = None
        elif lines is not None and (parsed := _parse(line)) is not None:
            lines.append(parsed)
    return computations, entry


_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")


def _array_shapes(text: str) -> tuple[Shape, ...]:
    return tuple(
        Shape(dtype, tuple(int(d) for d in dims.split(",") if d), not re.search(r"S\([1-9]\)", layout or ""))
        for dtype, dims, layout in _ARRAY.findall(text)
    )


def _balanced(text: str, start: int) -> int:
    """The index at which the parenthesis that opens at `start` closes."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if not depth:
            return position
    return len(text) - 1


def _parse(line: str) -> Instruction | None:
    head = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    start = head.end()
    stop = _balanced(line, start) + 1 if line[start] == "(" else line.find(" ", start)
    opcode = re.match(r" ([\w\-]+)\(", line[stop:])
    if not opcode:
        return None
    opens = stop + opcode.end() - 1
    closes = _balanced(line, opens)
    argument = line[opens + 1 : closes]
    return Instruction(
        name=head[1],
        shapes=_array_shapes(line[start:stop]),
        opcode=opcode[1],
        operands=tuple(re.findall(r"%([\w.\-]+)", argument)),
        text=line[closes + 1 :],
        argument=argument,
    )
