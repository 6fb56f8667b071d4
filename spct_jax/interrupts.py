"""What Ctrl-C does to a command that is still being imported, and a SIGTERM to one that has temporary files."""

import contextlib
import os
import signal
import sys
import time
from typing import Any

STATUS = 130
"""Exit status of a command that was interrupted."""
ECHO = 5.0
"""Seconds in which another SIGTERM is the same one once more: where all processes of a group get it (a machine that is shut
down, `timeout`, a batch system), the script that started this process passes on its own."""
LAUNCHERS = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "launch")
"""Directory of scripts that are commands, too."""


def end(*_: Any) -> None:
    """Ends the process as `cli.run` does later.

    An exception would pass through whatever is imported, with a traceback; some libraries crash of it or drop it.
    """
    with contextlib.suppress(OSError):
        os.write(2, b"error: interrupted\n")
    os._exit(STATUS)


def begin() -> None:
    """From now on Ctrl-C ends the process, if it runs `python -m spct_jax.COMMAND` and is only looking for the command.

    So it does if it runs one of the `LAUNCHERS`, which import this before anything else.
    """
    program = sys.argv[0] if sys.argv else ""
    command = program == "-m" and any(text.removeprefix("-m").startswith("spct_jax.") for text in sys.orig_argv)
    launcher = program.endswith(".py") and os.path.dirname(os.path.realpath(program)) == LAUNCHERS
    if (command or launcher) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def raise_again() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again, where `begin` changed that."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_on_another() -> None:
    """To be called when told to stop: from now on a SIGTERM ends the process at once, unless it is an `ECHO`."""
    since = time.monotonic()

    def another(number: int, _: Any) -> None:
        if time.monotonic() - since >= ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, another)


def clean_up() -> None:
    """From now on a SIGTERM ends the process like an error, so that `with` removes what is temporary; a second one at once."""

    def leave(*_: Any) -> None:
        end_on_another()
        sys.exit(128 + signal.SIGTERM)

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, leave)
