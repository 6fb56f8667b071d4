r"""Whether a trained judge says the same in transformers: the greedy verdicts of both, from the same prompts, token by token.

    python experiments/studies/export_check.py --checkpoint=runs/gemma/grm/rl --input=runs/gemma/data/test.jsonl \
        --output=export.json

The judge is written in Hugging Face's layout by `python -m spct_jax.convert` and loaded by `AutoModelForCausalLM`; ours is read
from where it is. Both compute in float32. Where they part, the lead of the likeliest token there says whether it was a near
tie. `--transformers` names the interpreter that has torch and transformers, where it is another one.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from spct_jax import checkpoints, cli, sampling
from spct_jax.data import draws
from spct_jax.data.batches import padded_length
from spct_jax.data.comparison import Comparison
from spct_jax.data.sources import read_comparisons
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Prompter
from spct_jax.judging import models
from spct_jax.storage import files

THEIRS = pathlib.Path(__file__).with_name("transformers_greedy.py")

FLAGS = flags.FlagValues()
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Model directory of the judge.", required=True, flag_values=FLAGS)
INPUT = flags.DEFINE_string("input", None, "Comparisons, .jsonl.", required=True, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "What was found, .json.", required=True, flag_values=FLAGS)
ITEMS = flags.DEFINE_integer("items", 20, "How many comparisons are judged, a sample.", 1, flag_values=FLAGS)
MAX_PROMPT = flags.DEFINE_integer("max_prompt", 1024, "Longest prompt of these, in tokens.", 2, flag_values=FLAGS)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 256, "Longest verdict, in tokens.", 1, flag_values=FLAGS)
TRANSFORMERS = flags.DEFINE_string("transformers", sys.executable, "Python with torch and transformers.", flag_values=FLAGS)


class Theirs:
    """The process that answers with transformers."""

    def __init__(self, python: str, checkpoint: str):
        self._process = subprocess.Popen(
            [python, str(THEIRS), checkpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = self._answer()

    def ask(self, **request: Any) -> Any:
        """The answer to one request."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise InputError(f"{THEIRS.name} ended with status {self._process.wait()}; what it said stands above")
        return json.loads(line)


def convert(source: str, target: str) -> None:
    """Writes the judge in Hugging Face's layout, as a user does."""
    command = [sys.executable, "-m", "spct_jax.convert", f"--from={source}", f"--to={target}", "--format=hf", "--dtype=float32"]
    # On the CPU, since the accelerator's memory is for those that compute.
    if subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.DEVNULL).returncode:
        raise InputError(f"--checkpoint={source}: the conversion failed; what it said stands above")


def complete(judge: checkpoints.Model, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
    """Our greedy completions, terminators included."""
    found = sampling.generate(
        judge.params,
        judge.config,
        prompts,
        jax.random.key(0),
        num_samples=1,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        stop_ids=judge.tokenizer.stop_ids,
        bucket=max(padded_length(len(prompt) - 1) for prompt in prompts),
    )
    lengths = np.asarray(found.lengths)[:, 0]
    return [row[:length].tolist() for row, length in zip(np.asarray(found.tokens)[:, 0], lengths, strict=True)]


def compare(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> tuple[list[int | None], int, int]:
    """(where each pair of completions parts, None where it does not; tokens before that; tokens of ours)."""
    parts: list[int | None] = []
    for a, b in zip(ours, theirs, strict=True):
        same = next((t for t, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        parts.append(None if list(a) == list(b) else same)
    alike = sum(len(a) if at is None else at for a, at in zip(ours, parts, strict=True))
    return parts, alike, sum(map(len, ours))


def choose(comparisons: Sequence[Comparison], prompter: Prompter, max_prompt: int, items: int) -> list[Comparison]:
    """A sample of those whose prompt is not too long; InputError where there are none."""
    short = [c for c in comparisons if c.n > 1 and prompter.fits(c, limit=max_prompt)]
    if not short:
        raise InputError(f"--max_prompt={max_prompt}: no comparison has a prompt that short")
    return [short[index] for index in draws.sample(0, "export", len(short), items)]


def main(_) -> None:
    """Exports, judges twice and writes what was found."""
    jax.config.update("jax_default_matmul_precision", "highest")  # GPUs would round float32 to fewer bits
    comparisons, _ = read_comparisons(INPUT.value)
    with tempfile.TemporaryDirectory() as scratch:
        exported = os.path.join(scratch, "exported")
        convert(CHECKPOINT.value, exported)
        judge = checkpoints.load(CHECKPOINT.value, dtype="float32")
        prompter = Prompter(models.with_names(judge.prompt, None), judge.tokenizer)
        shown = choose(comparisons, prompter, MAX_PROMPT.value, ITEMS.value)
        orders = [tuple(range(c.n)) for c in shown]
        prompts = [prompter.encode(c, order) for c, order in zip(shown, orders, strict=True)]
        ours = complete(judge, prompts, MAX_NEW_TOKENS.value)
        process = Theirs(TRANSFORMERS.value, exported)
        stops = list(judge.tokenizer.stop_ids)
        theirs = process.ask(prompts=prompts, max_new_tokens=MAX_NEW_TOKENS.value, stop_ids=stops)
        parts, alike, tokens = compare(ours, theirs)
        apart = [i for i, at in enumerate(parts) if at is not None]
        gaps = process.ask(contexts=[prompts[i] + ours[i][: parts[i]] for i in apart]) if apart else []
        process.close()
    verdicts = [
        [prompter.read(c, order, [tokens]).scores[0] for tokens in pair]
        for c, order, *pair in zip(shown, orders, ours, theirs, strict=True)
    ]
    found = {
        "comparisons": len(shown),
        "same_tokens": len(shown) - len(apart),
        "same_verdicts": sum(a == b for a, b in verdicts),
        "readable": sum(a is not None for a, _ in verdicts),
        "tokens": tokens,
        "tokens_before_parting": alike,
        "parted": [{"id": shown[i].id, "at": parts[i], "lead": lead} for i, lead in zip(apart, gaps, strict=True)],
        "versions": process.versions | {"jax": jax.__version__, "our_device": jax.devices()[0].platform},
    }
    files.write_json(OUTPUT.value, found)
    print(json.dumps(found))


if __name__ == "__main__":
    cli.run(main, FLAGS)
