"""Google Cloud Storage, through gcsfs: errors are those of the system, and objects are written only if nobody else has.

`register` makes it what etils.epath, and with it Orbax, reaches for `gs://`. Arrays are read and written by TensorStore, which
has its own client and finds the same credentials. For an emulator set STORAGE_EMULATOR_HOST and TENSORSTORE_GCS_HTTP_URL.
"""

import errno
import functools
import json
import os
import re
import secrets
import urllib.parse
from typing import Any

import aiohttp
import fsspec
import gcsfs.core
import gcsfs.retry
import google.auth.exceptions
import requests
from fsspec import asyn

from spct_jax.errors import UnreachableError, one_line

COMMITTED = "commit_success.txt"
"""The object that Orbax writes last into a step: without it the step is not finished."""
_PASSING = (408, 429)
_NAME = re.compile(r"/b/([^/?]+)(?:/o/([^/?]+))?")


class FileSystem(gcsfs.core.GCSFileSystem):
    """A gcsfs whose errors are OSError with number and name, or UnreachableError where the next try may succeed.

    Not gcsfs's default class, which asks another service about every bucket before it uses it. Listings are never kept: other
    processes write, too.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        """As of gcsfs."""
        super().__init__(*args, **kwargs | {"use_listings_cache": False, "skip_instance_cache": False})

    async def _call(self, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._call(method, path, *args, **kwargs)
        except Exception as error:
            described = _described(error, _where(path, args, kwargs))
            if described is None:
                raise
            raise described from error

    call = asyn.sync_wrapper(_call)

    async def _rm(self, path: str, recursive: bool = False, **kwargs: Any) -> Any:
        """As of gcsfs; but a step that Orbax removes loses its mark first, so that half of it is never taken for a step."""
        if recursive and isinstance(path, str) and await self._exists(mark := f"{path.rstrip('/')}/{COMMITTED}"):
            await self._rm_file(mark)
            if not await self._exists(path):
                return None
        return await super()._rm(path, recursive=recursive, **kwargs)

    rm = asyn.sync_wrapper(_rm)

    def put_if(self, path: str, content: bytes, generation: int) -> int:
        """Writes an object whose generation is this one, 0 where there is none; returns the new generation.

        Raises:
          FileExistsError: it has another.
        """
        bucket, key, _ = self.split_path(path)
        mark = secrets.token_hex(16)  # in multipart form, as gcsfs sends it: the emulator heeds conditions in no other
        head = f"--{mark}\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': key})}\r\n"
        head += f"--{mark}\r\nContent-Type: application/octet-stream\r\n\r\n"
        made = self.call(
            "POST",
            f"{self._location}/upload/storage/v1/b/{bucket}/o",
            uploadType="multipart",
            ifGenerationMatch=str(generation),
            headers={"Content-Type": f'multipart/related; boundary="{mark}"'},
            data=head.encode() + content + f"\r\n--{mark}--".encode(),
            json_out=True,
        )
        return int(made["generation"])

    def remove_if(self, path: str, generation: int) -> None:
        """Removes an object whose generation is this one; FileExistsError or FileNotFoundError where it is not."""
        bucket, key, _ = self.split_path(path)
        self.call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=str(generation))

    def generation(self, path: str) -> int:
        """Microseconds since 1970 when the object was written, never the same twice; 0 where there is none."""
        try:
            return int(self.info(path)["generation"])
        except (FileNotFoundError, KeyError):
            return 0


@functools.cache
def register() -> FileSystem:
    """Makes this file system that of `gs://`, and returns it."""
    os.environ["EPATH_USE_TF"] = "false"  # else etils prefers TensorFlow's, where that is installed
    for name in FileSystem.protocol:
        fsspec.register_implementation(name, FileSystem, clobber=True)
    return fsspec.filesystem("gcs", finalize_on_close=True)


def _where(path: str, args: tuple, kwargs: dict[str, Any]) -> str:
    """The name of the object, or of its bucket, that a request is about."""
    if args:
        return "gs://" + "/".join(map(str, args[:2]))
    found = _NAME.search(path)
    if not found:
        return path
    key = urllib.parse.unquote(found[2]) if found[2] else kwargs.get("name", "")
    return f"gs://{urllib.parse.unquote(found[1])}" + (f"/{key}" if key else "")


def _described(error: Exception, where: str) -> Exception | None:
    """The system's error for one of gcsfs's; None for one that stays as it is."""
    code = int(getattr(error, "code", None) or 0) if isinstance(error, gcsfs.retry.HttpError) else 0
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where)
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), where)
    if code in (401, 403) or (isinstance(error, OSError) and str(error).startswith("Forbidden")):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), where)
    if isinstance(error, google.auth.exceptions.GoogleAuthError) and not isinstance(
        error, google.auth.exceptions.TransportError
    ):
        return PermissionError(errno.EACCES, f"no valid credentials ({one_line(error)})", where)
    if (
        code >= 500
        or code in _PASSING
        or isinstance(
            error,
            (
                aiohttp.ClientError,
                requests.RequestException,
                google.auth.exceptions.TransportError,
                gcsfs.retry.ChecksumError,
                TimeoutError,
            ),
        )
    ):
        return UnreachableError(f"{where}: cannot be reached ({one_line(error)})")
    if code:
        return OSError(errno.EIO if code < 400 else errno.EINVAL, one_line(error), where)
    return None
