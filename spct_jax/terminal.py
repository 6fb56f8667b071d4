"""Text of others on a terminal."""

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text, with U+FFFD for what a terminal would obey or cannot show; tabs and line ends stay."""
    return _UNPRINTABLE.sub("\ufffd", text)


def on_one_line(text: str) -> str:
    r"""The text with escapes, such as \x1b and \n, for what a terminal would obey: names of files may hold anything."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
