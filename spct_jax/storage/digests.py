"""Digests of bytes and of JSON: what tells a file or a description that was altered from the one that was saved."""

import hashlib
import json
from typing import Any


def of_bytes(content: bytes) -> str:
    """Digest of a file's content: 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def of_json(value: Any) -> str:
    """Digest of what can be written as JSON, whatever the order of its keys."""
    return of_bytes(json.dumps(value, sort_keys=True).encode())
