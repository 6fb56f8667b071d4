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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("_a_ __init__", r"\_a\_ \_\_init\_\_"),
        ("truncated_rate", "truncated_rate"),
        ("x_ $y$ ~~z~~", r"x\_ \$y\$ \~\~z\~\~"),
        ("&lt;b> &#60; R&D; R&D, a & b", r"\&lt;b> \&#60; R\&D; R&D, a & b"),
    ],
)
def test_nothing_in_a_text_is_markup(text, shown):
    assert markdown.escape(text) == shown
