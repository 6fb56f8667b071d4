"""Peak memory of loading a checkpoint in Hugging Face's layout, on a synthetic one of a few gigabytes.

    python experiments/studies/bench_load.py [--gigabytes=3] [--directory=/tmp/bench_load]

The load runs in a process of its own, whose peak resident memory (less what it had after importing JAX) is compared with
1.5 times the largest shard plus the parameters it returns. Prints a table; exits 1 if the bound does not hold.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import safetensors.numpy
import tqdm

from spct_jax.checkpoints import config_json, hugging_face
from spct_jax.checkpoints.model_kind import ModelKind
from spct_jax.models import sizes
from spct_jax.models.config import ModelConfig

SHARD = 400 * 10**6

LOAD = """
import json, re, sys
import jax
from spct_jax import models

def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

jax.numpy.zeros(1).block_until_ready()
before = memory("VmRSS")
params, config = models.load_hf(sys.argv[1])
jax.block_until_ready(params)
output = sum(x.nbytes for x in jax.tree.leaves(params))
print(json.dumps({"before": before, "after": memory("VmHWM"), "output": output}))
"""


def bytes_of(config: ModelConfig) -> int:
    """Of a model's tensors in float32."""
    return sum(4 * int(np.prod(shape)) for shape in hugging_face.stored_shapes(config).values())


def size_of(gigabytes: float) -> ModelConfig:
    """A Gemma-2 of about that many gigabytes in float32."""
    config = dataclasses.replace(
        sizes.toy(32_000), width=2048, num_heads=8, num_kv_heads=4, head_dim=128, ffw_width=5632, query_scale=128**-0.5
    )
    one, two = (bytes_of(dataclasses.replace(config, num_layers=layers)) for layers in (1, 2))
    layers = max(round((gigabytes * 1e9 - one) / (two - one)) + 1, 2)
    return dataclasses.replace(config, num_layers=layers)


def write(directory: pathlib.Path, config: ModelConfig) -> int:
    """Writes random weights, one shard at a time; returns the bytes of the largest shard."""
    rng = np.random.default_rng(0)
    shards: list[dict] = [{}]
    for name, shape in hugging_face.stored_shapes(config).items():
        if shards[-1] and sum(4 * np.prod(s) for s in shards[-1].values()) + 4 * np.prod(shape) > SHARD:
            shards.append({})
        shards[-1][name] = shape
    for number, members in enumerate(tqdm.tqdm(shards, "writing", unit="shard")):
        tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in members.items()}
        safetensors.numpy.save_file(tensors, directory / f"model-{number:05d}.safetensors")
    (directory / "config.json").write_text(json.dumps(config_json.write_config(config, ModelKind.POLICY, "float32", {})))
    return max(path.stat().st_size for path in directory.glob("*.safetensors"))


def main() -> int:
    """Measures and prints; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--directory", type=pathlib.Path, help="Scratch space; default: a temporary directory.")
    flags = parser.parse_args()
    if flags.directory:
        flags.directory.mkdir(parents=True, exist_ok=True)
    directory = pathlib.Path(tempfile.mkdtemp(dir=flags.directory))
    try:
        largest = write(directory, size_of(flags.gigabytes))
        done = subprocess.run([sys.executable, "-c", LOAD, str(directory)], stdout=subprocess.PIPE, text=True, check=True)
    finally:
        shutil.rmtree(directory)
    found = json.loads(done.stdout)
    peak, bound = found["after"] - found["before"], 1.5 * largest + found["output"]
    rows = {"largest shard": largest, "parameters": found["output"], "peak of the load": peak, "bound": bound}
    for name, value in rows.items():
        print(f"{name:18} {value / 1e9:8.3f} GB")
    print(f"beyond the parameters: {(peak - found['output']) / largest:.2f} x the largest shard (at most 1.5)")
    return int(peak > bound)


if __name__ == "__main__":
    sys.exit(main())
