"""Makes the small reference checkpoints in tests/fixtures with transformers; run it in an environment that has torch.

    python tests/models/make_reference.py tests/fixtures

Each directory gets the files transformers saves and `reference.npz`: `ids` [2, 20], and `logits` [2, 20, vocab] or, for the
classifier, `scores` [2], computed by transformers in float32 on CPU.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers

SMALL = {
    "vocab_size": 96,
    "hidden_size": 24,
    "intermediate_size": 40,
    "sliding_window": 6,
    "initializer_range": 0.2,
    "max_position_embeddings": 64,
}


def gemma2(**fields):
    return transformers.Gemma2Config(
        **SMALL | {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10, "query_pre_attn_scalar": 13} | fields
    )


def gemma3(**fields):
    return transformers.Gemma3TextConfig(
        **SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 9} | fields
    )


def randomise(model):
    """Gives every parameter, norms included, values that would show if it were ignored."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if parameter.ndim == 1 else 0.2
            parameter.copy_(torch.randn_like(parameter, dtype=torch.float32) * scale)
            if "lm_head" in name or "score" in name:
                parameter.mul_(2)
    model.tie_weights()
    return model.eval()


def older_style(directory: pathlib.Path) -> None:
    """Rewrites config.json as the hub's first Gemma-2 files had it."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["hidden_act"] = config["hidden_activation"]
    config["torch_dtype"] = config.pop("dtype")
    del config["layer_types"]
    path.write_text(json.dumps(config, indent=2) + "\n")


def older_style_3(directory: pathlib.Path) -> None:
    """The same for Gemma-3 with a vision tower, whose text_config left most fields to the defaults."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    text = config["text_config"]
    ropes = text.pop("rope_parameters")
    text["rope_theta"] = ropes["full_attention"]["rope_theta"]
    text["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    text["rope_scaling"] = {"factor": ropes["full_attention"]["factor"], "rope_type": "linear"}
    text["sliding_window_pattern"] = 6
    for field in ("layer_types", "_sliding_window_pattern", "tie_word_embeddings", "rms_norm_eps"):
        text.pop(field, None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def write(root: pathlib.Path, name: str, model, dtype=torch.float32, after=lambda directory: None, **options) -> None:
    directory = root / name
    shutil.rmtree(directory, ignore_errors=True)
    model = randomise(model).to(dtype)
    model.save_pretrained(directory, **options)
    after(directory)
    # Read back, because a model cast to bfloat16 and back keeps rounded rotary frequencies.
    model = type(model).from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    ids = np.random.default_rng(1).integers(3, 90, (2, 20))
    ids[:, 0] = 2
    with torch.no_grad():
        logits = model(torch.tensor(ids), attention_mask=torch.ones(2, 20, dtype=torch.long)).logits.numpy()
    key = "scores" if logits.ndim == 2 else "logits"
    np.savez_compressed(directory / "reference.npz", ids=ids, **{key: logits.squeeze(-1) if key == "scores" else logits})


def main(root: pathlib.Path) -> None:
    plain = {"attn_implementation": "eager"}
    write(
        root,
        "gemma2_older_bf16",
        transformers.Gemma2ForCausalLM._from_config(gemma2(num_hidden_layers=3), **plain),
        dtype=torch.bfloat16,
        after=older_style,
        max_shard_size="20KB",
    )
    untied = gemma2(num_hidden_layers=2, tie_word_embeddings=False)
    write(root, "gemma2_untied", transformers.Gemma2ForCausalLM._from_config(untied, **plain))
    classifier = gemma2(num_hidden_layers=2, num_labels=1, pad_token_id=0)
    write(root, "gemma2_classifier", transformers.Gemma2ForSequenceClassification._from_config(classifier, **plain))
    ropes = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    text = gemma3(num_hidden_layers=8, rope_parameters=ropes)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"image_size": 8, "patch_size": 4}
    whole = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration._from_config(whole, **plain)
    write(root, "gemma3_vision", model, after=older_style_3)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
