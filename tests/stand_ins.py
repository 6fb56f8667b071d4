"""Objects of the program's classes with only the fields that a test needs."""

from typing import Any

import jax
import numpy as np

from spct_jax.sampling import Finished


def stand_in(kind: type, **fields: Any) -> Any:
    """An instance of a class, made without its constructor."""
    made = object.__new__(kind)
    vars(made).update(fields)
    return made


class KeyedEngine:
    """In place of the sampler: completions of three tokens that are functions of the keys."""

    def __init__(self, layout, params, config, shape, sampling, usage=None, preamble=()):
        self._vocab_size = config.vocab_size

    def run(self, requests):
        """One completion of every sample."""
        for request in requests:
            key = jax.random.wrap_key_data(request.key)
            for sample in request.waiting:
                tokens = jax.random.randint(jax.random.fold_in(key, sample), (3,), 6, self._vocab_size)
                yield Finished(request, sample, tokens.tolist(), np.full(3, sample, np.float32))
