"""Peak memory and seconds of the judge on inputs made to exhaust it.

    python experiments/studies/abuse_inputs.py --output=X.json

Each input is judged by the command, with a small random model, in a process of its own:

- `lines`: thirty lines of 4 MB each;
- `control`: three lines of 4 MB of `<bos>`;
- `bomb`: a gzip file of 1.5 MB that holds one line of 1.5 GB;
- `dense`: thirty lines of as many characters as may still fit by their length alone;
- `good`: thirty short comparisons, for comparison.
"""

import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
from absl import flags, logging

from spct_jax import checkpoints, cli, models
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.grm.config import PromptConfig
from spct_jax.models import sizes
from spct_jax.storage import files

MEASURED = """import resource, runpy, sys
try:
    runpy.run_module("spct_jax.judge", run_name="__main__")
finally:
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}", file=sys.stderr)
"""
TEXT = "The quiet hotel has a pool and a garden, ten rooms and wifi in each. "

FLAGS = flags.FlagValues()
OUTPUT = flags.DEFINE_string("output", None, "JSON file of the figures; empty: print only.", flag_values=FLAGS)
ONLY = flags.DEFINE_list("only", None, "Names of inputs; all by default.", flag_values=FLAGS)


def line(text: str) -> bytes:
    """A comparison with a long response."""
    return json.dumps({"query": "Which?", "responses": [text, "the short one", "another", "a fourth"]}).encode() + b"\n"


def make_inputs(directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """Writes the inputs; by name their files."""
    contents = {
        "good": line(TEXT) * 30,
        "lines": line(TEXT * (3_999_000 // len(TEXT))) * 30,
        "control": line("<bos>" * 799_000) * 3,
        "dense": line("\u6f22" * 120_000) * 30,
    }
    paths = {name: directory / f"{name}.jsonl" for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    paths["bomb"] = directory / "bomb.jsonl.gz"
    with gzip.open(paths["bomb"], "wb", compresslevel=9) as file:
        for _ in range(1500):
            file.write(b"a" * 1_000_000)
        file.write(b"\n" + line(TEXT))
    return paths


def make_model(directory: pathlib.Path) -> None:
    """A small random model with a tokenizer."""
    tokenizer = train_tokenizer([TEXT, "Response 1: \\boxed{8, 3}"] * 50, vocab_size=500)
    config = sizes.toy(tokenizer.vocab_size)
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    checkpoints.save(directory, checkpoints.Model(params, config, tokenizer, prompt=PromptConfig()))


def measure(model: pathlib.Path, source: pathlib.Path) -> dict[str, float | str]:
    """Judges one input; its peak resident memory in GB, seconds, and what the command said of it."""
    command = [sys.executable, "-c", MEASURED, f"--checkpoint={model}", f"--input={source}", "--output=-", "--on_bad=skip"]
    begun = time.monotonic()
    done = subprocess.run([*command, "--k=8", "--max_new_tokens=8"], capture_output=True, text=True)
    seconds = time.monotonic() - begun
    said = done.stderr.replace("\r", "\n").splitlines()
    peak = next((int(text.split()[1]) for text in said if text.startswith("peak ")), 0)
    summary = [text.strip() for text in said if " scored, " in text or " x " in text]
    return {"peak_gb": round(peak / 1e6, 2), "seconds": round(seconds, 1), "exit": done.returncode, "said": "; ".join(summary)}


def main(_) -> None:
    """Entry."""
    logging.set_verbosity(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        make_model(directory / "model")
        figures = {}
        for name, path in make_inputs(directory).items():
            if ONLY.value and name not in ONLY.value:
                continue
            figures[name] = {"bytes": os.path.getsize(path)} | measure(directory / "model", path)
            print(name, figures[name], flush=True)
    if OUTPUT.value:
        files.write_json(OUTPUT.value, figures)


if __name__ == "__main__":
    cli.run(main, FLAGS)
