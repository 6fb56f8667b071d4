"""Workdirs that are none."""

import pytest

from spct_jax.errors import InputError
from spct_jax.reporting import run_files


def test_not_a_workdir(tmp_path):
    with pytest.raises(InputError, match="has no config.json"):
        run_files.read_run_files(tmp_path)
    (tmp_path / "config.json").write_text("{\n")
    with pytest.raises(InputError, match=r"config.json:2: not JSON"):
        run_files.read_run_files(tmp_path)
