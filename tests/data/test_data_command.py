"""`python -m spct_jax.data`: cards of any source, datasets, and one line where something is wrong."""

import json
import os
import pathlib
import subprocess
import sys

import commands
import pytest

from spct_jax.data import draws, fields
from spct_jax.data.config import DataConfig
from spct_jax.data.kinds import COMPARISONS
from spct_jax.data.sources import open_source
from spct_jax.data.tokenizer import train_tokenizer

LONG = "please tell me in a few words what the weather will be like here tomorrow"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The directory, and what every command gave: {"status", "out", "err"}."""
    tmp = tmp_path_factory.mktemp("command")
    rows = [{"query": f"q {i % 40}", "responses": ["a b c", f"d {i % 40}"], "scores": [1, 2]} for i in range(50)]
    lines = [*map(json.dumps, rows), "{", json.dumps({"query": "q", "responses": []})]
    (tmp / "x.jsonl").write_text("\n".join(lines))
    train_tokenizer(["Response 1 is a b c, which\n"] * 50, vocab_size=400).save(tmp / "t.model")
    (tmp / "there").mkdir()
    (tmp / "there" / "file").write_text("")
    source, skip = f"--source=jsonl:{tmp}/x.jsonl", "--on_bad=skip"
    other = [
        {"query": f"{LONG}, {i}" if i < 3 else f"q {i}", "responses": ["a b c", f"d {i}"], "scores": [1, 2]} for i in range(60)
    ]
    (tmp / "y.jsonl").write_text("\n".join(map(json.dumps, other)))
    (tmp / "bench.jsonl").write_text(json.dumps({"query": f"Now {LONG}", "responses": ["a"]}))
    (tmp / "other_bench.jsonl").write_text(json.dumps({"query": "q 50", "responses": ["a"]}))
    cleaned = ["--deduplicate", f"--decontaminate={tmp}/bench.jsonl", f"--decontaminate={tmp}/other_bench.jsonl"]
    wanted = {
        "card": [source, f"--tokenizer={tmp}/t.model", f"--json={tmp}/card.json"],
        "mixture": [f"--source=0.5*toy:test + 0.5*{tmp}/x.jsonl"],
        "demonstrations": ["--source=toy:demonstrations", "--kind=demonstrations"],
        "template": [source, "--template=short"],
        "both": [source, "--tokenizer=a", "--checkpoint=b"],
        "fatal": [source, "--on_bad=fatal"],
        "over a source": [f"--source=1*{tmp}/y.jsonl + 1*{tmp}/[x].jsonl", f"--json={tmp}/there/../x.jsonl"],
        "build": ["build", source, f"--to={tmp}/mine", skip, "--shards=2", "--split=0.6,0.2,0.2", "--deduplicate"],
        "bad build": ["build", source, f"--to={tmp}/other"],
        "no name": ["build", source, f"--to={tmp}/My-set"],
        "exists": ["build", source, f"--to={tmp}/there", skip],
        "parquet": ["build", source, f"--to={tmp}/p", skip, "--format=parquet"],
        "fractions": ["build", source, f"--to={tmp}/p", skip, "--split=0.6,0.6"],
        "no numbers": ["build", source, f"--to={tmp}/p", "--split=a,b"],
        "field": ["build", source, f"--to={tmp}/p", "--fields=x"],
        "card field": [source, "--fields=x"],
        "card in a directory": [source, f"--json={tmp}/there"],
        "field twice": [source, "--fields=query=a,responses=b,query=c"],
        "mixed build": ["build", f"--source=3*{tmp}/x.jsonl + 1*{tmp}/y.jsonl", f"--to={tmp}/mixed", skip, *cleaned],
        "no source": ["build"],
        "no toy": ["--source=toy:tset"],
        "misspelt": ["biuld", source, f"--to={tmp}/p"],
    }
    outcomes = commands.run([{"argv": ["spct_jax.data.__main__", *argv]} for argv in wanted.values()])
    return tmp, dict(zip(wanted, outcomes, strict=True))


def test_a_card_is_printed_and_written(done):
    tmp, outcomes = done
    assert outcomes["card"]["status"] == 0, outcomes["card"]["err"]
    (card,) = json.loads((tmp / "card.json").read_text())["sources"]
    assert (card["records"], card["read"], card["duplicates"], card["unit"]) == (50, 52, 10, "tokens")
    assert card["lengths"]["prompt"]["least"] > card["lengths"]["conversation"]["most"]
    assert f"{tmp}/x.jsonl:51: not JSON" in outcomes["card"]["out"] and "no responses" in outcomes["card"]["out"]


def test_a_mixture_has_a_card_of_every_source(done):
    out = done[1]["mixture"]["out"]
    assert out.startswith("toy:test\n") and "2,000 of 2,000 rows" in out and f"\n{done[0]}/x.jsonl\n" in out
    assert "completions each" in done[1]["demonstrations"]["out"]


def test_a_dataset_is_built_divided_and_read_back(done):
    tmp, outcomes = done
    assert outcomes["build"]["status"] == 0, outcomes["build"]["err"]
    assert "left out: 10 duplicate\n" in outcomes["build"]["out"]
    assert f"--source=tfds:mine:train --data_dir={tmp}" in outcomes["build"]["out"]
    parts = [open_source(f"tfds:mine:{split}", COMPARISONS, data_dir=str(tmp))[0] for split in ("train", "development", "test")]
    assert sorted(c.query for part in parts for c in part) == sorted(f"q {i}" for i in range(40))
    assert len(parts[0]) > len(parts[1]) > 0 < len(parts[2])
    assert [int(c.query[2:]) for c in parts[0]] == sorted(int(c.query[2:]) for c in parts[0])


def test_a_mixture_is_built_without_copies_and_benchmarks_and_draws_what_its_sources_do(done):
    tmp, outcomes = done
    out = outcomes["mixed build"]["out"]
    assert outcomes["mixed build"]["status"] == 0, outcomes["mixed build"]["err"]
    for said in ("10 duplicate (of ", "37 duplicate (of ", "4 stands in a benchmark (of train)", f"{tmp}/mixed/dropped.jsonl"):
        assert said in out
    mixture = "3*tfds:mixed:train_1 + 1*tfds:mixed:train_2"
    assert f"to train on: --config.data.train='{mixture}' --config.data.data_dir={tmp}\n" in out
    dropped = [json.loads(line) for line in (tmp / "mixed" / "dropped.jsonl").read_text().splitlines()]
    benchmarks = [line["item"]["benchmark"] for line in dropped if "item" in line]
    assert len(dropped) == 51 and benchmarks == [f"{tmp}/bench.jsonl"] * 3 + [f"{tmp}/other_bench.jsonl"]

    def drawn(train, kept, **more):
        data = DataConfig(train=train, on_bad="skip", **more)
        (tmp / kept).mkdir()

        def open_one(source, kind, on_bad, name):
            return open_source(source, kind, on_bad=on_bad, directory=tmp / kept, name=name, data_dir=data.data_dir)

        records = fields.load(data, open_one, tmp / kept)[0]["train"]
        return [records[i].responses for i in draws.order(0, "rl", len(records), 0, 500, records.shares)]

    benches = (f"{tmp}/bench.jsonl", f"{tmp}/other_bench.jsonl")
    of_sources = drawn(f"3*{tmp}/x.jsonl + 1*{tmp}/y.jsonl", "sources", deduplicate=True, decontaminate=benches)
    assert drawn(mixture, "built", data_dir=str(tmp)) == of_sources


def test_a_build_that_is_told_to_end_leaves_nothing(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"query": "q", "responses": ["a", "b"], "scores": [1, 0]}) + "\n")
    for name in ("stub", "scratch", "out"):
        (tmp_path / name).mkdir()
    stub = "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(9)\n"
    (tmp_path / "stub" / "tensorflow_datasets.py").write_text(stub)  # imported when there are scratch directories
    path = f"{tmp_path}/stub{os.pathsep}{pathlib.Path(__file__).parents[2]}"
    command = [sys.executable, "-m", "spct_jax.data", "build", "--source=x.jsonl", "--to=out/mine"]
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": f"{tmp_path}/scratch"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (143, "")
    assert not any((tmp_path / "scratch").iterdir()) and not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("template", "--template needs --tokenizer or --checkpoint"),
        ("both", "--tokenizer and --checkpoint both name a tokenizer"),
        ("fatal", "x.jsonl:51: not JSON"),
        ("over a source", "x.jsonl: would be written over"),
        ("bad build", "x.jsonl:51: not JSON"),
        ("no name", "My-set: 'My-set' is no name of a dataset (small letters, digits and _ after a letter)"),
        ("exists", "there: exists already"),
        ("parquet", "--format=parquet: tensorflow-datasets writes it but loses rows"),
        ("fractions", "--split: (0.6, 0.6) is not (train, development, test)"),
        ("no numbers", "--split=a,b: not numbers"),
        ("field", "--fields: 'x' does not say OURS=THEIRS"),
        ("card field", "--fields: 'x' does not say OURS=THEIRS"),
        ("card in a directory", "there: is a directory"),
        ("field twice", "--fields: 'query=a' is one of 2 names for query"),
        ("no source", "error: --source and --to must be given\n"),
        ("no toy", "toy:tset: the toy world has no 'tset' (train, development, test, demonstrations, general)"),
        ("misspelt", "unknown command 'biuld'; use 'build', or none"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(done, name, message):
    tmp, outcomes = done
    assert outcomes[name]["status"] == 2 and message in outcomes[name]["err"]
    assert outcomes[name]["err"].startswith("error: ") and outcomes[name]["err"].count("\n") == 1
    assert not (tmp / "p").exists() and not (tmp / "other").exists()
