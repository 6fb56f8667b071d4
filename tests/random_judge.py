"""A judge of random weights whose completions are verdicts all the same: every second token it knows is one."""

import dataclasses
import itertools

import jax
import numpy as np
import small_judge
from sentencepiece import sentencepiece_model_pb2

from spct_jax import checkpoints, models
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.models import sizes

STOPS = 80
TEMPLATE = """low: 1
high: 10
--- response
[{number}]
{response}
--- prompt
Score {n} responses.
{conversation}
{responses}
"""
"""Names no parts, so that a verdict may stand anywhere in a completion."""


def tokenizer():
    """Of the small judge, with a piece for each verdict on two responses, in two spellings, and many that end a completion."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(small_judge.tokenizer().model_proto)
    verdicts = [f"\\boxed{{{a},{space}{b}}}" for a, b in itertools.product(range(1, 11), repeat=2) for space in ("", "\u2581")]
    base = len(proto.pieces)
    for piece in [*verdicts, *(f"\u2581end{number}" for number in range(STOPS))]:
        proto.pieces.add(piece=piece, score=-1e6)
    return Tokenizer(proto.SerializeToString(), range(base + len(verdicts), base + len(verdicts) + STOPS))


def save(directory):
    """Writes `model`, a checkpoint, and `template.txt`, with which to judge by it."""
    made = tokenizer()
    config = dataclasses.replace(sizes.toy(made.vocab_size), num_layers=2, tied=False, final_softcap=5.0)
    params, rng = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0)), np.random.default_rng(0)
    # Of a fresh model all tokens depend on the last one only; noise makes them depend on all that was read.
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(x.dtype), params)
    checkpoints.save(directory / "model", checkpoints.Model(params, config, made))
    (directory / "template.txt").write_text(TEMPLATE)
