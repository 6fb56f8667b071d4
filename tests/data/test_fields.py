"""What the fields of a configuration make of sources: mixtures, copies, benchmarks and splits together."""

import json

import pytest

from spct_jax import config as config_lib
from spct_jax.data import fields, sources
from spct_jax.data.config import DataConfig
from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError

LONG = "please tell me in a few words what the weather will be like here tomorrow"


@pytest.fixture
def paths(tmp_path):
    """A: 40 prompts, the last two the first two again. B: 20 prompts, half of them A's. bench: one of A's, and one of B's."""

    def write(name, records):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(tmp_path / name)

    def record(query, source):
        return {"id": f"{source} {query}", "query": query, "responses": ["yes", "no"], "scores": [0, 1]}

    a = [record(f"question {i % 38}", "a") | {"id": f"a{i}"} for i in range(40)]
    b = [record(f"question {2 * i}", "b") for i in range(10)] + [record(f"{LONG}, {i}", "b") for i in range(10)]
    asked = [f"{LONG}, {i}" if i < 2 else f"say {i}" for i in range(5)]
    shown = [{"turns": [{"role": "user", "content": text}], "completions": ["x"]} for text in asked]
    bench = [{"query": "Question 7!", "responses": ["a"]}, {"query": f"Now {LONG}", "responses": ["b"]}]
    named = {"a": a, "b": b, "shown": shown, "bench": bench}
    return {name: write(f"{name}.jsonl", records) for name, records in named.items()}


def load(tmp_path, **data):
    (tmp_path / "data").mkdir(exist_ok=True)

    def open_source(source, kind, on_bad, name):
        return sources.open_source(source, kind, on_bad=on_bad, directory=tmp_path / "data", name=name)

    return fields.load(DataConfig(**data), open_source, tmp_path / "data")


def dropped(tmp_path):
    return [json.loads(line) for line in (tmp_path / "data" / "dropped.jsonl").read_text().splitlines()]


def test_a_mixture_is_read_without_copies_and_divided(tmp_path, paths):
    a, b = paths["a"], paths["b"]
    found, reports = load(tmp_path, train=f"0.9*{a} + 0.1*{b}", deduplicate=True, split=(0.6, 0.2, 0.2))
    prompts = [{c.query for c in found[split]} for split in fields.SPLITS]
    assert all(prompts) and sum(map(len, prompts)) == len(set.union(*prompts)) == 48
    assert found["train"].shares.weights == (0.9, 0.1)
    assert [c.id[0] for c in found["test"]] == ["ab"[source] for source in found["test"].shares.sources]
    assert reports[a] == ReadReport(read=40, used=38, skipped={"duplicate": 2})
    assert reports[b] == ReadReport(read=20, used=10, skipped={"duplicate": 10})
    assert [reports[split].used for split in fields.SPLITS] == [len(found[split]) for split in fields.SPLITS]
    lines = dropped(tmp_path)
    assert len(lines) == 12 and lines[0] == {
        **{"field": "train", "id": "a38", "where": f"{a}:39", "reason": "duplicate"},
        **{"of": {"id": "a0", "where": f"{a}:1"}, "same_best": True},
    }


def test_what_is_trained_on_holds_nothing_of_a_benchmark_and_the_test_set_is_left_alone(tmp_path, paths):
    found, reports = load(tmp_path, train=paths["a"], test=paths["b"], general=paths["shown"], decontaminate=(paths["bench"],))
    assert [len(found[field]) for field in fields.KINDS] == [39, 0, 20, 0, 3]
    assert reports[paths["a"]].skipped == {"stands in a benchmark": 1} and reports[paths["a"]].used == 39
    assert [(line["field"], line["item"]["where"]) for line in dropped(tmp_path)] == [
        ("train", f"{paths['bench']}:1"),
        ("general", f"{paths['bench']}:2"),
        ("general", f"{paths['bench']}:2"),
    ]


def test_what_is_dropped_is_told_once_and_again_when_it_changes(tmp_path, paths):
    load(tmp_path, train=paths["a"], deduplicate=True)
    path = tmp_path / "data" / "dropped.jsonl"
    written = path.stat().st_ino
    load(tmp_path, train=paths["a"], deduplicate=True)
    assert path.stat().st_ino == written and len(dropped(tmp_path)) == 2
    load(tmp_path, train=paths["b"], deduplicate=True)
    assert not dropped(tmp_path)


def test_one_source_as_it_is_has_one_report(tmp_path, paths):
    found, reports = load(tmp_path, train=paths["a"], demonstrations=paths["shown"])
    assert {name: report.used for name, report in reports.items()} == {paths["a"]: 40, paths["shown"]: 5}
    assert len(found["train"]) == 40 and found["train"].shares is None and not dropped(tmp_path)


def test_a_source_of_two_fields_has_a_report_for_each(tmp_path, paths):
    a, b = paths["a"], paths["b"]
    _, reports = load(tmp_path, train=f"0.9*{a} + 0.1*{b}", development=b, test=a, deduplicate=True)
    assert reports[f"{b} in train"] == ReadReport(read=20, used=10, skipped={"duplicate": 10})
    assert reports[f"{b} in development"] == ReadReport(read=20, used=20)
    assert reports[f"{a} in train"] == reports[f"{a} in test"] == ReadReport(read=40, used=38, skipped={"duplicate": 2})
    assert fields.report_name(DataConfig(train="x.jsonl", test=a, development=a), "test") == f"{a} in test"


def test_what_cannot_be_is_named(tmp_path, paths):
    with pytest.raises(InputError, match=r"names .*a.jsonl twice"):
        load(tmp_path, train=f"1*{paths['a']} + 2*{paths['a']}")
    with pytest.raises(InputError, match="0.x: the weight 0 is"):
        load(tmp_path, train=paths["a"], general="0*x")
    with pytest.raises(InputError, match=r"a.jsonl: nothing is left of it"):
        load(tmp_path, train=paths["a"], decontaminate=(paths["a"],))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"split": (0.9, 0.1, 0.0)}, "split: is for files"),
        ({"deduplicate": True}, "deduplicate: is for files"),
        ({"train": "a", "split": (0.9, 0.1)}, "is not .train, development, test."),
        ({"train": "a", "split": (0.9, 0.2, 0.1)}, "with the sum 1"),
        ({"train": "a", "split": (0.0, 0.5, 0.5)}, "the first above 0"),
        ({"train": "a", "test": "b", "split": (0.9, 0.0, 0.1)}, "data.test: has a source of its own"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(data, message):
    config = config_lib.tiny()
    config.data = DataConfig(**data)
    with pytest.raises(InputError, match=message):
        config_lib.validate(config)
