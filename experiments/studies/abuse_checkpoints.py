r"""Flips single bits of the files of a finished run, one at a time, and loads its models again: none may be loaded in silence.

    python experiments/studies/abuse_checkpoints.py --flips=500 --output=docs/results/abuse_checkpoints.md

The run is a miniature of the tiny experiment, trained first. Half of the flips hit any byte of any file of a model directory
(checkpoints, description, tokenizer, templates), half any file and then any byte of it, so that small files are hit too. After
each, the model is loaded as the judge, `convert` and later stages do, and as training goes on from it; then the bit is flipped
back. Exits with 1 where a load gave other parameters, or others of what belongs to a model, and said nothing, or where it ended
in a traceback.
"""

import collections
import contextlib
import io
import pathlib
import random
import sys
import tempfile

import jax
import numpy as np
import tqdm
from absl import flags, logging

from spct_jax import checkpoints, cli, config, pipeline, sharding
from spct_jax.checkpoints import restore, train_state
from spct_jax.errors import InputError
from spct_jax.grm.template import load_template
from spct_jax.storage import files
from spct_jax.training import optimizers

OUTCOMES = ("refused", "passed over", "equal", "SILENT", "TRACEBACK")
"""An error in one line; an earlier step read and said so; everything as before; other values without a word; a bug."""

FLAGS = flags.FlagValues()
FLIPS = flags.DEFINE_integer("flips", 500, "How many bits are flipped.", lower_bound=1, flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", 0, "Of the choice of bits.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "abuse_checkpoints.md", "Where the result is written.", flag_values=FLAGS)


def miniature() -> config.Config:
    """Cold start and RL with next to no work in them."""
    made = config.tiny()
    made.stages = ("sft", "rl")
    made.data.toy = config.ToyConfig(train=48, development=16, test=24, demonstrations=64, general=16)
    made.sft.steps, made.sft.batch_size, made.rl.steps, made.rl.batch_size = 3, 8, 3, 8
    made.checkpoint.every_steps = 1
    return made


def kind_of(path: pathlib.Path) -> str:
    """What a file of a model directory is, for the table."""
    parts = path.parts
    if "checkpoints" not in parts:
        return "description, tokenizer, templates"
    newest = parts[parts.index("checkpoints") + 1] == "3"
    what = "arrays" if "d" in parts or "ocdbt.process_0" in parts else "metadata"
    return f"{what} of the {'newest' if newest else 'earlier'} step"


class Loader:
    """Loads a stage's model in every way there is and compares it with what it was."""

    def __init__(self, directory: pathlib.Path, experiment: config.Config):
        self.directory = directory
        layout = sharding.make_layout(experiment.mesh)
        steps_of = getattr(experiment, directory.name)
        optimizer = optimizers.make(steps_of.optimizer, steps_of.steps)
        architecture = checkpoints.read_card(directory)[0]
        target = train_state.abstract_state(layout, checkpoints.abstract_params(architecture), optimizer)
        self.targets = {"params": target.params, "opt_state": target.opt_state}
        self.before = {read.__name__: self.facts(read) for read in (self.as_judge, self.as_training)}

    def as_judge(self):
        """(step, all that belongs to the model)."""
        load_template.cache_clear()
        model = checkpoints.load(self.directory)
        texts = [load_template(path).text for path in vars(model.prompt).values()]
        return model.step, (model.params, [repr(model.config), model.tokenizer.model_proto, model.tokenizer.stop_ids, texts])

    def as_training(self):
        """(step, state and progress)."""
        stored = restore.read_newest(self.directory, self.targets)
        return stored.step, (stored.trees, stored.progress)

    def facts(self, read) -> tuple[int, list]:
        """(step, leaves as bytes or text)."""
        step, tree = read()
        return step, [np.asarray(x).tobytes() if isinstance(x, jax.Array) else repr(x) for x in jax.tree.leaves(tree)]

    def outcome(self, read) -> str:
        """One of `OUTCOMES`."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                step, values = self.facts(read)
        except InputError:
            return "refused"
        except Exception as error:
            print(f"{self.directory}: {type(error).__name__}: {error}", file=sys.stderr)
            return "TRACEBACK"
        if (step, values) == self.before[read.__name__]:
            return "equal"
        return "passed over" if "is damaged" in said.getvalue() and step < self.before[read.__name__][0] else "SILENT"


def flip(path: pathlib.Path, bit: int) -> None:
    """Flips a bit of a file, in place."""
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))


def main(_) -> None:
    """Trains, flips and reports."""
    logging.set_verbosity(logging.FATAL)
    experiment = miniature()
    sharding.use_devices(experiment.mesh)
    rng, counts, ways = random.Random(SEED.value), collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        pipeline.train(experiment, root)
        loaders = {stage: Loader(root / stage, experiment) for stage in experiment.stages}
        patterns = ("checkpoints/**/*", "model.json", "tokenizer.model", "templates/*")
        found = sorted(p for s in loaders for pattern in patterns for p in (root / s).glob(pattern) if p.is_file())
        found = [path for path in found if path.stat().st_size]
        sizes = [path.stat().st_size for path in found]
        for number in tqdm.tqdm(range(FLIPS.value), "flips"):
            path = rng.choices(found, sizes)[0] if number % 2 else rng.choice(found)
            bit = rng.randrange(8 * path.stat().st_size)
            loader = loaders[path.relative_to(root).parts[0]]
            flip(path, bit)
            for read in (loader.as_judge, loader.as_training):
                outcome = loader.outcome(read)
                counts[kind_of(path.relative_to(root)), outcome] += read == loader.as_judge
                ways[read.__name__, outcome] += 1
                if outcome.isupper():
                    print(f"{path.relative_to(root)}, bit {bit}, {read.__name__}: {outcome}", file=sys.stderr)
            flip(path, bit)
    text = report(counts, ways, len(found), sum(sizes))
    files.write(OUTPUT.value, text)
    print(text)
    if any(number and outcome.isupper() for (_, outcome), number in ways.items()):
        sys.exit(1)


def report(counts: collections.Counter, ways: collections.Counter, number: int, size: int) -> str:
    """The tables."""

    def table(rows: collections.Counter, head: str) -> list[str]:
        names = sorted({name for name, _ in rows})
        lines = [f"| {head} | {' | '.join(OUTCOMES)} |", f"| --- |{' --- |' * len(OUTCOMES)}"]
        return lines + [f"| {name} | {' | '.join(str(rows[name, outcome]) for outcome in OUTCOMES)} |" for name in names]

    lines = [
        f"# {FLIPS.value} flips of single bits",
        "",
        f"Command: `python experiments/studies/abuse_checkpoints.py --flips={FLIPS.value} --seed={SEED.value}`;",
        f"{number} files, {size:,} bytes.",
        "",
        "Refused: an error in one line. Passed over: an earlier step is read, and that is said. Equal: every array, the",
        "description, the tokenizer and the templates are those that were saved (nothing uses the bit, or it is of a step that",
        "is not read). Silent: anything is other than it was, and nothing is said.",
        "",
        "Loaded as by the judge, `convert` and later stages, by what was hit:",
        "",
        *table(counts, "bit of"),
        "",
        "By who loads:",
        "",
        *table(ways, "way"),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main, FLAGS)
