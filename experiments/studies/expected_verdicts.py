r"""Verdicts of a finished run's last policy with expected scores: greedy ones, and a few sampled ones of each comparison.

    python experiments/studies/expected_verdicts.py --run=runs/gemma3_270m/grm --input=runs/gemma3_270m/data/test.jsonl \
        --output=runs/gemma3_270m/after

Writes expected_greedy.jsonl and expected_sampled.jsonl, as the judge command does with `--read=expected`, for
`human_report.py`. Critiques are drawn with the settings and in the shapes of the run's evaluation, so that where compiled
programs are kept it has left nearly all that is needed. What such verdicts are worth on a tiny run is what
`expected_scores.py` finds.
"""

import json
import pathlib

from absl import flags

from spct_jax import cli, sharding
from spct_jax.config import POLICIES
from spct_jax.data.jsonl import write_jsonl
from spct_jax.data.sources import read_comparisons
from spct_jax.errors import InputError
from spct_jax.judging.judge import Judge
from spct_jax.judging.options import Options
from spct_jax.judging.verdicts import to_json
from spct_jax.sharding.config import MeshConfig
from spct_jax.storage import files

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string("run", None, "Workdir of the run.", required=True, flag_values=FLAGS)
INPUT = flags.DEFINE_string("input", None, "Comparisons, .jsonl.", required=True, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "Directory for the verdicts.", required=True, flag_values=FLAGS)
K = flags.DEFINE_integer("k", 8, "Sampled verdicts of each comparison; 0: only the greedy one.", 0, flag_values=FLAGS)


def main(_) -> None:
    """Draws and writes."""
    directory, output = pathlib.Path(RUN.value), pathlib.Path(OUTPUT.value)
    config = files.read_json(directory / "config.json")
    policies = [stage for stage in POLICIES if (directory / stage / "summary.json").exists()]
    if not policies:
        raise InputError(f"--run={directory}: no policy has been trained there")
    comparisons = [c for c in read_comparisons(INPUT.value)[0] if c.n > 1]
    sharding.use_devices(MeshConfig(config["mesh"]["cpu_devices"]))
    judge, settings = Judge.load(str(directory / policies[-1])), config["evaluation"]
    shape = config["data"]["max_prompt"], config["data"]["max_completion"]
    files.make_directory(output)
    for kind, k, temperature in (("greedy", 1, 0.0), ("sampled", K.value, settings["temperature"])):
        if not k:
            continue
        verdicts = judge.score(
            comparisons,
            k=k,
            temperature=temperature,
            seed=config["seed"],
            order=settings["order"],
            buckets=(shape,),
            batch_size=settings["slots"] // Options(k=k).branches,
            read="expected",
        )
        write_jsonl(output / f"expected_{kind}.jsonl", map(to_json, verdicts))
        valid = sum(verdict.valid for verdict in verdicts)
        print(
            json.dumps({"verdicts": kind, "comparisons": len(verdicts), "drawn": k * len(verdicts), "valid": valid}), flush=True
        )


if __name__ == "__main__":
    cli.run(main, FLAGS)
