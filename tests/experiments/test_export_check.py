import sys

import pytest
import study_modules


@pytest.fixture(scope="module")
def export_check():
    with study_modules.imported("export_check") as (module,):
        yield module


def test_where_completions_part(export_check):
    ours = [[5, 6, 1], [5, 6, 1], [5, 6, 1], [5, 6]]
    theirs = [[5, 6, 1], [5, 7, 1], [5, 6, 1, 8], [5]]
    assert export_check.compare(ours, theirs) == ([None, 1, 3, 1], 3 + 1 + 3 + 1, 11)


def test_their_process_that_fails_is_named(export_check, tmp_path):
    with pytest.raises(export_check.InputError, match=r"transformers_greedy\.py ended with status"):
        export_check.Theirs(sys.executable, str(tmp_path / "nothing"))
