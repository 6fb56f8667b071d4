"""Text of others on a terminal."""

import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text, with U+FFFD for what a terminal would obey or cannot show; tabs and line ends stay."""
    return _UNPRINTABLE.sub("\ufffd", text)
