"""Python files of the user's own: an experiment, a reward."""

import contextlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType

from spct_jax import errors
from spct_jax.errors import InputError


def load(path: str, name: str) -> ModuleType:
    """The module that a file makes, under a name that no other module has; it may end in anything.

    Raises:
      InputError: there is no such file, or it cannot be run; names the line where it failed.
    """
    if not pathlib.Path(path).is_file():
        raise InputError(f"{path}: no such file")
    loader = importlib.machinery.SourceFileLoader(name, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module
    with blamed(path):
        loader.exec_module(module)
    return module


@contextlib.contextmanager
def blamed(path: str) -> Iterator[None]:
    """Makes any error in the block an InputError that says what went wrong and in which line of the file."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise InputError(_blame(error, path)) from None


def _blame(error: BaseException, path: str) -> str:
    what = errors.one_line(error)
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}:{error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    where = f"{path}:{lines[-1]}" if lines else path
    return f"{where}: {what}" if isinstance(error, InputError) else f"{where}: {type(error).__name__}: {what}"
