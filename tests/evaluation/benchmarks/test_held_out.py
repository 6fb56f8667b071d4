"""The evaluation stage's own files."""

import dataclasses

import pytest

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import held_out
from spct_jax.toy import world
from spct_jax.toy.config import ToyConfig


def test_problems_that_are_reordered_or_edited_under_verdicts_are_found_out(tmp_path):
    """A test file reordered in mid-evaluation: some problems would be judged twice, others never."""
    shown = [problem.comparison for problem in world.problems("test", 4, ToyConfig())]
    held_out.keep(tmp_path, shown[::-1], "data.test")
    held_out.keep(tmp_path, shown, "data.test")  # no verdict yet: nothing to contradict
    (tmp_path / "rl_greedy.partial.jsonl").write_text("{}\n")
    held_out.keep(tmp_path, shown, "data.test")
    before = (tmp_path / "problems.jsonl").read_bytes()
    edited = dataclasses.replace(shown[2], conversation=(*shown[2].conversation, *shown[2].conversation))
    for changed, line in (([*shown[:2], *shown[:1:-1]], 3), (shown[:3], 4), ([*shown[:2], edited, shown[3]], 3)):
        with pytest.raises(
            InputError, match=rf"problems.jsonl:{line}: verdicts were drawn on another problem than config.data"
        ):
            held_out.keep(tmp_path, changed, "data.test")
    assert (tmp_path / "problems.jsonl").read_bytes() == before
