"""Nothing that a model wrote breaks out of its cell or its block."""

import pytest

from spct_jax.reporting import markdown


@pytest.mark.parametrize("text", ["```\n# title", "`````", "~~~\n</details>", "a\ud800b", ""])
def test_a_fence_cannot_be_closed_from_inside(text):
    first, *inside, last = markdown.fence(text).encode().decode().split("\n")
    assert first == last + "text" and set(last) == {"`"}
    assert all(last not in line for line in inside)


def test_cells_stay_cells():
    assert markdown.table(["a"], [["x | y\n| z `"]]).splitlines()[2] == "| x \\| y \\| z \\` |"
