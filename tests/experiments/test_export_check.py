import importlib
import pathlib
import sys

import pytest

STUDIES = pathlib.Path(__file__).parents[2] / "experiments" / "studies"


@pytest.fixture(scope="module")
def export_check():
    sys.path.insert(0, str(STUDIES))
    try:
        yield importlib.import_module("export_check")
    finally:
        sys.path.remove(str(STUDIES))


def test_where_completions_part(export_check):
    ours = [[5, 6, 1], [5, 6, 1], [5, 6, 1], [5, 6]]
    theirs = [[5, 6, 1], [5, 7, 1], [5, 6, 1, 8], [5]]
    assert export_check.compare(ours, theirs) == ([None, 1, 3, 1], 3 + 1 + 3 + 1, 11)


def test_their_process_that_fails_is_named(export_check, tmp_path):
    with pytest.raises(export_check.InputError, match=r"transformers_greedy\.py ended with status"):
        export_check.Theirs(sys.executable, str(tmp_path / "nothing"))
