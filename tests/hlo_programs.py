"""Programs in the text of XLA's compiler."""

import textwrap

from spct_jax.planning import hlo


def program(body: str) -> hlo.Module:
    return hlo.Module(textwrap.dedent(body))
