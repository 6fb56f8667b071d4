"""Sampled and greedy votes in one file."""

import json

import pytest

from spct_jax.errors import InputError
from spct_jax.evaluation import score_files


def test_bad_greedy_votes_are_named_by_their_line(tmp_path):
    path = tmp_path / "scores.jsonl"
    line = {"id": "a", "scores": [[1, 2]], "greedy": {"scores": [[1, 2]]}}
    for greedy, message in (([1], "not an object"), ({"scores": [[1, "2"]]}, "score is not a number")):
        path.write_text(f"{json.dumps(line)}\n{json.dumps(line | {'id': 'b', 'greedy': greedy})}\n")
        with pytest.raises(InputError) as error:
            score_files.read(path)
        assert str(error.value).startswith(f"{path}:2: item 'b': greedy: {message}")
