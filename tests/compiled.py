"""Functions of models as programs: operations one by one, each compiled for itself, take several times as long."""

import jax

from spct_jax import models

init = jax.jit(models.init, static_argnums=0)
prefill, extend, logits = (jax.jit(function, static_argnums=1) for function in (models.prefill, models.extend, models.logits))
flush = jax.jit(models.flush)
