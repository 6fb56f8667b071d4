"""Google's Flax layout, on checkpoints these tests write in it."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from spct_jax import models
from spct_jax.checkpoints import google
from spct_jax.errors import InputError
from spct_jax.models import stack


def size(**fields):
    base = vars(models.get("toy")) | {"vocab_size": 40, "num_layers": 5, "width": 24, "num_heads": 4, "num_kv_heads": 2}
    return models.ModelConfig(**base | {"head_dim": 8, "ffw_width": 20, "pattern": ("local", "local", "global")} | fields)


def to_google(params, config, *, transposed: bool, fused: bool = False, spare_rows: int = 0):
    """Our parameters as Google's modules name and shape them."""
    table = np.asarray(params["embedder"]["input_embedding"])
    table = np.concatenate([table, np.full((spare_rows, config.width), 9, table.dtype)])
    tree = {"embedder": {"input_embedding": table}, "final_norm": {"scale": np.asarray(params["final_norm"]["scale"])}}
    for i, block in enumerate(stack.to_layers(config, jax.tree.map(np.asarray, params))):
        q, k, v = (block["attn"][name].transpose(1, 0, 2) for name in ("q", "k", "v"))
        attn = {"attn_vec_einsum": {"w": block["attn"]["out"]}}
        if fused:
            attn["qkv_einsum"] = {"w": np.stack([q, k, v])}
        else:
            attn |= {"q_einsum": {"w": q}, "kv_einsum": {"w": np.stack([k, v])}}
        if config.qk_norm:
            attn |= {"_query_norm": block["attn"]["q_norm"], "_key_norm": block["attn"]["k_norm"]}
        gating = np.stack([block["mlp"]["gate"], block["mlp"]["up"]])
        gating = gating.swapaxes(1, 2) if transposed else gating
        mlp = {"gating_einsum": {"w": gating}, "linear": {"w": block["mlp"]["down"]}}
        norms = {name: block[name] for name in block if name.endswith("norm")}
        tree[f"layer_{i}"] = {"attn": attn, "mlp": mlp, **norms}
    return {"transformer": tree}


def flat(tree):
    """The same with module paths as single names, as the published files have it."""
    out = {}

    def walk(prefix, value):
        if all(not isinstance(v, dict) for v in value.values()):
            out[prefix] = value
            return
        for name, inner in value.items():
            walk(f"{prefix}/{name}" if prefix else name, inner)

    walk("", tree)
    return out


@pytest.mark.parametrize("layout", [dict, flat])
@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({}, {"transposed": True}),
        ({}, {"transposed": False}),
        ({"qk_norm": True}, {"transposed": True}),
        ({"num_kv_heads": 4}, {"transposed": True, "fused": True}),
    ],
)
def test_every_variant_is_read(tmp_path, layout, fields, how):
    config = size(**fields)
    params = models.init(config, jax.random.key(3))
    ocp.PyTreeCheckpointer().save(tmp_path / "google", layout(to_google(params, config, **how)))
    found, found_config = google.load_google(tmp_path / "google", config)
    assert found_config == config
    assert jax.tree.all(jax.tree.map(np.array_equal, params, found))


def test_padding_rows_are_kept_but_are_no_tokens():
    config = size()
    tree = to_google(models.init(config, jax.random.key(3)), config, transposed=True, spare_rows=8)
    params, found = google.from_google(tree, config, dtype="float32", where="here")
    assert (found.vocab_size, found.num_tokens) == (48, 40)
    out = jax.jit(models.logits, static_argnums=1)(params, found, jnp.array([[2, 5, 7]]))
    assert (jax.nn.softmax(out)[..., 40:] == 0).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t["layer_1"].pop("mlp"), "parameter layer_1/mlp/gating_einsum is missing"),
        (lambda t: t.update(extra=np.zeros(3)), "parameter extra is not part of this model"),
        (lambda t: t["layer_4"]["attn"].update(attn_vec_einsum=np.zeros((4, 8, 23))), r"attn_vec_einsum is \(4, 8, 23\)"),
        (lambda t: t["embedder"].update(input_embedding=np.zeros((39, 24), np.float32)), "39 rows, fewer than 40"),
        (lambda t: t["embedder"].update(input_embedding=np.zeros((81, 24), np.float32)), "81 rows, far more than 40"),
        (lambda t: t["final_norm"].update(scale=np.zeros(24, np.int8)), "final_norm/scale is int8; float32"),
        (lambda t: t.update({"transformer/final_norm/scale": np.zeros(24)}), "two parameters have the same name"),
    ],
)
def test_what_does_not_fit_is_named(spoil, message):
    config = size()
    tree = to_google(models.init(config, jax.random.key(3)), config, transposed=True)
    spoil(tree["transformer"])
    with pytest.raises(InputError, match=message):
        google.from_google(tree, config, dtype="float32", where="here")


def test_a_directory_that_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="not an Orbax checkpoint"):
        google.load_google(tmp_path, size())


def test_a_claim_of_many_rows_takes_no_memory(tmp_path):
    """Four bytes of a description that claim 100 TB; read, they would end the process."""
    config = size()
    tree = to_google(models.init(config, jax.random.key(3)), config, transposed=True)
    ocp.PyTreeCheckpointer(use_ocdbt=False).save(tmp_path / "google", tree)
    path = tmp_path / "google" / "transformer.embedder.input_embedding" / ".zarray"
    path.write_text(path.read_text().replace('"shape":[40,24]', f'"shape":[{2**40},24]'))
    with pytest.raises(InputError, match=f"input_embedding has {2**40} rows, far more than 40 tokens"):
        google.load_google(tmp_path / "google", config)
