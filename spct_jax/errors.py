"""What ends a command with one line on standard error instead of a traceback, and its exit status.

Bad input is an InputError; `describe` also knows what the system refuses (a full disk, a directory that is a file, memory).
Anything else is a bug and keeps its traceback.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

WRONG = 2
"""Exit status where the same command would fail again."""
FAILED = 1
"""Exit status where it might not, such as after a network error."""
STOPPED = 75
"""Exit status of a run that was told to stop and goes on when it is started again: the system's EX_TEMPFAIL."""

_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH}
"""System errors that may be gone the next time."""
_REFUSED = re.compile(r"no space left|quota exceeded|file too large|read-only file system|permission.denied", re.I)
_UNREACHABLE = re.compile(r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED)\b")
"""What libraries in other languages say of the system's errors."""
_MEMORY = re.compile(r"out of memory|failed to allocate", re.I)
_PEER = re.compile(r"\bGloo [\w -]+ failed\b")
"""What JAX says on CPUs when another process is no longer there."""
_LONGEST = 300
"""Characters of a library's message that are shown."""


class InputError(ValueError):
    """Something the user gave us is wrong; the message names what, and the file and line where there is one."""


class UnreachableError(Exception):
    """A bucket did not answer, or not now. No OSError, so that nothing that is out of reach is taken for missing or damaged."""


@contextlib.contextmanager
def naming(path: str | os.PathLike, scratch: str | os.PathLike | None = None) -> Iterator[None]:
    """Gives the system's errors in the block the name of the file.

    Those of reading and writing have none, and a user has not heard of the `scratch` file that stands for it.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or (scratch is not None and error.filename == os.fspath(scratch)):
            error.filename = os.fspath(path)
        raise


def describe(error: BaseException | None) -> tuple[str, int] | None:
    """One line that says what is wrong, and the exit status; None for a bug."""
    if error is None:
        return None
    if isinstance(error, InputError):
        return str(error), WRONG
    if isinstance(error, OSError):
        what = "closed by its reader" if error.errno == errno.EPIPE else error.strerror or one_line(error)
        passing = error.errno in _PASSING or (isinstance(error, (ConnectionError, TimeoutError)) and error.errno != errno.EPIPE)
        return f"{error.filename}: {what}" if error.filename is not None else what, FAILED if passing else WRONG
    if is_unreachable(error):
        return one_line(error), FAILED
    if _PEER.search(str(error)):
        return f"another process of the run does not answer ({one_line(error)})", FAILED
    if _REFUSED.search(str(error)):
        return one_line(error), WRONG
    if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
        return f"out of memory ({one_line(error)}); see mesh, accumulate, slots and batch_size", WRONG
    return describe(error.__cause__)


def is_unreachable(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a bucket that did not answer; of TensorStore's there is only the text."""
    if error is None:
        return False
    by_text = isinstance(error, ValueError) and _UNREACHABLE.search(str(error))
    return isinstance(error, UnreachableError) or bool(by_text) or is_unreachable(error.__cause__)


def one_line(error: BaseException) -> str:
    """A library's message, on one line and not too long; absl's on flags that are missing in fewer words."""
    text = " ".join(str(error).split()) or type(error).__name__
    if missing := re.findall(r"flag (--\w+)=None: Flag \1 must have a value", text):
        return f"{' and '.join(missing)} must be given"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
