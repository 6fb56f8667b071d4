"""One way of drawing samples against others: the model and the prompts they share, and the pairs of times.

The other ways are our own model with the prompt repeated, and the samplers of other libraries, each in its own process
(`rival_samplers.py`).
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from machine_limits import available_memory, seconds_of
from rival_samplers import CHECK_PROMPT

from spct_jax import models, sharding
from spct_jax.data.batches import padded_length
from spct_jax.models import sizes
from spct_jax.models.config import ModelConfig
from spct_jax.rounding import next_power_of_two
from spct_jax.sampling import SamplingParams, Shape, generate
from spct_jax.sampling.engine_programs import engine_programs

COMPLETION = 64
MOST = 32
"""Samples drawn where ways are compared."""
PAIRS = 3
START = time.perf_counter()
WAYS = {"repeated": "own model, prompt repeated", "tunix": "Tunix", "transformers": "transformers"}


def model_config() -> ModelConfig:
    """The model of the benchmark."""
    return dataclasses.replace(
        sizes.toy(4096),
        width=512,
        num_heads=8,
        num_kv_heads=4,
        head_dim=64,
        ffw_width=2048,
        window=1024,
        rope_base_local=10_000.0,
        rope_base_global=10_000.0,
        query_scale=64**-0.5,
    )


def make_prompts(config: ModelConfig, length: int, number: int) -> list[list[int]]:
    """Random prompts that start with BOS."""
    tokens = np.random.default_rng(length).integers(3, config.vocab_size, (number, length))
    tokens[:, 0] = 2
    return tokens.tolist()


def progress(text: str) -> None:
    """One line, with the time since the start."""
    print(f"[{time.perf_counter() - START:6.0f} s] {text}", file=sys.stderr, flush=True)


def sampler(params, config, prompts: list[list[int]], samples: int, new_tokens: int) -> Callable:
    """A call of `generate` that draws `samples` for each prompt."""
    key = jax.random.key(0)
    return lambda: generate(params, config, prompts, key, num_samples=samples, max_new_tokens=new_tokens, stop_ids=()).tokens


def peak_memory(config, prompts: list[list[int]], samples: int, new_tokens: int) -> int:
    """Bytes, by XLA's account, of the larger of the two programs of such a call: what reads the prompts, and what draws."""
    layout, P = sharding.make_layout(), padded_length(len(prompts[0]) - 1)
    groups = P + 1, new_tokens, next_power_of_two(len(prompts)), samples
    shape = Shape.of_groups(*groups, devices=layout.batch_shards)
    programs = engine_programs(layout, config, shape, SamplingParams(1.0, ()))
    (level,) = shape.levels(shape.split(shape.max_prompt))
    accounts = (program.lower().compile().memory_analysis() for program in (programs.chunk, programs.trunks(level)))
    return max(
        a.argument_size_in_bytes + a.output_size_in_bytes - a.alias_size_in_bytes + a.temp_size_in_bytes for a in accounts
    )


class Rival:
    """A sampler of another library in its own process."""

    def __init__(self, name: str, python: str, checkpoint: pathlib.Path):
        script = pathlib.Path(__file__).with_name("rival_samplers.py")
        command = [python, str(script), name, str(checkpoint)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def introduce(self, expected: np.ndarray) -> dict:
        """Its version, and how far its logits after `CHECK_PROMPT` are from the expected ones."""
        hello = self._answer()
        difference = float(np.abs(np.array(hello["logits"]) - expected).max())
        if difference > 1e-3:
            raise RuntimeError(f"another model: its logits differ by {difference:.1g}")
        return {"version": hello["version"], "logits_differ_by": difference}

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"ended with status {self._process.wait()}")
        return json.loads(line)

    def seconds(self, prompt: list[int], samples: int, new_tokens: int) -> float:
        """Seconds it took to draw the samples, by its own clock."""
        request = {"prompt": prompt, "samples": samples, "new_tokens": new_tokens}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def installed(name: str, python: str) -> bool:
    """Whether that interpreter can import the library."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    return subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def against(params, config, length: int, way: str, python: str, checkpoint: pathlib.Path) -> dict:
    """Pairs of ours and another way for 32 samples of 64 tokens; or {"note"} that says why there are none."""
    (prompt,) = make_prompts(config, length, 1)
    ours = sampler(params, config, [prompt], MOST, COMPLETION)
    note, rival = {}, None
    if way == "repeated":
        needed = peak_memory(config, [prompt] * MOST, 1, COMPLETION)
    else:
        # Both hold the scores of a whole layer, and while they are capped, masked and normalised, once more.
        needed = 2 * 4 * MOST * config.num_heads * length * (length + COMPLETION)
        if not installed(way, python):
            return {"note": "not installed"}
    if needed > 0.8 * available_memory():
        return {"note": f"needs {needed / 1e9:.0f} GB"}
    try:
        if way == "repeated":
            theirs = functools.partial(seconds_of, sampler(params, config, [prompt] * MOST, 1, COMPLETION))
        else:
            expected = np.asarray(models.logits(params, config, np.array([CHECK_PROMPT]))[0, -1])
            rival = Rival(way, python, checkpoint)
            note = rival.introduce(expected)
            theirs = functools.partial(rival.seconds, prompt, MOST, COMPLETION)
        seconds_of(ours), theirs()
        pairs = []
        for number in range(PAIRS):
            progress(f"{length} tokens: pair {number + 1} with {WAYS[way]}")
            pairs.append((seconds_of(ours), theirs()))
    except RuntimeError as error:
        return note | {"note": str(error)}
    finally:
        if rival:
            rival.close()
    mine, other = np.array(pairs).T
    medians = {"ours": float(np.median(mine)), "theirs": float(np.median(other)), "ratio": float(np.median(other / mine))}
    return note | medians | {"pairs": pairs}
