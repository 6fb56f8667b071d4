"""TPU slices: how many hosts and chips a topology has, and what GKE and the TPU VM API call it.

`v5p:4x4x4` names a slice everywhere here: the chip, and the chips along each side. A host has four chips, except for the
single-chip shapes and, on TPU VMs, the eight-chip shapes of v5e and v6e, which are one host.
"""

import dataclasses
import itertools
import math
import re

from spct_jax.errors import InputError

Sides = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Generation:
    """What all slices of one chip have in common."""

    accelerator: str
    """Value of the node label `cloud.google.com/gke-tpu-accelerator`."""
    machine: str
    """Machine type without its number of chips."""
    most: int
    """Chips of the largest slice."""
    small: tuple[Sides, ...]
    """Shapes that are not made of whole cubes of 4x4x4; for chips in a plane, all shapes."""
    any_order: bool = False
    """Whether sides may stand in any order; otherwise from the shortest to the longest."""
    runtime: str = ""
    """Software version of a TPU VM; empty where there are no TPU VMs."""
    vm_prefix: str = ""
    """The TPU VM API's name of the chip; empty where it names slices by chip and topology instead."""
    vm_unit: int = 1
    """What the TPU VM API counts for one chip: its cores, or 1."""


_PLANES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_PARTS_OF_A_CUBE = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_LONGEST = 256
"""Chips along the longest side of any slice."""
_NAMED = 6144
"""Largest slice, in chips, whose TPU VM name is documented to mean one topology."""

GENERATIONS = {
    "v4": Generation(
        "tpu-v4-podslice", "ct4p-hightpu", 4096, _PARTS_OF_A_CUBE, any_order=True, runtime="tpu-ubuntu2204-base", vm_unit=2
    ),
    "v5e": Generation(
        "tpu-v5-lite-podslice", "ct5lp-hightpu", 256, _PLANES, runtime="v2-alpha-tpuv5-lite", vm_prefix="v5litepod"
    ),
    "v5p": Generation(
        "tpu-v5p-slice", "ct5p-hightpu", 8960, _PARTS_OF_A_CUBE, runtime="v2-alpha-tpuv5", vm_prefix="v5p", vm_unit=2
    ),
    "v6e": Generation("tpu-v6e-slice", "ct6e-standard", 256, _PLANES, runtime="v2-alpha-tpuv6e", vm_prefix="v6e"),
    "tpu7x": Generation("tpu7x", "tpu7x-standard", 9216, ((1, 1, 1), *_PARTS_OF_A_CUBE)),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice that can be ordered."""

    chip: str
    """One of `GENERATIONS`."""
    sides: Sides
    """Chips along each side."""

    @property
    def generation(self) -> Generation:
        """What it has in common with other slices of its chip."""
        return GENERATIONS[self.chip]

    @property
    def topology(self) -> str:
        """`4x4x4`: the value of the node label `cloud.google.com/gke-tpu-topology`."""
        return "x".join(map(str, self.sides))

    @property
    def name(self) -> str:
        """`v5p:4x4x4`: what `--topology` takes."""
        return f"{self.chip}:{self.topology}"

    @property
    def chips(self) -> int:
        """How many chips it has."""
        return math.prod(self.sides)

    @property
    def chips_per_host(self) -> int:
        """Chips of each machine on GKE."""
        return min(self.chips, 4)

    @property
    def hosts(self) -> int:
        """Machines on GKE; each runs one process."""
        return self.chips // self.chips_per_host

    @property
    def vm_hosts(self) -> int:
        """Hosts as TPU VMs; each runs one process."""
        return 1 if len(self.sides) == 2 and self.chips == 8 else self.hosts

    @property
    def machine(self) -> str:
        """Machine type on GKE."""
        return f"{self.generation.machine}-{self.chips_per_host}t"

    @property
    def vm_type(self) -> str | None:
        """What the TPU VM API calls it, such as `v5p-128`; None where no such name means this topology."""
        generation = self.generation
        if not generation.vm_prefix or self.chips > _NAMED or self != _most_cubic(self.chip, self.chips):
            return None
        return f"{generation.vm_prefix}-{generation.vm_unit * self.chips}"


def parse(name: str) -> Slice:
    """The slice of a name such as `v5p:4x4x4`.

    Raises:
      InputError: the name has another form, there is no such chip, or the chip has no slice of that shape.
    """
    found = re.fullmatch(r"(\w+):(\d+x\d+(?:x\d+)?)", name)
    if not found or found[1] not in GENERATIONS:
        meant = _meant(name)
        hint = f"; did you mean {meant.name}?" if meant else ""
        raise InputError(f"--topology={name}: expected CHIP:AxB or CHIP:AxBxC with CHIP one of {', '.join(GENERATIONS)}{hint}")
    chosen = Slice(found[1], tuple(map(int, found[2].split("x"))))
    if not _exists(chosen):
        near = sorted(of_chip(chosen.chip), key=lambda s: abs(math.log(s.chips / max(chosen.chips, 1))))[:3]
        raise InputError(f"--topology={name}: {chosen.chip} has no such slice; near it are {', '.join(s.name for s in near)}")
    return chosen


def of_chip(chip: str, most: int | None = None) -> list[Slice]:
    """All slices of a chip with at most `most` chips, smallest first; of chips in a cube, one per set of sides."""
    generation = GENERATIONS[chip]
    most = generation.most if most is None else min(most, generation.most)
    found = [Slice(chip, sides) for sides in generation.small if math.prod(sides) <= most]
    if len(generation.small[0]) == 3:
        edges = range(4, min(_LONGEST, most // 16) + 1, 4)
        pairs = itertools.combinations_with_replacement(edges, 2)
        found += [Slice(chip, (a, b, c)) for a, b in pairs for c in edges if c >= b and a * b * c <= most]
    return sorted(found, key=lambda s: (s.chips, sum(s.sides)))


def _exists(chosen: Slice) -> bool:
    generation = chosen.generation
    if chosen.sides in generation.small:
        return True
    cubes = len(chosen.sides) == 3 == len(generation.small[0]) and all(
        side % 4 == 0 and 4 <= side <= _LONGEST for side in chosen.sides
    )
    ordered = generation.any_order or list(chosen.sides) == sorted(chosen.sides)
    return cubes and ordered and chosen.chips <= generation.most


def _most_cubic(chip: str, chips: int) -> Slice | None:
    """The slice that a number of chips means where no topology is given: the one with the shortest sides."""
    return next((s for s in of_chip(chip, chips) if s.chips == chips), None)


def _meant(name: str) -> Slice | None:
    """The slice of a TPU VM's name, such as `v5p-128`."""
    prefix, _, number = name.partition("-")
    for chip, generation in GENERATIONS.items():
        if prefix in (chip, generation.vm_prefix) and number.isdecimal():
            return _most_cubic(chip, int(number) // generation.vm_unit)
    return None


def at_most(text: str) -> list[Slice]:
    """The slices of `CHIP:N`, those of a chip with N chips or fewer, largest first; of equal size, the most cubic only.

    Raises:
      InputError: the text has another form.
    """
    found = re.fullmatch(r"(\w+):(\d+)", text)
    if not found or found[1] not in GENERATIONS or int(found[2]) < 1:
        raise InputError(f"--fit={text}: expected CHIP:N, a number of chips, with CHIP one of {', '.join(GENERATIONS)}")
    by_size: dict[int, Slice] = {}
    for one in of_chip(found[1], int(found[2])):
        by_size.setdefault(one.chips, one)
    return sorted(by_size.values(), key=lambda s: -s.chips)


def describe(one: Slice, count: int = 1) -> str:
    """In words, for the headers of experiments and what launchers say."""
    slices = "one slice" if count == 1 else f"{count} slices"
    hosts = f"{one.hosts} host{'s' * (one.hosts > 1)}"
    vm = f"; TPU VM {one.vm_type}" if one.vm_type else ""
    return f"{slices} {one.name} ({one.chips} chips, {hosts}; GKE {one.machine}{vm})"
