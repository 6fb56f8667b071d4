"""The one exception that stands for bad input.

Command-line entries print it as a single line and exit with status 2; anything else is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """Something the user gave us is wrong; the message names what, and the file and line where there is one."""
