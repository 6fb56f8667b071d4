"""Self-Principled Critique Tuning for JAX and TPU.

The public names are imported when they are first used, so that `import spct_jax` is quick and leaves JAX alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

from spct_jax import interrupts

if TYPE_CHECKING:
    from spct_jax.data.comparison import Comparison, Turn
    from spct_jax.judging.judge import Judge
    from spct_jax.judging.verdicts import Sample, Verdict

_MODULES = {
    "Comparison": "spct_jax.data.comparison",
    "Judge": "spct_jax.judging.judge",
    "Sample": "spct_jax.judging.verdicts",
    "Turn": "spct_jax.data.comparison",
    "Verdict": "spct_jax.judging.verdicts",
}

__all__ = ["Comparison", "Judge", "Sample", "Turn", "Verdict"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


interrupts.begin()  # of all modules of a command this is the first to be imported
