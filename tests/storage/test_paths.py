"""What a string becomes as a path."""

import pathlib

import pytest

from spct_jax.errors import InputError
from spct_jax.storage import paths


@pytest.mark.parametrize(
    "text", ["s3://x/y", "file:///x", "gs:/x", "gs://", "gs:///x", "gs://Bucket!/x", "gs://bkt/a/../b", "", "a\0b"]
)
def test_what_can_be_no_path_is_refused_by_name(text):
    with pytest.raises(InputError, match="^--to="):
        paths.parse(text, "--to")


@pytest.mark.parametrize("text", ["gs://", "gs:///x", "gs://Bucket!/x"])
def test_what_names_no_bucket_is_not_asked_for(text):
    with pytest.raises(InputError, match="not the name of anything in a bucket"):
        paths.of(text)


def test_a_relative_path_is_made_absolute_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.parse("x/y", "--to") == tmp_path / "x" / "y"
    assert paths.parse(tmp_path, "--to") == tmp_path


@pytest.mark.parametrize("name", ["/gs/x", "/s3/x", "/hf/x"])
def test_a_local_directory_named_like_a_scheme_is_local(name):
    assert paths.of(name) == pathlib.Path(name) and not paths.is_remote(name)


def test_a_path_in_a_bucket_keeps_its_name():
    path = paths.parse("gs://bucket/runs/x", "--workdir")
    assert str(path / "y") == "gs://bucket/runs/x/y" and paths.is_remote(path) and paths.absolute(path) == path
