"""Two small models, and their trunks and branches against the plain forward pass over complete sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from spct_jax import models
from spct_jax.models import sizes

V, P, G, T = 97, 24, 3, 13
WINDOW = 8
LENGTHS = (0, 1, 3, 7, 8, 9, 23, 24)  # shorter than, at and longer than the window; T is longer than it too
GEMMA2 = dataclasses.replace(sizes.toy(V), num_heads=4, num_kv_heads=2, head_dim=16, query_scale=0.25, window=WINDOW)
GEMMA3 = dataclasses.replace(GEMMA2, num_layers=3, attn_softcap=0.0, final_softcap=0.0, qk_norm=True)
CONFIGS = {"gemma2": GEMMA2, "gemma3": GEMMA3}


@functools.cache
def setup(name):
    config = CONFIGS[name]
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    scales = jax.random.normal(jax.random.key(9), (64,)) * 0.3
    params["blocks"]["0"]["post_attention_norm"]["scale"] += scales
    trunks = jax.random.randint(jax.random.key(1), (len(LENGTHS), P), 0, V)
    sequences = jax.random.randint(jax.random.key(2), (len(LENGTHS), G, T + 1), 0, V)
    return config, params, trunks, jnp.array(LENGTHS), sequences[..., :-1], sequences[..., 1:]


@functools.partial(jax.jit, static_argnames=("config", "time_chunk", "read"))
def branched(params, config, trunks, lengths, inputs, targets, temperature=1.0, time_chunk=32, read=models.Prompts):
    """Log-probabilities and entropies of branches on `read(tokens, lengths)`."""
    config = dataclasses.replace(config, time_chunk=time_chunk)
    trunk = read(trunks, lengths)
    return models.token_logprobs(params, config, trunk, inputs, targets, temperature=temperature)


@functools.partial(jax.jit, static_argnames="config")
def plain(params, config, trunks, lengths, inputs, targets, temperature=1.0):
    """The same numbers from whole sequences, each padded behind its end, where causality hides the padding."""
    B, G, T = inputs.shape
    index = jnp.arange(P + T)
    rows = jnp.concatenate([jnp.broadcast_to(trunks[:, None], (B, G, P)), inputs], -1)
    rows = jnp.take_along_axis(rows, jnp.minimum(index + P - lengths[:, None, None], P + T - 1), -1)
    logits = models.logits(params, config, rows.reshape(B * G, -1)).reshape(B, G, P + T, -1)
    at = jnp.broadcast_to((lengths[:, None] + jnp.arange(T))[:, None, :, None], (B, G, T, 1))
    logs = jax.nn.log_softmax(jnp.take_along_axis(logits, at, 2) / temperature, -1)
    return jnp.take_along_axis(logs, targets[..., None], -1)[..., 0], -(jnp.exp(logs) * logs).sum(-1)


@functools.partial(jax.jit, static_argnames="config")
def plain_gradient(params, config, weights, *data):
    """(gradient by the parameters of a sum with these weights of the log-probabilities of `plain`, and these)."""

    def loss(params):
        found = plain(params, config, *data)[0]
        return (found * weights).sum(), found

    return jax.grad(loss, has_aux=True)(params)
