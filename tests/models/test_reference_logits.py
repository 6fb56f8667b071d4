"""Against an independent NumPy Gemma-2 and against logits that transformers computed."""

import dataclasses
import json
from pathlib import Path

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from spct_jax import models, sampling
from spct_jax.models import sizes, stack
from spct_jax.models.config import ModelConfig

FIXTURES = Path(__file__).parents[1] / "fixtures"

logits = jax.jit(models.logits, static_argnames="config")
prefill = jax.jit(models.prefill, static_argnames="config")
decode = jax.jit(models.decode, static_argnames="config")


# An independent, slow Gemma-2 ----------------------------------------------------------------------------------------


def numpy_norm(x, scale):
    return x / np.sqrt((x**2).mean() + 1e-6) * (1 + scale)


def numpy_rope(x, position, base):
    """x [H] turned by its position, one pair at a time."""
    out, half = x.copy(), len(x) // 2
    for i in range(half):
        angle = position / base ** (2 * i / len(x))
        out[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
        out[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
    return out


def numpy_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def numpy_gemma2(params, config, tokens):
    """Float64 logits [T V] of one sequence, token by token and head by head."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    table, base = p["embedder"]["input_embedding"], config.rope_base_global  # this model's local layers have the same
    xs = [table[token] * np.sqrt(config.width) for token in tokens]
    for layer, w in enumerate(stack.to_layers(config, p)):
        normed = [numpy_norm(x, w["pre_attention_norm"]["scale"]) for x in xs]
        attended = []
        for i, x in enumerate(normed):
            out = np.zeros(config.width)
            for head in range(config.num_heads):
                shared = head // (config.num_heads // config.num_kv_heads)
                q = numpy_rope(x @ w["attn"]["q"][:, head], i, base) * config.query_scale
                first = max(0, i - config.window + 1) if layer % 2 == 0 else 0
                seen = range(first, i + 1)
                scores = np.array([q @ numpy_rope(normed[j] @ w["attn"]["k"][:, shared], j, base) for j in seen])
                scores = config.attn_softcap * np.tanh(scores / config.attn_softcap)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                value = sum(a * (normed[j] @ w["attn"]["v"][:, shared]) for a, j in zip(weights, seen, strict=True))
                out += value @ w["attn"]["out"][head]
            attended.append(out)
        xs = [x + numpy_norm(a, w["post_attention_norm"]["scale"]) for x, a in zip(xs, attended, strict=True)]
        for i, x in enumerate(xs):
            h = numpy_norm(x, w["pre_ffw_norm"]["scale"])
            h = (numpy_gelu(h @ w["mlp"]["gate"]) * (h @ w["mlp"]["up"])) @ w["mlp"]["down"]
            xs[i] = x + numpy_norm(h, w["post_ffw_norm"]["scale"])
    scores = np.stack([table @ numpy_norm(x, p["final_norm"]["scale"]) for x in xs])
    return config.final_softcap * np.tanh(scores / config.final_softcap)


def test_logits_equal_an_independent_numpy_gemma2():
    config = dataclasses.replace(
        sizes.toy(61),
        num_heads=4,
        num_kv_heads=2,
        head_dim=20,
        window=6,
        query_scale=18**-0.5,
        attn_softcap=3.0,
        final_softcap=2.0,
    )
    params = compiled.init(config, jax.random.key(0))
    noise = jax.random.key(1)
    params = jax.tree.map(lambda a: a + 0.2 * jax.random.normal(noise, a.shape) * (jnp.std(a) + 1), params)
    tokens = np.random.default_rng(0).integers(0, 61, (1, 19))
    want = numpy_gemma2(params, config, tokens[0])
    np.testing.assert_allclose(logits(params, config, jnp.asarray(tokens))[0], want, atol=5e-5)


# Checkpoints with logits from transformers ---------------------------------------------------------------------------


def fixture_config(directory):
    raw = json.loads((directory / "config.json").read_text())
    gemma3 = raw["model_type"] == "gemma3_text"
    rope = raw["rope_parameters"]
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        num_layers=raw["num_hidden_layers"],
        width=raw["hidden_size"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw["num_key_value_heads"],
        head_dim=raw["head_dim"],
        ffw_width=raw["intermediate_size"],
        pattern=("local",) * 5 + ("global",) if gemma3 else ("local", "global"),
        window=raw["sliding_window"],
        rope_base_local=(rope["sliding_attention"] if gemma3 else rope)["rope_theta"],
        rope_base_global=(rope["full_attention"] if gemma3 else rope)["rope_theta"],
        query_scale=raw["query_pre_attn_scalar"] ** -0.5,
        attn_softcap=raw["attn_logit_softcapping"] or 0.0,
        final_softcap=raw["final_logit_softcapping"] or 0.0,
        qk_norm=gemma3,
    )


def fixture_params(directory, c):
    tensors = {}
    for shard in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(shard)

    def layer(i):
        def get(name):
            return tensors.pop(f"model.layers.{i}.{name}.weight")

        def heads(name, count):
            return get(f"self_attn.{name}_proj").T.reshape(c.width, count, c.head_dim)

        attn = {"q": heads("q", c.num_heads), "k": heads("k", c.num_kv_heads), "v": heads("v", c.num_kv_heads)}
        attn["out"] = get("self_attn.o_proj").T.reshape(c.num_heads, c.head_dim, c.width)
        if c.qk_norm:
            attn |= {name: {"scale": get(f"self_attn.{name}")} for name in ("q_norm", "k_norm")}
        return {
            "attn": attn,
            "mlp": {ours: get(f"mlp.{ours}_proj").T for ours in ("gate", "up", "down")},
            "pre_attention_norm": {"scale": get("input_layernorm")},
            "post_attention_norm": {"scale": get("post_attention_layernorm")},
            "pre_ffw_norm": {"scale": get("pre_feedforward_layernorm")},
            "post_ffw_norm": {"scale": get("post_feedforward_layernorm")},
        }

    layers = [layer(i) for i in range(c.num_layers)]
    params = {
        "embedder": {"input_embedding": tensors.pop("model.embed_tokens.weight")},
        "final_norm": {"scale": tensors.pop("model.norm.weight")},
    }
    assert not tensors
    return jax.tree.map(jnp.asarray, params | stack.from_layers(c, layers))


@pytest.fixture(params=["gemma2_tiny", "gemma3_tiny"], scope="module")
def checkpoint(request):
    directory = FIXTURES / request.param
    config = fixture_config(directory)
    return config, fixture_params(directory, config), np.load(directory / "reference.npz")


def test_parameters_have_the_shapes_of_fresh_ones(checkpoint):
    config, params, _ = checkpoint
    fresh = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    assert jax.tree.map(lambda a: a.shape, params) == jax.tree.map(lambda a: a.shape, fresh)


def test_logits_equal_those_of_transformers(checkpoint):
    config, params, reference = checkpoint
    got = logits(params, config, jnp.asarray(reference["ids"]))
    assert np.abs(got - reference["logits"]).max() <= 2e-5


@pytest.mark.parametrize("split", [5, 20])
def test_logits_through_the_cache_one_token_at_a_time(checkpoint, split):
    config, params, reference = checkpoint
    ids = jnp.asarray(reference["ids"])
    # The second row's trunk is one token shorter, so the batch is ragged.
    lengths = jnp.array([split, split - 1])
    trunk_tokens = jnp.stack([ids[0, :split], jnp.roll(ids[1, :split], 1)])
    trunk = prefill(params, config, jnp.pad(trunk_tokens, ((0, 0), (3, 0))), lengths)
    cache = models.init_cache(config, 2, 1, 28, 4)
    for t in range(27 - split):
        base = jnp.full((2, 1), t // 4 * 4)
        hidden, cache = decode(params, config, (trunk,), ids[jnp.arange(2), lengths + t][:, None], cache, base, t % 4)
        cache = compiled.flush(cache, base) if t % 4 == 3 else cache
        got = models.unembed(params, config, hidden[:, 0])
        want = reference["logits"][np.arange(2), np.asarray(lengths) + t]
        assert np.abs(got - want).max() <= 2e-5


def test_greedy_continuations_are_those_of_transformers(checkpoint):
    config, params, reference = checkpoint
    prompts = reference["greedy"][:, :12].tolist()
    out = sampling.generate(
        params, config, prompts, jax.random.key(0), num_samples=1, max_new_tokens=16, temperature=0.0, stop_ids=()
    )
    np.testing.assert_array_equal(out.tokens[:, 0], reference["greedy"][:, 12:])
