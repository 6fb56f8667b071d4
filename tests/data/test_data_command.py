"""`python -m spct_jax.data`: cards of any source, datasets, and one line where something is wrong."""

import json

import commands
import pytest

from spct_jax.data.kinds import COMPARISONS
from spct_jax.data.sources import open_source
from spct_jax.data.tokenizer import train_tokenizer


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
    wanted = {
        "card": [source, f"--tokenizer={tmp}/t.model", f"--json={tmp}/card.json"],
        "mixture": [f"--source=0.5*toy:test + 0.5*{tmp}/x.jsonl"],
        "demonstrations": ["--source=toy:demonstrations", "--kind=demonstrations"],
        "template": [source, "--template=short"],
        "both": [source, "--tokenizer=a", "--checkpoint=b"],
        "fatal": [source, "--on_bad=fatal"],
        "build": ["build", source, f"--to={tmp}/mine", skip, "--shards=2", "--split=0.6,0.2,0.2", "--deduplicate"],
        "bad build": ["build", source, f"--to={tmp}/other"],
        "exists": ["build", source, f"--to={tmp}/there", skip],
        "parquet": ["build", source, f"--to={tmp}/p", skip, "--format=parquet"],
        "fractions": ["build", source, f"--to={tmp}/p", skip, "--split=0.6,0.6"],
        "mixed build": ["build", f"--source=1*{tmp}/x.jsonl + 1*toy:", f"--to={tmp}/p"],
        "no source": ["build", f"--to={tmp}/p"],
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
    assert "left out: 10 copies of earlier records" in outcomes["build"]["out"]
    assert f"--source=tfds:mine:train --data_dir={tmp}" in outcomes["build"]["out"]
    parts = [open_source(f"tfds:mine:{split}", COMPARISONS, data_dir=str(tmp))[0] for split in ("train", "development", "test")]
    assert sorted(c.query for part in parts for c in part) == sorted(f"q {i}" for i in range(40))
    assert len(parts[0]) > len(parts[1]) > 0 < len(parts[2])
    assert [int(c.query[2:]) for c in parts[0]] == sorted(int(c.query[2:]) for c in parts[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("template", "--template needs --tokenizer or --checkpoint"),
        ("both", "--tokenizer and --checkpoint both name a tokenizer"),
        ("fatal", "x.jsonl:51: not JSON"),
        ("bad build", "x.jsonl:51: not JSON"),
        ("exists", "there: exists already"),
        ("parquet", "--format=parquet: tensorflow-datasets writes it but loses rows"),
        ("fractions", "--split=0.6,0.6: not three fractions"),
        ("mixed build", "build a dataset of each of its sources"),
        ("no source", "--source"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(done, name, message):
    tmp, outcomes = done
    assert outcomes[name]["status"] == 2 and message in outcomes[name]["err"]
    assert outcomes[name]["err"].startswith("error: ") and outcomes[name]["err"].count("\n") == 1
    assert not (tmp / "p").exists() and not (tmp / "other").exists()
