import csv
import pathlib
import re

import pytest

from spct_jax.errors import InputError
from spct_jax.runtime import slices

ROWS = list(csv.DictReader((pathlib.Path(__file__).parents[1] / "fixtures" / "launch" / "tpu_topologies.csv").open()))
OURS = {"v5litepod": "v5e", "tpu7": "tpu7x"}
"""Chips that the table calls otherwise than we do; `tpu7` is an early name of tpu7x, with labels of its own."""
ONE_HOST_V5E = {"1x1", "2x2"}
"""Shapes of v5e that GKE and TPU VMs have and the table lacks."""


def rows(*chips):
    return [row for row in ROWS if row["chip"] in chips]


def test_every_row_of_the_table_is_a_slice_with_its_hosts_chips_label_and_machine():
    for row in ROWS:
        one = slices.parse(f"{OURS.get(row['chip'], row['chip'])}:{row['topology']}")
        assert (one.topology, one.hosts, one.chips_per_host) == (
            row["topology"],
            int(row["hosts"]),
            int(row["chips_per_host"]),
        ), row
        label = (one.generation.accelerator, one.machine)
        if row["chip"] == "tpu7":
            label = tuple(text.replace("tpu7x", "tpu7") for text in label)
        assert label == (row["accelerator"], row["machine"]), row


@pytest.mark.parametrize("chip", slices.GENERATIONS)
def test_there_are_no_slices_but_those_of_the_table(chip):
    table = {row["topology"] for row in rows(*(theirs for theirs in (chip, *OURS) if OURS.get(theirs, theirs) == chip))}
    if chip == "v5e":
        table |= ONE_HOST_V5E
    ours = slices.of_chip(chip)
    if slices.GENERATIONS[chip].any_order:
        assert {s.topology for s in ours} <= table
        ours = [slices.parse(f"{chip}:{topology}") for topology in table]
        assert len({tuple(sorted(s.sides)) for s in ours}) == len(slices.of_chip(chip))
    else:
        assert {s.topology for s in ours} == table
    assert all(slices.parse(s.name) == s for s in ours)


def test_numbered_names_of_the_table_are_those_of_the_tpu_vm_api():
    checked = 0
    for row in rows("v5litepod", "v5p", "v6e"):
        one = slices.parse(f"{OURS.get(row['chip'], row['chip'])}:{row['topology']}")
        if re.fullmatch(r"\w+-\d+", row["name"]) and one.chips <= 6144:
            assert one.vm_type == row["name"]
            checked += 1
    assert checked > 100
    assert slices.parse("v5p:4x4x16").vm_type is None  # v5p-512 is 4x8x8
    assert slices.parse("tpu7x:2x2x1").vm_type is None and slices.parse("v5e:2x2").vm_type == "v5litepod-4"


@pytest.mark.parametrize(
    ("name", "vm_hosts", "hosts"), [("v5e:2x4", 1, 2), ("v6e:2x4", 1, 2), ("v6e:4x4", 4, 4), ("v5p:2x2x2", 2, 2)]
)
def test_eight_chips_in_a_plane_are_one_host_as_a_tpu_vm(name, vm_hosts, hosts):
    one = slices.parse(name)
    assert (one.vm_hosts, one.hosts) == (vm_hosts, hosts)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5p-128", "did you mean v5p:4x4x4?"),
        ("v5litepod-16", "did you mean v5e:4x4?"),
        ("v4-8", "did you mean v4:2x2x1?"),
        ("v5p:4x8x4", "near it are v5p:4x4x8"),
        ("v5e:4x4x4", "v5e has no such slice"),
        ("v5p:0x4x4", "v5p has no such slice"),
        ("v6e:32x32", "v6e has no such slice"),
        ("h100:2x2", "expected CHIP:AxB"),
    ],
)
def test_a_slice_that_is_not_there_is_named_with_what_may_be_meant(name, says):
    with pytest.raises(InputError, match=re.escape(f"--topology={name}: ") + ".*" + re.escape(says)):
        slices.parse(name)


def test_so_many_chips_or_fewer():
    assert [s.name for s in slices.at_most("v5p:64")] == ["v5p:4x4x4", "v5p:2x4x4", "v5p:2x2x4", "v5p:2x2x2", "v5p:2x2x1"]
    assert [s.topology for s in slices.at_most("v5e:20")] == ["4x4", "2x4", "2x2", "1x1"]
    for wrong in ("v5p", "v5p:0", "h100:8", "v5p:4x4x4"):
        with pytest.raises(InputError, match=f"--fit={wrong}"):
            slices.at_most(wrong)
