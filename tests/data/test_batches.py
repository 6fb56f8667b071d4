"""Lengths of batches."""

from spct_jax.data import batches


def test_sequences_are_padded_to_few_lengths():
    assert [batches.padded_length(n) for n in (0, 1, 16, 17, 32, 33)] == [16, 16, 16, 32, 32, 64]
