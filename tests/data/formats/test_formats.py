"""Rows of every format are those that were written, each by itself, and what cannot be read is named by file and row."""

import gzip
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds

from spct_jax.data.formats import open_rows
from spct_jax.data.formats import tfds as tfds_rows
from spct_jax.errors import InputError

ROWS = [{"prompt": f"p\u00fc {i}", "scores": [i, 0.5], "turns": [{"role": "user", "content": "c"}], "n": i} for i in range(7)]
TEXT = json.dumps(ROWS)


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path, rows):
    """The rows in the format that the file's name says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=3)
        return path
    content = as_lines(rows) if name.endswith(".jsonl") else json.dumps(rows).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.json.gz", "x.parquet"])
def test_rows_are_those_of_the_file(tmp_path, name, kept):
    path = write(tmp_path / name, ROWS)
    (tmp_path / "kept").mkdir()
    for _ in range(2):
        rows = open_rows(str(path), directory=tmp_path / "kept" if kept else None)
        assert list(rows) == ROWS and len(rows) == 7 and rows[5] == ROWS[5]
        assert rows.default_id(2) == "3"
        assert rows.where(2) == (f"{path}:3" if "jsonl" in name else f"{path}: row 3")
    stamp = rows.stamp
    write(path, ROWS[:2] * 2)
    rows = open_rows(str(path), directory=tmp_path / "kept" if kept else None)
    assert list(rows) == ROWS[:2] * 2 and rows.stamp != stamp


@pytest.mark.parametrize("end", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_files_of_a_pattern_are_read_in_the_order_of_their_names(tmp_path, end):
    for name, part in (("b", ROWS[3:]), ("a", ROWS[:3])):
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"x{end}", part)
    rows = open_rows(f"{tmp_path}/**/*{end}", directory=tmp_path)
    assert list(rows) == ROWS
    assert [rows.default_id(i) for i in (2, 3)] == [f"a/x{end}:3", f"b/x{end}:1"]
    assert rows.where(4).startswith(f"{tmp_path}/b/x{end}:") and rows.where(4).endswith("2")
    with pytest.raises(InputError, match="no file has a name of this form"):
        open_rows(f"{tmp_path}/*/y*")


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ({"a": [{"x": 1}, {"x": 2}], "b": [{"x": 3}]}, [{"key": "a", "x": 1}, {"key": "a", "x": 2}, {"key": "b", "x": 3}]),
        ({"a": {"x": 1}, "b": {"x": 2}}, [{"key": "a", "x": 1}, {"key": "b", "x": 2}]),
        ({"x": [1, 2], "y": ["a", "b"]}, [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]),
        ([], []),
    ],
)
def test_forms_of_a_json_file(tmp_path, value, rows):
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert list(open_rows(f"{tmp_path}/x.json")) == rows


def test_json_lines_in_a_file_named_json(tmp_path):
    (tmp_path / "x.json").write_bytes(as_lines(ROWS))
    assert list(open_rows(f"{tmp_path}/x.json")) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b"[1, {}", r"x.json:1: not JSON \(Expecting ',' delimiter at column 7\)"),
        ("x.json", b'[\n{"a": 1, "a": 2}]', r"x.json: repeated key \('a'\)"),
        ("x.json", b"3", r"x.json: neither an array nor an object \(int\)"),
        ("x.json", b'{"a": [1], "b": [1, 2]}', "x.json: an object, but not of arrays"),
        ("x.json", b'["\xff"]', r"x.json: not UTF-8 \(byte 3\)"),
        ("x.json.gz", gzip.compress(TEXT.encode())[:-9], "x.json.gz: damaged or truncated gzip data"),
        ("x.jsonl.gz", gzip.compress(TEXT.encode())[:-9], r"x.jsonl.gz:\d+: damaged or truncated gzip data"),
        ("x.parquet", TEXT.encode(), "x.parquet: not a parquet file that can be read"),
        ("x.txt", b"", "x.txt: not a kind of file that is known by its name"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_rows(f"{tmp_path}/{name}")


def test_a_file_that_is_not_there_is_missing_whatever_its_name(tmp_path):
    with pytest.raises(InputError, match="/none: no such file or directory"):
        open_rows(str(tmp_path / "none"))


def test_a_parquet_file_that_was_cut_is_named(tmp_path):
    path = write(tmp_path / "x.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="x.parquet: not a parquet file that can be read"):
        open_rows(str(path))


def test_a_row_that_cannot_be_read_is_an_error_of_its_own(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"{}\n\n{\n{}\n")
    (tmp_path / "x.json").write_bytes(b"[{}, 3, {}]")
    for name, message in (("x.jsonl", "x.jsonl:3: not JSON"), ("x.json", r"x.json: row 2: not a JSON object \(int\)")):
        rows = open_rows(f"{tmp_path}/{name}")
        assert len(rows) == 3 and rows[0] == rows[2] == {}
        with pytest.raises(InputError, match=message):
            rows[1]


def test_a_missing_column_is_an_error_of_the_file(tmp_path):
    rows = open_rows(str(write(tmp_path / "x.parquet", ROWS)))
    rows.check_columns(["prompt", "turns"])
    with pytest.raises(InputError, match=r"x.parquet: no column 'chosen' \(it has prompt, scores, turns, n\)"):
        rows.check_columns(["prompt", "chosen"])


def test_files_of_one_source_have_one_format(tmp_path):
    for name in ("x.jsonl", "x.parquet"):
        write(tmp_path / name, ROWS)
    with pytest.raises(InputError, match=r"x.parquet: files of one source must have one format, and .*x.jsonl is jsonl"):
        open_rows(f"{tmp_path}/x.*")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A directory with prepared datasets: `typed` with features of several kinds, `texts` with rows of JSON."""
    features = tfds.features
    directory = tmp_path_factory.mktemp("tfds")
    turn = features.FeaturesDict({"role": features.Text(), "content": features.Text()})
    typed = features.FeaturesDict(
        {
            "prompt": features.Text(),
            "scores": features.Sequence(features.Scalar(np.float64)),
            "turns": features.Sequence(turn),
            "label": features.ClassLabel(names=["no", "yes"]),
        }
    )

    def store(called, kind, rows):
        class Stored(tfds.core.GeneratorBasedBuilder):
            VERSION, name = tfds.core.Version("1.0.0"), called

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=kind)

            def _split_generators(self, _):
                return {"train": enumerate(rows)}

            def _generate_examples(self):
                return iter(())

        Stored(data_dir=directory, file_format="array_record").download_and_prepare()

    store("typed", typed, [{k: row[k] for k in ("prompt", "scores", "turns")} | {"label": row["n"] % 2} for row in ROWS])
    store("texts", features.FeaturesDict({"record": features.Text()}), [{"record": json.dumps(row)} for row in ROWS])
    return str(directory)


def test_a_prepared_dataset_is_read_by_name(datasets):
    rows = open_rows("typed:train", "tfds", data_dir=datasets)
    assert sorted(rows, key=lambda row: row["prompt"]) == [
        {k: row[k] for k in ("prompt", "scores", "turns")} | {"label": ["no", "yes"][row["n"] % 2]} for row in ROWS
    ]
    assert rows.where(1) == "tfds:typed:train: row 2"
    assert len(open_rows("typed:train[:3]", "tfds", data_dir=datasets)) == 3
    with pytest.raises(InputError, match=r"tfds:typed:train: no column 'chosen' \(it has "):
        rows.check_columns(["chosen"])
    with pytest.raises(InputError, match="tfds:typed:test: Unknown split 'test'"):
        open_rows("typed:test", "tfds", data_dir=datasets)
    with pytest.raises(InputError, match="tfds:other:train: Could not find dataset files for: other"):
        open_rows("other:train", "tfds", data_dir=datasets)


def test_rows_of_json_text_in_a_prepared_dataset(datasets):
    rows = open_rows("texts:train", "tfds", data_dir=datasets)
    assert sorted(rows, key=lambda row: row["n"]) == ROWS
    rows.check_columns(["whatever"])


@pytest.mark.parametrize("name", ["typed", "texts"])
def test_rows_are_those_that_tfds_decodes_in_whatever_order_they_are_read(datasets, monkeypatch, name):
    monkeypatch.setattr(tfds_rows, "AHEAD", 3)
    rows = open_rows(f"{name}:train", "tfds", data_dir=datasets)
    builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=datasets)
    decoded = list(builder.as_data_source(split="train"))
    expected = [json.loads(r["record"]) if name == "texts" else tfds_rows._plain(r, builder.info.features) for r in decoded]
    numbers = [*range(len(ROWS)), *reversed(range(len(ROWS))), 0, 1, 2, 5, 6, 1, 2, 3, 4, 5, 0, 2]
    assert [rows[i] for i in numbers] == [expected[i] for i in numbers]


def test_rows_that_cannot_be_read_together_are_read_one_by_one(datasets):
    rows = open_rows("texts:train", "tfds", data_dir=datasets)
    stored = [rows._source[i] for i in range(len(rows))]

    class Damaged:
        def __getitem__(self, index):
            if index == 2:
                raise ValueError("checksum")
            return stored[index]

        def __getitems__(self, indices):
            return [self[i] for i in indices]

        def __len__(self):
            return len(stored)

    rows._source = Damaged()
    assert [rows[0], rows[1]] == [json.loads(rows._parse(x).features.feature["record"].bytes_list.value[0]) for x in stored[:2]]
    with pytest.raises(InputError, match=r"tfds:texts:train: row 3: cannot be read \(checksum\)"):
        rows[2]
    assert rows[3]["n"] in range(len(ROWS)) and len(rows) == len(ROWS)
