"""Imports scripts of `experiments/studies`, which import each other by name, as when they are run."""

import contextlib
import importlib
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType

STUDIES = pathlib.Path(__file__).parents[1] / "experiments" / "studies"


@contextlib.contextmanager
def imported(*names: str) -> Iterator[list[ModuleType]]:
    """The modules of these names; others can be imported by their own until it ends."""
    sys.path.insert(0, str(STUDIES))
    try:
        yield [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(STUDIES))
