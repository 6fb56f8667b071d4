"""The one place where a string becomes a path: pathlib's on this machine, that of etils.epath for an object in a bucket (`gs://..`).

The two have the same methods, save for what a bucket has not: directories that exist while they are empty, links, appending and
renaming. `files` has functions for all of these that take either.

Local paths are not those of etils.epath: that library takes a local /gs/x, /s3/x or /hf/x for a path in a bucket, cannot `stat`
if the user's number has no name, also expands wildcards in the directory's own name, and removes a directory that holds only
`x~` as empty.
"""

import os
import pathlib
import re

from etils import epath

from spct_jax.errors import InputError

Path = pathlib.Path | epath.Path
SCHEME = "gs://"
"""How the name of an object of Google Cloud Storage begins."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_OBJECT = re.compile(r"gs://[a-z0-9][a-z0-9._-]+(/.*)?", re.DOTALL)
_NAMES_NOTHING = "not the name of anything in a bucket (gs://bucket/name; a bucket's own is of small letters, digits and . _ -)"


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is one in a bucket."""
    return os.fspath(path).startswith(SCHEME)


def of(path: str | os.PathLike) -> Path:
    """The path that a string or path-like object names; a relative one stays relative.

    Raises:
      InputError: it is in a bucket and names none, or what is needed to read that is not installed.
    """
    if isinstance(path, pathlib.PurePath):
        return path
    text = os.fspath(path)
    if not text.startswith(SCHEME):
        return pathlib.Path(text)
    if not _OBJECT.fullmatch(text):
        raise InputError(f"{text}: {_NAMES_NOTHING}")
    try:
        from spct_jax.storage import gcs  # three seconds, which only those who need it pay

        gcs.register()
    except ImportError as error:
        raise InputError(f"{text}: needs gcsfs (pip install 'spct_jax[gcs]'): {error}") from None
    return epath.Path(text)


def absolute(path: Path) -> Path:
    """The same path from anywhere; what is in a bucket is already."""
    return path if is_remote(path) else path.absolute()


def check(text: str, flag: str) -> None:
    """InputError as of `parse` where a text can be no path, wherever it is to be read."""
    if not text or "\0" in text:
        raise InputError(f"{flag}={text!r}: not a path")
    if is_remote(text):
        if not _OBJECT.fullmatch(text) or ".." in text.split("/"):
            raise InputError(f"{flag}={text}: {_NAMES_NOTHING}")
    elif _URL.match(text):
        raise InputError(f"{flag}={text}: a URL, but only local paths and gs://BUCKET/NAME can be read and written")


def parse(text: str | os.PathLike, flag: str) -> Path:
    """A path that a user gave, made absolute, so that it stays the same file whatever the current directory becomes.

    Args:
      text: the path, or `gs://BUCKET/...`.
      flag: what it was given as, such as `--workdir`, for the message.

    Raises:
      InputError: it is empty, names no object that a bucket can hold, or is another URL, which would become a local directory.
    """
    text = os.fspath(text)
    check(text, flag)
    if is_remote(text):
        return of(text)
    try:
        return pathlib.Path(text).absolute()
    except OSError as error:
        raise InputError(f"{flag}={text}: the current directory is gone ({error.strerror})") from None
