"""Datasets of ArrayRecord files: what was written is read back, in its order, all of it or nothing is there."""

import pytest

from spct_jax.data import build
from spct_jax.data.comparison import Comparison
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records
from spct_jax.data.kinds import COMPARISONS, DEMONSTRATIONS
from spct_jax.data.sources import open_source
from spct_jax.errors import InputError


def comparison(number, id=None):
    turns = [{"role": "user", "content": f"\u00fcber {number}\u2028?"}]
    return Comparison(conversation=turns, responses=(f"a {number}", "b"), scores=(1, 0.5), id=id or f"id {number}")


def records_of(values):
    return Records(values.__getitem__, range(len(values)), "s", str)


def read(to, split, kind=COMPARISONS):
    return list(open_source(f"tfds:{to.name}:{split}", kind, data_dir=str(to.parent))[0])


def test_what_is_written_is_read_back_in_its_order(tmp_path):
    to, train, test = tmp_path / "mine", [comparison(i) for i in range(50)], [comparison(50)]
    assert build.build({"train": records_of(train), "test": records_of(test)}, to, shards=3) == {"train": 50, "test": 1}
    assert read(to, "train") == train and read(to, "test") == test
    names = sorted(path.name for path in (to / "1.0.0").iterdir())
    assert names == ["dataset_info.json", "features.json", "mine-test.array_record-00000-of-00001"] + [
        f"mine-train.array_record-0000{i}-of-00003" for i in range(3)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and [path.name for path in to.iterdir()] == ["1.0.0"]


def test_demonstrations_are_written_too(tmp_path):
    shown = [Demonstration([{"role": "user", "content": f"say {i}"}], (f"said {i}", "no")) for i in range(3)]
    build.build({"train": records_of(shown)}, tmp_path / "shown")
    assert read(tmp_path / "shown", "train", DEMONSTRATIONS) == shown


def test_half_a_character_is_written_and_read_back(tmp_path):
    half = Comparison(conversation=[{"role": "user", "content": "\ud83d?"}], responses=("\ude00", "\u00fc"), id="\udcff")
    build.build({"train": records_of([half, comparison(1)])}, tmp_path / "mine", description="Written from \udcff.jsonl.")
    assert read(tmp_path / "mine", "train") == [half, comparison(1)]


def test_an_id_that_is_taken_is_changed(tmp_path):
    build.build({"train": records_of([comparison(0, "2"), comparison(1, "2"), comparison(2)])}, tmp_path / "mine")
    assert [c.id for c in read(tmp_path / "mine", "train")] == ["2", "2 (record 2)", "id 2"]


def test_nothing_is_left_of_a_dataset_that_could_not_be_written(tmp_path):
    def make(number):
        if number == 30:
            raise InputError("f.jsonl:31: bad")
        return comparison(number)

    with pytest.raises(InputError, match="f.jsonl:31: bad"):
        build.build({"train": Records(make, range(40))}, tmp_path / "mine")
    with pytest.raises(InputError, match="'test' would be empty"):
        build.build({"train": records_of([comparison(0)]), "test": records_of([])}, tmp_path / "mine")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["Mine", "my-data", "1st", "a.b"])
def test_a_directory_must_have_the_name_of_a_dataset(tmp_path, name):
    with pytest.raises(InputError, match="no name of a dataset"):
        build.build({"train": records_of([comparison(0)])}, tmp_path / name)


def test_what_exists_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    with pytest.raises(InputError, match="exists already"):
        build.build({"train": records_of([comparison(0)])}, tmp_path / "mine")
    assert (tmp_path / "mine" / "x").read_text() == "x"


def test_a_dataset_that_lost_rows_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_shards", lambda *_, whole=build._shards: {n: s[:-1] for n, s in whole(*_).items()})
    with pytest.raises(InputError, match="50 records were written to train, 25 can be read, 25 are described"):
        build.build({"train": records_of([comparison(i) for i in range(50)])}, tmp_path / "mine", shards=2)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("format", "reason"), [("parquet", "loses rows"), ("tfrecord", "needs TensorFlow"), ("x", "not known")]
)
def test_other_formats_are_refused_with_the_reason(format, reason):
    with pytest.raises(InputError, match=f"--format={format}: .*{reason}.*; use array_record"):
        build.check_format(format)
    build.check_format("array_record")
