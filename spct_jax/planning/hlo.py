"""What a compiled program does, read from its text: arithmetic, memory traffic and collectives, with every iteration of loops.

XLA's own analysis counts every loop body once. Here it counts as often as the loop's condition says, or, if the end of the loop
depends on data (decoding until all branches are done), as often as the caller says. Of a conditional, the more expensive branch
counts. The compiler writes the cycles that it expects of most kernels beside them; they are added up in the same way.
"""

import dataclasses
import functools
import math
import re

from spct_jax.planning import hlo_text
from spct_jax.planning.hlo_products import convolution_flops, dot_flops
from spct_jax.planning.hlo_text import Instruction, Shape
from spct_jax.rounding import ceil_div

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "send")
_NO_TRAFFIC = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all", "iota",
    "partition-id", "replica-id", "opt-barrier", "custom-call",
}  # fmt: skip

_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
"""Opcode that changes a part of its first operand in place -> index of the operand that is the new part."""
_HANDED_ON = ("tuple", 0)
UNKNOWN = (1 << 63) - 1
"""What stands for the cycles of a kernel that the compiler cannot tell, of those that run on a sparse core for instance."""
_COPIES = {f"{opcode}-start" for opcode in ("copy", *_SLICES, *_UPDATES)}
_CONTROL = re.compile(r"jit\(.*\)|while|body|cond|closed_call|checkpoint|rematted_computation|branch_\d+_fun|")
"""Names of functions, loops and conditions in a stack of names."""


@dataclasses.dataclass
class Cost:
    """Cost per device and execution."""

    flops: float = 0.0
    """Multiplications and additions of matrix products."""
    bytes: float = 0.0
    """Bytes read from and written to main memory; a fusion counts as one operation."""
    copied: float = 0.0
    """Those of them that asynchronous copies move, which run beside the kernels."""
    collectives: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """Kind -> (how many, bytes that a device sends in a ring algorithm)."""
    kernels: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """`kernel_name` -> (how many, the cycles that the compiler expects of all of them together)."""
    unknown: float = 0.0
    """How many of the kernels the compiler expects nothing of; they count no cycles."""

    @property
    def cycles(self) -> float:
        """Cycles that the compiler expects of all kernels, one after the other; of asynchronous copies it says nothing."""
        return sum(cycles for _, cycles in self.kernels.values())

    @property
    def sent(self) -> float:
        """Bytes that a device sends in all collectives."""
        return sum(size for _, size in self.collectives.values())

    def add(self, other: "Cost", times: float = 1) -> None:
        """Adds another cost, multiplied by `times`."""
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        self.copied += times * other.copied
        self.unknown += times * other.unknown
        for mine, others in ((self.collectives, other.collectives), (self.kernels, other.kernels)):
            for name, (count, size) in others.items():
                seen = mine.get(name, (0.0, 0.0))
                mine[name] = (seen[0] + times * count, seen[1] + times * size)


class Module:
    """A program's computations."""

    def __init__(self, text: str):
        """Parses the text of a compiled program."""
        self.computations, self.entry = hlo_text.parse(text)
        self._seen: set[str] = set()
        self._steps = 1

    def cost(self, steps: int = 1) -> Cost:
        """The cost of the complete program per step, if loops whose end depends on data take `steps` steps."""
        self._seen, self._steps = set(), steps
        total = Cost()
        total.add(self._cost(self.entry), 1 / steps)
        return total

    @functools.cached_property
    def _names(self) -> dict[str, dict[str, Instruction]]:
        return {name: {i.name: i for i in body} for name, body in self.computations.items()}

    def _cost(self, computation: str, fused: bool = False) -> Cost:
        """The cost of one computation; the values of a fused one stay on the chip, and only its collectives count as bytes."""
        total = Cost()
        for instruction in self.computations[computation]:
            self._add(total, computation, instruction, fused)
        return total

    def _add(self, total: Cost, computation: str, instruction: Instruction, fused: bool) -> None:
        opcode = instruction.opcode
        begun = opcode.removesuffix("-start")
        written = None if fused else re.search(r'"estimated_cycles":"(\d+)"', instruction.text)
        if written:
            known = int(written[1]) != UNKNOWN
            kernels = {kernel_name(instruction): (1.0, float(written[1]) if known else 0.0)}
            total.add(Cost(kernels=kernels, unknown=0.0 if known else 1.0))
        if opcode == "while":
            total.add(self._cost(instruction.called("body")), self.trips(computation, instruction) or self._steps)
        elif opcode == "conditional":
            branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.text)
            names = re.findall(r"%?([\w.\-]+)", branches[1]) if branches else []
            names += [c for c in map(instruction.called, ("true_computation", "false_computation")) if c]
            total.add(max((self._cost(name) for name in names), key=lambda c: (c.flops, c.bytes), default=Cost()))
        elif begun == "call" or (begun != opcode and instruction.called("calls")):
            total.add(self._cost(instruction.called("to_apply") or instruction.called("calls")))
        elif opcode == "fusion":
            total.add(self._cost(instruction.called("calls"), fused=True))
            total.bytes += 0 if fused else self._fusion_bytes(computation, instruction)
        elif begun in COLLECTIVES:
            self._add_collective(total, computation, instruction, fused)
        else:
            if opcode in ("dot", "convolution"):
                operands = [self._shapes(computation, name)[0] for name in instruction.operands[:2]]
                total.flops += (dot_flops if opcode == "dot" else convolution_flops)(instruction, *operands)
            kernel = begun == "custom-call" and "tpu_custom_call" in instruction.text
            if not fused and (kernel or begun not in _NO_TRAFFIC) and not begun.endswith(("-update", "-done")):
                moved = self._plain_bytes(computation, instruction)
                total.add(Cost(bytes=moved, copied=moved if opcode in _COPIES else 0.0))

    def _shapes(self, computation: str, name: str) -> tuple[Shape, ...]:
        return self._names[computation][name].shapes

    def trips(self, computation: str, loop: Instruction) -> int | None:
        """How often a loop runs if its counter starts at 0, as in JAX's scans; None if that depends on data."""
        known = re.search(r"known_trip_count[^\d]*(\d+)", loop.text)
        if known:
            return int(known[1])
        condition, body = loop.called("condition"), loop.called("body")
        test = self.computations[condition][-1]
        given = [self._names[condition][name] for name in test.operands]
        if test.opcode == "fusion":
            inside = self.computations[test.called("calls")]
            limits = [self._constant(test.called("calls"), i.name) for i in inside if i.opcode == "constant"]
            compares = inside[-1]
        else:
            limits, compares = [], test
        if compares.opcode != "compare" or "direction=LT" not in compares.text:
            return None
        limits = [x for x in (*limits, *(self._constant(condition, i.name) for i in given)) if x is not None]
        counters = [found[1] for i in given if i.opcode == "get-tuple-element" and (found := re.search(r"index=(\d+)", i.text))]
        if len(limits) != 1 or len(counters) != 1:
            return None
        root = self.computations[body][-1]
        step = self._growth(body, root.operands[int(counters[0])])
        return ceil_div(limits[0], step) if step else None

    def _constant(self, computation: str, name: str) -> int | None:
        instruction = self._names[computation].get(name)
        while instruction is not None and instruction.opcode in ("copy", "bitcast", "convert"):
            instruction = self._names[computation].get(instruction.operands[0])
        if instruction is None or instruction.opcode != "constant" or not re.fullmatch(r"-?\d+", instruction.argument):
            return None
        return int(instruction.argument)

    def _growth(self, computation: str, name: str) -> int:
        """What the body of a loop adds to its counter, in all copies together if the body is unrolled."""
        instruction, output = self._names[computation][name], 0
        if instruction.opcode == "get-tuple-element" and self._names[computation][instruction.operands[0]].opcode == "fusion":
            output = int(re.search(r"index=(\d+)", instruction.text)[1])
            instruction = self._names[computation][instruction.operands[0]]
        if instruction.opcode == "add":
            first, second = instruction.operands
            amount = self._constant(computation, second)
            if amount is None:
                first, amount = second, self._constant(computation, first) or 0
            return amount + self._growth(computation, first)
        if instruction.opcode in ("copy", "bitcast"):
            return self._growth(computation, instruction.operands[0])
        if instruction.opcode == "fusion":
            inside = instruction.called("calls")
            root = self.computations[inside][-1]
            start = root.operands[output] if root.opcode == "tuple" else root.name
            outer = sum(self._growth(computation, o) for o in instruction.operands if not self._shapes(computation, o)[0].dims)
            return outer + self._growth(inside, start)
        return 0

    def _add_collective(self, total: Cost, computation: str, instruction: Instruction, fused: bool) -> None:
        channel = re.search(r"channel_id=(\d+)", instruction.text)
        # The start and the end of an asynchronous collective may both hold a copy of it.
        key = f"{instruction.opcode.removesuffix('-start')}/{channel[1]}" if channel else f"{computation}/{instruction.name}"
        if key in self._seen:
            return
        self._seen.add(key)
        kind, moved = instruction.opcode.removesuffix("-start"), self._plain_bytes(computation, instruction)
        given = sum(s.bytes for name in instruction.operands for s in self._shapes(computation, name))
        users = self._users[computation].get(instruction.name, ())
        if fused and kind == "all-reduce" and users and all(user.opcode == "dynamic-slice" for user in users):
            # TPU programs write a reduce-scatter so: a fusion whose result is the slice.
            kind, moved = "reduce-scatter", moved - sum(s.bytes for s in instruction.shapes if s.in_hbm)
        group = _group_size(instruction.text)
        share = (group - 1) / group if group > 1 else 0.0
        size = {
            "all-gather": given * (group - 1),
            "all-reduce": 2 * given * share,
            "reduce-scatter": given * share,
            "all-to-all": given * share,
        }.get(kind, given)
        total.add(Cost(bytes=moved, collectives={kind: (1.0, float(size))}))

    def _plain_bytes(self, computation: str, instruction: Instruction) -> float:
        """Bytes that an operation reads and writes; of the start of an asynchronous one, those of all of it."""
        opcode = instruction.opcode.removesuffix("-start")
        operands = [self._shapes(computation, name) for name in instruction.operands]
        made = _results(instruction, sum(map(len, operands)))
        if opcode in _SLICES:
            # Of what is sliced, as much is read as is made of it.
            return sum(s.bytes * (operands[0][0].in_hbm + s.in_hbm) for s in made)
        if opcode in _UPDATES:
            (part,) = operands[_UPDATES[opcode]]
            return part.bytes * (part.in_hbm + operands[0][0].in_hbm)
        return sum(s.bytes for shapes in (*operands, made) for s in shapes if s.in_hbm)

    def _fusion_bytes(self, computation: str, fusion: Instruction) -> float:
        """Bytes of operands and results; of arrays that are only sliced or updated in place, only the parts concerned.

        Arrays that are only passed through cost nothing; fusions that overlap a collective with other work do that.
        """
        inside = fusion.called("calls")
        updated, total = set(), 0.0
        for number, name in enumerate(fusion.operands):
            for shape in self._shapes(computation, name):
                parts = self._parts(inside, self._parameters[inside][number])
                if shape.in_hbm:
                    total += shape.bytes if parts is None else min(sum(size for _, size in parts), shape.bytes)
                changed = {opcode for opcode, _ in parts or ()} - {_HANDED_ON[0]}
                if changed and changed <= set(_UPDATES):
                    updated.add(shape.dims)
        root = self.computations[inside][-1]
        made = [self._names[inside][name] for name in root.operands] if root.opcode == "tuple" else [root]
        return total + sum(
            shape.bytes
            for shape, source in zip(fusion.shapes, (i for i in made for _ in i.shapes), strict=True)
            if shape.in_hbm and shape.dims not in updated and source.opcode not in ("parameter", *COLLECTIVES)
        )

    def _parts(self, computation: str, name: str) -> list[tuple[str, int]] | None:
        """(opcode, bytes) of each part of an array that is sliced, updated or passed on; None if any use takes all of it."""
        parts = [_HANDED_ON] if name == self.computations[computation][-1].name else []
        for user in self._users[computation].get(name, ()):
            position = user.operands.index(name)
            if user.opcode in _SLICES and position == 0:
                found = [(user.opcode, user.shapes[0].bytes)]
            elif user.opcode in _UPDATES and position == 0:
                found = [(user.opcode, self._shapes(computation, user.operands[_UPDATES[user.opcode]])[0].bytes)]
            elif user.opcode == "bitcast":
                found = self._parts(computation, user.name)
            elif user.opcode == "fusion":
                inside = user.called("calls")
                found = self._parts(inside, self._parameters[inside][position])
                if found and _HANDED_ON in found:
                    rest = self._parts(computation, user.name)
                    found = None if rest is None else [part for part in found if part != _HANDED_ON] + rest
            elif user.opcode in ("tuple", *COLLECTIVES):
                found = [_HANDED_ON]
            else:
                found = None
            if found is None:
                return None
            parts += found
        return parts

    @functools.cached_property
    def _parameters(self) -> dict[str, dict[int, str]]:
        return {
            name: {int(i.argument): i.name for i in body if i.opcode == "parameter"} for name, body in self.computations.items()
        }

    @functools.cached_property
    def _users(self) -> dict[str, dict[str, list[Instruction]]]:
        users: dict[str, dict[str, list[Instruction]]] = {}
        for name, body in self.computations.items():
            found = users[name] = {}
            for instruction in body:
                for operand in dict.fromkeys(instruction.operands):
                    found.setdefault(operand, []).append(instruction)
        return users


def kernel_name(instruction: Instruction) -> str:
    """What a kernel computes, by the last names of JAX's stack of names, without loops; and its opcode if it is no fusion."""
    found = re.search(r'op_name="([^"]*)"', instruction.text)
    names = [name for name in (found[1] if found else "").split("/") if not _CONTROL.fullmatch(name)]
    shown = [instruction.opcode] * (instruction.opcode != "fusion") + ["/".join(names[-3:])] * bool(names)
    return " ".join(shown) or instruction.opcode


def _results(instruction: Instruction, operands: int) -> tuple[Shape, ...]:
    """What an operation makes, if its operands are so many arrays.

    The start of an asynchronous one names its operands first, then its results, then scalars that it is tracked by. But a copy
    names its result first, and a sum nothing else.
    """
    opcode, shapes = instruction.opcode, instruction.shapes
    if opcode == "copy-start":
        return shapes[:1]
    names_operands = opcode == "send" or (opcode.endswith("-start") and opcode != "all-reduce-start")
    return tuple(s for s in shapes[operands:] if s.dims) if names_operands else shapes


def _group_size(text: str) -> int:
    """Devices that take part in one collective."""
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    tiled = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", text)
    if tiled:
        return int(tiled[2])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    if listed:
        return len(listed[1].split(","))
    if re.search(r"replica_groups=(?!\{\})", text):
        raise ValueError(f"groups of a collective that are written in another way: {text}")
    return 1
