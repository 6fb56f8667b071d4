"""Which lines of its files a process of a run parses, and when: for a test that counts them.

python launch/local.py -- python tests/parsed.py DIRECTORY

DIRECTORY holds the files; every process writes DIRECTORY/parsed-PROCESS.json.
"""

import collections
import copy
import dataclasses
import json
import pathlib

import jax
import numpy as np
import sharded

from spct_jax import config as config_lib
from spct_jax import pipeline, sharding
from spct_jax.data import batches, draws, index
from spct_jax.runtime import distributed
from spct_jax.sampling import Finished, Shape
from spct_jax.training import bucket_choice, buckets, packing, provenance, rollout
from spct_jax.training.fitting import demonstrations

B, G = 4, 2
FILES = ("train", "development", "test", "demonstrations", "general")


def during(function, parsed, lines):
    """The function; what was added to `parsed` while it ran is added to `lines`, too."""

    def counted(*args, **kwargs):
        first = len(parsed)
        result = function(*args, **kwargs)
        lines.extend(parsed[first:])
        return result

    return counted


class FakeEngine:
    """In place of the sampler: completions of one token, the prompt's sum."""

    def __init__(self, layout, params, config, shape, sampling, usage=None, preamble=()):
        pass

    def run(self, requests):
        """One completion of every sample."""
        for request in requests:
            for sample in request.waiting:
                yield Finished(request, sample, [int(sum(request.prompt))], np.zeros(1, np.float32))


def main() -> None:
    """Prepares a run, makes a batch of each kind, and prepares it again."""
    flags = sharded.read_flags(__doc__)
    config = config_lib.tiny()
    config.mesh.cpu_devices, config.data.on_bad = 1, "skip"
    config.data.vocab_size, config.data.max_prompt = 400, 300
    for name in FILES:
        setattr(config.data, name, str(flags.directory / f"{name}.jsonl"))
    sharding.use_devices(config.mesh)
    distributed.initialize(flags.coordinator, flags.num_processes, flags.process_id)

    parsed: list[str] = []
    lines = collections.defaultdict(list)  # part of the work -> the lines parsed in it, file:line

    def read_row(rows, layout, kind, make, number, read_row=index.read_row):
        path, _, line = rows.where(number).rpartition(":")
        parsed.append(f"{pathlib.Path(path).stem}:{line}")
        return read_row(rows, layout, kind, make, number)

    index.read_row, rollout.Engine = read_row, FakeEngine
    for name, part in (("load_dataset", "index"), ("load_tokenizer", "tokenizer"), ("drop_misfits", "survey")):
        setattr(pipeline, name, during(getattr(pipeline, name), parsed, lines[part]))
    run = pipeline.prepare(config, flags.directory / "run")
    shown = {name: during(demonstrations, parsed, lines["survey"])(run, name) for name in ("demonstrations", "general")}
    (judging, _), (general, _) = shown.values()
    examples, size = judging.examples + general.examples, max(judging.sizes.max(), general.sizes.max())
    skipped = sum((collections.Counter(left_out) for _, left_out in shown.values()), collections.Counter())
    chosen = [examples[i] for i in draws.order(0, "sft", len(examples), 0, B)]
    how = packing.Packing(size, run.limits.lengths)
    groups = distributed.fetch(during(packing.pack, parsed, lines["sft"])(run, chosen, how).groups)
    numbers = draws.order(0, "rl", len(run.dataset.train), 0, B)
    drawn, _ = during(rollout.draw, parsed, lines["rl"])(
        run, None, numbers, run.key("rl"), shape=Shape(300, 8, rows=2), samples=G, temperature=1.0
    )

    # Until a stage has begun, the tokenizer is trained anew.
    provenance.begin("sft", run.config, run.workdir, provenance.values(run.config, run.workdir))
    before, report = len(parsed), {"lines": copy.deepcopy(lines), "skipped": skipped}
    again = pipeline.prepare(config, flags.directory / "run")
    for name in shown:
        demonstrations(again, name)
    report["restart"] = len(parsed) == before
    # From here on everything is read, to hold what was made of parts against it.
    limits = {"max_prompt": config.data.max_prompt, "max_completion": config.data.max_completion, "group_size": size}
    whole = batches.pack(*zip(*(e.tokens() for e in chosen), strict=True), **limits)
    report["batch"] = all((np.asarray(a) == b).all() for a, b in zip(vars(groups).values(), vars(whole).values(), strict=True))
    # Where a row goes depends on the lengths of rows that the other process has.
    data = dataclasses.replace(
        run.config.data, buckets=((int(np.median(whole.trunk_lengths)) + 1, config.data.max_completion),)
    )
    table, preamble = bucket_choice.named(data), tuple(chosen[0].tokens()[0][:2])
    whole = batches.pack(*zip(*(e.tokens() for e in chosen), strict=True), **limits, preamble=preamble)
    order, shapes = buckets.arrange(whole.trunk_lengths + 1 - whole.shared, whole.lengths.sum(1), table, size, 2)
    packed = packing.pack(run, chosen, dataclasses.replace(how, micro_batches=2, table=table, preamble=preamble))
    groups = distributed.fetch(packed.groups)
    report["in buckets"] = packed.buckets == shapes and all(
        bool((np.asarray(a) == b[order]).all()) for a, b in zip(*map(jax.tree.leaves, (groups, whole)), strict=True)
    )
    shown = [run.dataset.train[number] for number in numbers]
    prompts = [run.prompter.encode(c, r.order) for c, r in zip(shown, drawn, strict=True)]
    report["drawn"] = (
        [r.id for r in drawn] == [c.id for c in shown]
        and [r.truth for r in drawn] == [c.scores for c in shown]
        and [[c.tolist() for c in r.completions] for r in drawn] == [[[sum(p)]] * G for p in prompts]
    )
    report["wanted"] = [f"train:{c.id}" for c in shown]
    (flags.directory / f"parsed-{flags.process_id}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
