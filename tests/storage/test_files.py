"""Paths, directories that are made whole, and files that grow line by line."""

import os
import pathlib
import stat

import pytest

from spct_jax.storage import files
from spct_jax.storage.append_only import Appended


def test_appended_lines_go_on_after_the_last_whole_one(tmp_path):
    path = tmp_path / "x.jsonl"
    with Appended(path) as file:
        assert file.lines == 0
        file.write({"a": 1})
        file.write({"b": 2})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Appended(path) as file:
            assert file.lines == whole[:cut].count(b"\n")
            for record in [{"a": 1}, {"b": 2}][file.lines :]:
                file.write(record)
        assert path.read_bytes() == whole


def test_a_file_takes_its_name_when_its_content_is_on_the_disk_and_then_the_name_is_too(tmp_path, monkeypatch):
    path, done = tmp_path / "x", []
    fsync, replace = os.fsync, pathlib.Path.replace

    def note_sync(descriptor):
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(pathlib.Path, "replace", lambda self, target: done.append("name") or replace(self, target))
    files.write(path, "new")
    assert done == ["file", "name", "directory"] and path.read_text() == "new"


def test_what_cannot_be_written_is_named_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    for name in ("taken", "none/x"):
        with pytest.raises(OSError) as refused:
            files.write(tmp_path / name, "new")
        assert refused.value.filename == str(tmp_path / name)
    with pytest.raises(KeyError), files.replacing(tmp_path / "x") as file:
        file.write(b"half of it")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
