"""`experiments/studies/sampler_comparison.py`: what it says of the programs that today's sampler runs."""

import dataclasses

import jax
import study_modules

from spct_jax import models
from spct_jax.models import sizes


def test_peak_memory_is_that_of_the_programs_that_draw():
    config = dataclasses.replace(sizes.toy(64), num_layers=1)
    shapes = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    parameters = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    with study_modules.imported("sampler_comparison") as (comparison,):
        few, many = (comparison.peak_memory(config, [[2, 3, 4, 5]], samples, 8) for samples in (1, 8))
        assert parameters < few < many
        assert len(comparison.sampler(models.init(config, jax.random.key(0)), config, [[2, 3]], 2, 4)()[0]) == 2
