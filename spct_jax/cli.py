"""Command lines: typed config flags; errors in them, or from the system, become one line and an exit status."""

import _thread
import difflib
import functools
import logging as stdlib_logging
import os
import pathlib
import re
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from absl import app, flags, logging
from ml_collections import config_flags

from spct_jax import errors, interrupts, python_files, terminal
from spct_jax.config import Config, tiny
from spct_jax.errors import InputError

HELP = (
    "A Python file whose get_config() returns the experiment (--config=FILE.py, or FILE.py:ARGUMENT to call it with one); "
    "without it the tiny experiment. Its fields are set by --config.FIELD=VALUE, such as --config.rl.steps=80 or "
    "--config.evaluation.k='(1, 8)'; spct_jax/config/schema.py lists them with their meaning and range."
)
_HOME = re.compile(r"(?<=[=:*,])~(?=/|$)")

flags.disclaim_key_flags()  # those defined here belong to the command, so that its --help shows them


def run(
    main: Callable[[list[str]], object],
    own: flags.FlagValues = flags.FLAGS,
    *,
    with_config: bool = False,
    argv: list[str] | None = None,
) -> None:
    """Parses flags and calls `main(positional arguments)`.

    Ends with one line and exit status 2 if the user's input is wrong or the system refuses something, see `errors.describe`.

    Args:
      main: the command.
      own: the command's flags. Each command defines them in a `FlagValues` of its own, so that modules of several commands can
        be imported in one process; the process gets those of the command that it runs.
      with_config: whether the command takes `--config=FILE.py[:ARGUMENT]` and `--config.FIELD=VALUE`; `own.config` is then a
        Config.
      argv: the command line; None for that of this process, with the home directory in it, see `at_home`.
    """
    argv = at_home(sys.argv) if argv is None else list(argv)
    try:
        interrupts.raise_again()
        _settle_streams()
        if with_config:
            argv = _define_config(argv, own)
        if own is not flags.FLAGS:
            for name in own:
                flags.DEFINE_flag(own[name], module_name=own.find_module_defining_flag(name))
        app.run(lambda positional: _run(main, positional), argv=argv, flags_parser=lambda argv: _parse(argv, own))
    except KeyboardInterrupt:
        _end("interrupted", interrupts.STATUS)
    except Exception as error:
        described = errors.describe(error)
        if described is None:
            raise
        _end(*described, at_once=errors.is_unreachable(error))


def at_home(argv: list[str]) -> list[str]:
    """The command line with the home directory for `~` in `--FLAG=~/PATH` and `--FLAG=LAYOUT:~/PATH`.

    Shells expand `~` only where a word or an assignment begins, so a directory of the name `~` would be made.
    """
    home = os.path.expanduser("~")
    return [_HOME.sub(lambda _: home, text) if re.match(r"--?[\w.]+=", text) else text for text in argv]


def _run(main: Callable[[list[str]], object], positional: list[str]) -> None:
    if positional[1:]:
        raise InputError(f"unexpected argument {positional[1]!r}")
    # Orbax reports every part of every save, and a failure once per thread; the exception says it once.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = _of_interest
    stdlib_logging.getLogger("asyncio").setLevel(stdlib_logging.CRITICAL)
    main(positional)
    sys.stdout.flush()


class _StandardOutput:
    """Standard output whose errors name it."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with errors.naming("standard output"):
            return self._stream.write(text)

    def flush(self) -> None:
        with errors.naming("standard output"):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _of_interest(unraisable) -> None:
    """Prints an error that nobody can catch, except those of reads that Orbax gives up when a first one has failed.

    It closes the loop that they run in: TensorStore's threads find it closed, and what waited for them is collected half-way,
    which Orbax takes for a fault and describes on sixty lines for each array.
    Ctrl-C that fell into a callback of the garbage collector, such as JAX's, is repeated in a moment, when it can be caught.
    """
    error = unraisable.exc_value
    if isinstance(error, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    elif str(error) != "Event loop is closed" and not isinstance(getattr(error, "__cause__", None), GeneratorExit):
        sys.__unraisablehook__(unraisable)


def _settle_streams() -> None:
    """Opens closed standard streams, whose numbers the next files would get, and escapes what standard output cannot encode.

    Raises:
      InputError: standard output is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        raise InputError("standard output is closed")
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout = _StandardOutput(sys.stdout)


def _flushed() -> bool:
    """Whether all that was printed could be written; if not, discards the rest, so that the interpreter's last flush works."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        return True
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return False


def _end(line: str, status: int, at_once: bool = False) -> None:
    """Prints why the command ends, and ends it; `at_once` without TensorStore's threads, which try again for many minutes."""
    _flushed()
    try:
        print(f"error: {terminal.on_one_line(line)}", file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if at_once:
        os._exit(status)
    sys.exit(status)


_EXPERIMENT = re.compile(r"--?config($|=)")


def experiments(argv: list[str]) -> list[str]:
    """What each `--config=FILE.py[:ARGUMENT]` of a command line names; the last one counts."""
    return [argument.partition("=")[2] for argument in argv if _EXPERIMENT.match(argument)]


def _define_config(argv: list[str], own: flags.FlagValues) -> list[str]:
    """Defines the flag `--config` and those of its fields that are set; returns the command line without `--config=FILE`, and
    without a field's values before the last.
    """
    named, argv = experiments(argv), spelled_out(argv)
    argv = _last_of_each([a for a in argv if not _EXPERIMENT.match(a)])
    asked = any(re.fullmatch(r"--?(help\w*|\?)", a) for a in argv[1:])
    config = load_config(named[-1]) if named and not asked else tiny()
    try:
        config_flags.DEFINE_config_dataclass("config", config, HELP, own, sys_argv=argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_explain(error, argv)) from None
    own["config"].default_as_str = "'experiments/tiny.py'"
    return argv


def spelled_out(argv: list[str]) -> list[str]:
    """The command line with `--config.FIELD=VALUE` for each `-config.FIELD=VALUE` and `--config.FIELD VALUE` in it."""
    found, rest = [], list(argv)
    while rest:
        argument = rest.pop(0)
        if match := re.match(r"--?(no)?config(\.[\w.]+)?(?=$|=)", argument):
            argument = f"--{argument.lstrip('-')}"
            if match[2] and match.end() == len(match.string) and rest and _takes_value(match[2][1:]):
                argument += f"={rest.pop(0)}"
        found.append(argument)
    return found


def _takes_value(path: str) -> bool:
    """Whether this is a field of the experiment that cannot be set by its name alone, as one that is true or false can."""
    return not _wrong_field(path) and type(functools.reduce(getattr, path.split("."), tiny())) is not bool


def _last_of_each(argv: list[str]) -> list[str]:
    """The command line without `--config.FIELD=VALUE` where a later argument sets the same field: absl joins tuples instead."""
    fields = [match[1] if (match := re.match(r"--(config\.[\w.]+)=", argument)) else None for argument in argv]
    last = {field: number for number, field in enumerate(fields)}
    return [a for number, (a, field) in enumerate(zip(argv, fields, strict=True)) if field is None or last[field] == number]


def read_config(arguments: list[str]) -> Config:
    """The experiment of `--config=FILE.py` and `--config.FIELD=VALUE` in a command line that is another command's.

    Raises:
      InputError: as of `load_config`, or a field is unknown or gets a value of another type.
    """
    own = flags.FlagValues()
    try:
        own(_define_config(["", *arguments], own))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_explain(error, ["", *arguments])) from None
    return own["config"].value


def load_config(named: str) -> Config:
    """The experiment of `FILE.py` or `FILE.py:ARGUMENT`.

    Raises:
      InputError: there is no such file, or it does not return an experiment; names the line where it failed.
    """
    path, colon, argument = named.partition(":")
    if not pathlib.Path(path).is_file():
        raise InputError(f"--config={path}: no such file (write --config=FILE.py)")
    module = python_files.load(path, "config_file")
    with python_files.blamed(path):
        config = module.get_config(*[argument] if colon else [])
    if not isinstance(config, Config):
        raise InputError(f"{path}: get_config() returns {type(config).__name__}, not a spct_jax.config.Config")
    return config


def _parse(argv: list[str], own: flags.FlagValues) -> list[str]:
    """Parses flags and returns positional arguments; any error in the flags becomes an InputError that says which and why."""
    try:
        positional = flags.FLAGS(argv)
        own.mark_as_parsed()
        return positional
    except InputError:
        raise
    except SystemExit:  # help was printed, which absl counts as a failure
        sys.stdout.flush()
        sys.exit(0)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_explain(error, argv)) from None


def _explain(error: Exception, argv: list[str]) -> str:
    for argument in argv[1:]:
        field = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
        if field and (wrong := _wrong_field(field[1])):
            return f"--config.{field[1]}: {wrong}"
    return errors.one_line(error)


def _wrong_field(path: str) -> str | None:
    """Why no value can be given to a field: it does not exist, or has fields itself; None if it is one that holds a value."""
    value = tiny()
    for depth, name in enumerate(parts := path.split(".")):
        known = list(vars(value)) if hasattr(value, "__dict__") else []
        if name not in known:
            prefix = "".join(p + "." for p in parts[:depth])
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            tried = f"did you mean --config.{prefix}{near[0]}?" if near else f"{'.'.join(parts[:depth])} has no fields"
            return f"no such field; {tried}"
        value = getattr(value, name)
    first = next(iter(vars(value)), None) if hasattr(value, "__dict__") else None
    return first and f"is a section; set its fields, such as --config.{path}.{first}"
