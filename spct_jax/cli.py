"""Command lines: typed config flags, and bad input as one line and exit status 2."""

import difflib
import pathlib
import re
import sys
from collections.abc import Callable
from typing import TypeVar

from absl import app, flags, logging
from ml_collections import config_flags

from spct_jax.config import tiny
from spct_jax.errors import InputError

T = TypeVar("T")


def define_config(argv: list[str]) -> flags.FlagHolder:
    """Defines `--config=FILE.py[:ARGUMENT]` and `--config.FIELD=VALUE`; without a file the fields are of `tiny()`."""
    named = [a for a in argv if re.match(r"--?config($|=)", a)]
    if not named:
        return config_flags.DEFINE_config_dataclass("config", tiny(), "Fields of the experiment: --config.rl.steps=80.")
    path = named[-1].partition("=")[2].partition(":")[0]
    if not pathlib.Path(path).is_file():
        raise InputError(f"--config={path}: no such file (write --config=FILE.py)")
    return config_flags.DEFINE_config_file("config", help_string="Python file whose get_config() returns the experiment.")


def run(main: Callable[[list[str]], object], *, with_config: bool = False, argv: list[str] | None = None) -> None:
    """Parses flags and calls `main(positional arguments)`; exits 2 with one line when the user's input is wrong."""
    argv = sys.argv if argv is None else argv
    try:
        if with_config:
            _guarded(argv, lambda: define_config(argv[1:]))
        app.run(_exit_2_on_input_error(main), argv=argv, flags_parser=_parse)
    except InputError as error:
        _fail(error)


def _parse(argv: list[str]) -> list[str]:
    return _guarded(argv, lambda: flags.FLAGS(argv))


def _guarded(argv: list[str], parse: Callable[[], T]) -> T:
    """Runs a step of flag parsing; whatever is wrong with the flags becomes an InputError that says which and why."""
    try:
        return parse()
    except InputError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_explain(error, argv)) from None


def _explain(error: Exception, argv: list[str]) -> str:
    for argument in argv[1:]:
        field = re.match(r"--(?:no)?config\.([\w.]+)", argument)
        if field and (close := _nearest_field(field[1])):
            return f"--config.{field[1]}: no such field; {close}"
    # A config file's own InputError arrives as a whole traceback in the flag's message; its last line is what matters.
    return " ".join(str(error).rpartition("errors.InputError: ")[2].split())


def _nearest_field(path: str) -> str | None:
    """What to try instead of an unknown field, None if the field exists."""
    value = tiny()
    for depth, name in enumerate(parts := path.split(".")):
        known = list(vars(value)) if hasattr(value, "__dict__") else []
        if name not in known:
            prefix = "".join(p + "." for p in parts[:depth])
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            return f"did you mean --config.{prefix}{near[0]}?" if near else f"{'.'.join(parts[:depth])} has no fields"
        value = getattr(value, name)
    return None


def _exit_2_on_input_error(main):
    def wrapped(positional):
        try:
            if positional[1:]:
                raise InputError(f"unexpected argument {positional[1]!r}")
            logging.set_verbosity(logging.WARNING)  # Orbax reports every part of every save at INFO
            main(positional)
        except InputError as error:
            _fail(error)

    return wrapped


def _fail(error: InputError) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
