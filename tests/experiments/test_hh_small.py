import gzip
import importlib
import json
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

from spct_jax.data.comparison import Comparison
from spct_jax.data.sources import read_comparisons, read_demonstrations
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm import parse
from spct_jax.grm.template import load_template

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments" / "studies"


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        yield importlib.import_module("readers"), importlib.import_module("hh_small")
    finally:
        sys.path.remove(str(EXPERIMENTS))


@pytest.fixture(scope="module")
def readers(modules):
    return modules[0]


@pytest.fixture(scope="module")
def hh_small(modules):
    return modules[1]


def transcript(*said):
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(said))


def record(chosen, rejected, *before):
    return {"chosen": transcript(*before, chosen), "rejected": transcript(*before, rejected)}


def write(path, *records):
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


NOUNS = ("boat", "cake", "tent", "kite", "drum", "lamp", "sofa", "vase", "door", "sock")
PLACES = ("harbour", "market", "garden", "attic", "school", "forest")


def world(count):
    """Invented pairs: the preferred response is the kind one, most often the longer."""
    for i in range(count):
        rng = random.Random(i)
        noun, place = rng.choice(NOUNS), rng.choice(PLACES)
        kind = f"Sure, I am glad to help. Carry the {noun} to the {place}, then rest for {i} minutes."
        more = "" if i % 5 else " Or throw it away, whatever you like, it is all the same to me."
        curt = f"Leave the {noun} there.{more}"
        yield record(kind, curt, f"Question {i}: how do I move a {noun} to the {place}?")


@pytest.fixture(scope="module")
def pairs(readers, tmp_path_factory):
    return readers.read_pairs(write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", *world(400)))[0]


def test_pair(readers):
    made = readers.pair(record(" yes\n", "no", "hi ", "hello", "well?\n\nplease"), "f:1")
    assert [(t.role, t.content) for t in made.conversation] == [
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "well?\n\nplease"),
    ]
    assert sorted(made.responses) == ["no", "yes"] and made.responses[made.best] == "yes"


def test_split_at_the_last_common_turn_even_when_responses_begin_alike(readers):
    made = readers.pair(record("same start, then this", "same start, then that", "q"), "f:1")
    assert sorted(made.responses) == ["same start, then that", "same start, then this"]


def test_place_of_the_preferred_response_varies(pairs):
    assert 0.4 < np.mean([c.best for c in pairs]) < 0.6


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "not JSON"),
        ({"chosen": "x"}, "missing field 'rejected'|does not open"),
        ({"chosen": transcript("q", "a")}, "missing field 'rejected'"),
        ({"chosen": transcript("q", "a"), "rejected": 3}, "rejected is not a string"),
        ({"chosen": transcript("q", "a"), "rejected": "q"}, "rejected does not open"),
        ({"chosen": transcript("q", "a"), "rejected": transcript("r", "a")}, "no turn of the assistant in common"),
    ],
)
def test_malformed_is_named(readers, tmp_path, bad, reason):
    good = record("a", "b", "q")
    path = write(tmp_path / "x.jsonl", good, bad)
    with pytest.raises(InputError, match=rf"x\.jsonl:2: .*({reason})"):
        readers.read_pairs(path)
    read, report = readers.read_pairs(path, on_bad="skip")
    assert len(read) == 1 and (report.read, report.used, sum(report.skipped.values())) == (2, 1, 1)


@pytest.mark.parametrize(
    ("useless", "reason"),
    [
        (record("a", "a", "q"), "identical responses"),
        (record("a", " ", "q"), "empty response"),
        (record("a", "b", " "), "empty turn"),
        (record("a", "b", "p\n\nHuman: q"), "turns do not alternate"),
        ({"chosen": transcript("q", "a"), "rejected": transcript("q", "b", "c")}, "several turns in one response"),
    ],
)
def test_useless_is_counted(readers, tmp_path, useless, reason):
    read, report = readers.read_pairs(write(tmp_path / "x.jsonl", useless, record("a", "b", "q")))
    assert [c.id for c in read] == ["x.jsonl:2"] and report.skipped == {reason: 1}


def test_folder(readers, tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "test.jsonl.gz", record("x", "y", "q"))
    assert [c.id for c in readers.read_pairs(tmp_path)[0]] == ["a/test.jsonl.gz:1", "b/test.jsonl.gz:1"]


@pytest.mark.parametrize("content", [None, "", json.dumps(record("a", "a", "q"))])
def test_nothing_to_read(readers, tmp_path, content):
    if content is not None:
        write(tmp_path / "x.jsonl", content)
    with pytest.raises(InputError, match=str(tmp_path)):
        readers.read_pairs(tmp_path)


def test_continued_conversations_stay_in_one_split(hh_small, readers, pairs):
    assert {hh_small.split_of(c) for c in pairs} == set(hh_small.SPLITS)
    for i, short in enumerate(pairs[:50]):
        opening = short.conversation[0].content
        longer = readers.pair(record("a", "b", opening.upper() + " ", "reply", f"more {i}"), "other:1")
        assert hh_small.split_of(longer) == hh_small.split_of(short)


@pytest.mark.parametrize("name", ["short", "default", "short_no_principles"])
def test_demonstrations_parse_and_follow_the_labels_mostly(hh_small, pairs, name):
    template = load_template(name)
    made, skipped = hh_small.demonstrations(pairs, template)
    assert len(made) + sum(skipped.values()) == len(pairs)
    by_query = {c.query: c for c in pairs}
    right, values = [], set()
    for shown in made:
        comparison = next(c for query, c in by_query.items() if query in shown.turns[0].content)
        first = shown.turns[0].content.index(comparison.responses[comparison.best])
        other = shown.turns[0].content.index(comparison.responses[1 - comparison.best])
        for text in shown.completions:
            assert [part for part in template.parts if f"{part}:" not in text] == []
            scores = parse.parse(text, 2, parts=template.parts)
            right.append((scores[0] > scores[1]) == (first < other))
            values |= set(scores)
    assert 0.6 < np.mean(right) < 0.95 and len(values) >= 6


def test_verdict_says_what_is_true(hh_small):
    shown = Comparison(
        conversation=[{"role": "user", "content": "May I?"}],
        responses=["I'm sorry, please ask someone who knows about it.", "Yes."],
        scores=[1, 0],
        id="x",
    )
    template = load_template("short")
    meets = {c.text: (c.met(*shown.responses), c.met(*shown.responses[::-1])) for c in hh_small.CRITERIA}
    assert meets["kind words"] == (True, False) and meets["more detail"] == (True, False)
    for draw in range(20):
        lines = hh_small.verdict(random.Random(draw), shown, (1, 0), template, 0).splitlines()
        criteria = [line[3:-4] for line in lines[1:4]]
        for line, response in zip(lines[5:7], (1, 0), strict=True):
            told = line.partition(": ")[2].rpartition(" = ")[0]
            assert told == ", ".join(f"{j} {'yes' if meets[c][response] else 'no'}" for j, c in enumerate(criteria, 1))


def test_verdict_without_a_reason(hh_small):
    shown = Comparison(conversation=[{"role": "user", "content": "?"}], responses=["a", "b"], scores=[1, 0])
    assert hh_small.verdict(random.Random(0), shown, (0, 1), load_template("short"), 0) is None


def test_prepare(hh_small, tmp_path, capsys):
    source, config = write(tmp_path / "pairs.jsonl", *world(300), record("a", "a", "q")), hh_small.get_config()
    config.data.vocab_size, config.data.max_prompt = 600, 192
    made, splits = hh_small.prepare(str(source), tmp_path / "run", config)
    assert "read 301, used 300" in capsys.readouterr().out
    files = {name: getattr(made.data, name) for name in hh_small.FILES}
    for name, comparisons in splits.items():
        assert read_comparisons(files[name], need_best=True)[0] == comparisons
    openings = [{c.conversation[0].content for c in comparisons} for comparisons in splits.values()]
    assert sum(map(len, openings)) == len(set.union(*openings)) == 300
    tokenizer = Tokenizer.load(made.data.tokenizer)
    shown = read_demonstrations(files["demonstrations"])[0]
    assert max(len(tokenizer.encode_completion(c)) for d in shown for c in d.completions) <= config.data.max_completion
    assert read_demonstrations(files["general"])[0]

    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "data").iterdir()}
    assert hh_small.prepare(str(source), tmp_path / "run", config) == (made, splits)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run" / "data").iterdir()}
    with pytest.raises(InputError, match="holds a run on other data"):
        hh_small.prepare(str(write(tmp_path / "other.jsonl", *world(20))), tmp_path / "run", config)


def test_long_prompts_are_counted(hh_small, tmp_path, capsys):
    long = record("a fine answer", "a bad answer", "word " * 500)
    config = hh_small.get_config()
    config.data.vocab_size, config.data.max_prompt = 600, 192
    hh_small.prepare(str(write(tmp_path / "pairs.jsonl", *world(200), long)), tmp_path / "run", config)
    assert "1 skipped: prompt longer than 192 tokens" in capsys.readouterr().out


def test_own_files_are_refused(hh_small, tmp_path):
    config = hh_small.get_config()
    config.data.test = "x.jsonl"
    with pytest.raises(InputError, match="config.data.test"):
        hh_small.prepare("nowhere", tmp_path, config)


def test_one_line_errors(tmp_path):
    data, workdir = f"--data={write(tmp_path / 'x.jsonl', {'chosen': 1})}", f"--workdir={tmp_path / 'run'}"
    for arguments, message in (
        ((data, workdir), "x.jsonl:1: chosen is not a string"),
        ((data, workdir, "--config.rl.step=3"), "did you mean --config.rl.steps"),
    ):
        command = [sys.executable, str(EXPERIMENTS / "hh_small.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=EXPERIMENTS.parents[1])
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1
