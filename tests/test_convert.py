"""`python -m spct_jax.convert`."""

import commands
import pytest


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--from=/nowhere", "--to=x", "--format=hf"], "--from=/nowhere: no such directory"),
        (["--from=.", "--to=x", "--format=gguf"], "should be one of <orbax|hf>"),
        (["--from={tmp}", "--to={tmp}/x", "--format=hf"], "neither a model of this library nor"),
        (["--from={tmp}", "--to={tmp}", "--format=hf"], "exists already"),
        (["--from={tmp}", "--to={tmp}/file/x/y", "--format=hf"], "cannot be written, since {tmp}/file is a file"),
        (["--from={tmp}", "--to=s3://bucket/x", "--format=hf"], "--to=s3://bucket/x: a URL"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, flags, said):
    (tmp_path / "file").touch()
    done = commands.completed("spct_jax.convert", *(flag.format(tmp=tmp_path) for flag in flags))
    assert done.returncode == 2
    assert said.format(tmp=tmp_path) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
