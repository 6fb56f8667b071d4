"""Public files of preference data and of judges' outputs, for tests that read real ones. They lie outside the repository."""

import os
import pathlib

import pytest

DIRECTORIES = (os.environ.get("SPCT_JAX_SHARED", ""), *(parent / "shared" for parent in pathlib.Path(__file__).parents[2:]))


def shared(path: str) -> pathlib.Path:
    """A file or directory, such as `data/llmbar`, of the first directory that has it; the test is skipped where none has.

    The directories are that of the environment variable SPCT_JAX_SHARED, then a `shared` beside the repository or above it.
    """
    places = [pathlib.Path(directory) / path for directory in DIRECTORIES if directory]
    found = [place for place in places if place.exists()]
    if not found:
        pytest.skip(f"needs {path}, which is not part of the repository; SPCT_JAX_SHARED may name the directory that has it")
    return found[0]
