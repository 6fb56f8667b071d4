"""What whole runs of the tests have in common: each program of a stage is traced and compiled once a file, not once a run.

Tracing is the largest part of a run in miniature. Runs that tests start as commands trace their programs anew. A run's learning
curves are drawn once for the same stages and steps, since 0.4 s go into each; tests/reporting is about pictures.
"""

import functools

import jax
import pytest

from spct_jax.reporting import plots
from spct_jax.runtime import memory
from spct_jax.training import grpo, meta, optimizers, preference, sft

MAKERS = ((sft, "make_step"), (grpo, "make_step"), (grpo, "make_reference"), (meta, "make_step"), (preference, "make_step"))
"""What makes the programs of a stage, as a function of shapes and settings alone."""


@pytest.fixture(scope="module")
def shared_programs():
    """The runs of a file of tests keep their programs until its last test has ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "end_stage", memory.give_back)
        patch.setattr(optimizers, "make", _once(optimizers.make, repr))
        patch.setattr(plots, "learning_curves", _once(plots.learning_curves, _steps))
        for module, name in MAKERS:
            patch.setattr(module, name, _once(getattr(module, name), _flattened))
        yield
    jax.clear_caches()


def _once(make, key_of):
    """The same function, which returns what it made before where it is given the same."""
    made = {}

    @functools.wraps(make)
    def remembered(*arguments):
        key = key_of(arguments)
        if key not in made:
            made[key] = make(*arguments)
        return made[key]

    return remembered


def _steps(arguments):
    """How many each stage has curves of."""
    (curves,) = arguments
    return tuple((stage, len(rows)) for stage, rows in curves.items())


def _flattened(arguments):
    """Hashable; of arrays, shape, dtype and where they lie."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, *map(_shape, leaves)


def _shape(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) if isinstance(leaf, jax.Array) else leaf
