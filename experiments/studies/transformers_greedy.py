"""Greedy completions by transformers, in a process of its own, driven line by line by `export_check.py`.

    python experiments/studies/transformers_greedy.py CHECKPOINT

CHECKPOINT is a directory in Hugging Face's layout. First a line with versions; then one line for each line that is read. To
{"prompts", "max_new_tokens", "stop_ids"} it answers with the completions, terminators included; to {"contexts"} with how far,
in each of them, the likeliest next token is ahead of the second, as a log-probability. Imports nothing of spct_jax: the
interpreter may be one in which only torch and transformers are installed.
"""

import json
import sys

import torch
import transformers

PAD = 0


def complete(model, prompts: list[list[int]], max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
    """The completions of prompts, which are read side by side, padded on the left."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    with torch.inference_mode():
        drawn = model.generate(
            tokens,
            attention_mask=mask,
            do_sample=False,
            top_k=None,
            top_p=None,
            max_new_tokens=max_new_tokens,
            eos_token_id=stop_ids,
            pad_token_id=PAD,
        )
    found = []
    for row in drawn[:, longest:].tolist():
        end = next((t + 1 for t, token in enumerate(row) if token in stop_ids), len(row))
        found.append(row[:end])
    return found


def gap(model, context: list[int]) -> float:
    """How far the likeliest next token is ahead of the second."""
    with torch.inference_mode():
        logits = model(torch.tensor([context], device=model.device), logits_to_keep=1).logits[0, -1].float()
    first, second = torch.topk(logits, 2).values.tolist()
    return first - second


def main() -> int:
    """Answers requests until stdin closes; the exit status."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what the libraries print must not get between the answers
    model = transformers.AutoModelForCausalLM.from_pretrained(
        sys.argv[1], dtype=torch.float32, attn_implementation="eager"
    ).eval()  # "eager" alone applies the soft caps of Gemma-2
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    hello = {"transformers": transformers.__version__, "torch": torch.__version__, "device": model.device.type}
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "contexts" in request:
            answer = [gap(model, context) for context in request["contexts"]]
        else:
            answer = complete(model, request["prompts"], request["max_new_tokens"], request["stop_ids"])
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
