"""Other libraries' samplers, each in a process of its own, driven line by line by `bench_sampling.py`.

    python experiments/studies/rival_samplers.py tunix|transformers CHECKPOINT

CHECKPOINT is a directory in Hugging Face's layout. First a line with the version and, to show that the model is the same
one, the logits after a short prompt; then one line of seconds for each line {"prompt", "samples", "new_tokens"} read.
Imports nothing of spct_jax: the interpreter may be one in which only the rival is installed. `gpu_rival.py` draws by
transformers as it is drawn here.
"""

import functools
import importlib.metadata
import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CHECK_PROMPT = [2, 17, 345, 6, 1789, 23, 3210, 54]
"""The prompt whose last logits every sampler reports."""
ATTENTION = "eager"
"""Of transformers' attentions the one that runs everywhere and applies the soft cap; it refuses PyTorch's for Gemma-2."""

Sample = Callable[[list[int], int, int], np.ndarray]
Logits = Callable[[list[int]], np.ndarray]


class _Numbers:
    """A tokenizer whose text is the ids themselves, written out."""

    def encode(self, text, **_):
        return [int(word) for word in text.split()]

    def decode(self, ids, **_):
        return " ".join(map(str, ids))

    def bos_id(self):
        return 2

    def eos_id(self):
        return 1

    def pad_id(self):
        return 0


def tunix(checkpoint: pathlib.Path) -> tuple[Sample, Logits]:
    """Tunix's vanilla sampler on its own Gemma-2."""
    import jax
    import jax.numpy as jnp
    from tunix.generate import sampler
    from tunix.models.gemma import model, params_safetensors

    fields = json.loads((checkpoint / "config.json").read_text())
    kinds = {"sliding_attention": model.AttentionType.LOCAL_SLIDING, "full_attention": model.AttentionType.GLOBAL}
    config = model.ModelConfig(
        num_layers=fields["num_hidden_layers"],
        num_embed=fields["vocab_size"],
        embed_dim=fields["hidden_size"],
        hidden_dim=fields["intermediate_size"],
        num_heads=fields["num_attention_heads"],
        head_dim=fields["head_dim"],
        num_kv_heads=fields["num_key_value_heads"],
        final_logit_softcap=fields["final_logit_softcapping"],
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        attention_types=tuple(kinds[kind] for kind in fields["layer_types"]),
        attn_logits_soft_cap=fields["attn_logit_softcapping"],
        sliding_window_size=fields["sliding_window"],
    )
    gemma = params_safetensors.create_model_from_safe_tensors(str(checkpoint), config, dtype=jnp.float32)
    samplers = {}

    def sample(prompt, samples, new_tokens):
        size = len(prompt) + new_tokens
        if size not in samplers:
            cache = sampler.CacheConfig(size, config.num_layers, config.num_kv_heads, config.head_dim)
            samplers[size] = sampler.Sampler(gemma, _Numbers(), cache)
        # The sampler puts a BOS of its own before the text; no token is -1, so nothing ends early.
        texts = [" ".join(map(str, prompt[1:]))] * samples
        drawn = samplers[size](
            texts,
            new_tokens,
            max_prompt_length=len(prompt),
            eos_tokens=[-1],
            temperature=1.0,
            top_p=1.0,
            seed=0,
        )
        return np.stack(drawn.tokens)

    def logits(prompt):
        T = len(prompt)
        out, _ = gemma(jnp.array([prompt]), jnp.arange(T)[None], None, jnp.tril(jnp.ones((1, T, T), bool)))
        return np.asarray(jax.device_get(out)[0, -1])

    return sample, logits


def drawn_by_transformers(gemma: Any, prompt: Sequence[int], samples: int, new_tokens: int) -> np.ndarray:
    """Int64[samples new_tokens]: completions of a prompt by the generate method of a model of transformers', on its device."""
    import torch

    tokens = torch.tensor([prompt], device=gemma.device)
    with torch.inference_mode():
        drawn = gemma.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=samples,
            max_new_tokens=new_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
    return drawn[:, len(prompt) :].cpu().numpy()


def transformers(checkpoint: pathlib.Path) -> tuple[Sample, Logits]:
    """The generate method of transformers' Gemma-2."""
    import torch
    from transformers import Gemma2ForCausalLM

    gemma = Gemma2ForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation=ATTENTION).eval()

    def logits(prompt):
        with torch.inference_mode():
            return gemma(torch.tensor([prompt])).logits[0, -1].float().numpy()

    return functools.partial(drawn_by_transformers, gemma), logits


RIVALS = {"tunix": ("google-tunix", tunix), "transformers": ("transformers", transformers)}


def main() -> int:
    """Answers requests until stdin closes; the exit status."""
    # What the libraries print must not get between the lines of the protocol.
    answers, sys.stdout = sys.stdout, sys.stderr
    # Should memory run out, it is this process that goes.
    pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
    distribution, build = RIVALS[sys.argv[1]]
    sample, logits = build(pathlib.Path(sys.argv[2]))
    hello = {"version": importlib.metadata.version(distribution), "logits": logits(CHECK_PROMPT).tolist()}
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        tokens = sample(request["prompt"], request["samples"], request["new_tokens"])
        seconds = time.perf_counter() - start
        if tokens.shape != (request["samples"], request["new_tokens"]):
            raise RuntimeError(f"{sys.argv[1]} drew {tokens.shape}")
        print(json.dumps(seconds), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
