"""Hostile checkpoints, most of those of `experiments/studies/abuse_foreign.py`, through the loading that all commands share."""

import pathlib
import shutil

import jax
import pytest

from spct_jax import checkpoints
from spct_jax.errors import InputError

SLOW = ("40 GB", "arrays", "a bit flipped")
"""Left to the script: read with a timeout and a limit of memory there."""


@pytest.fixture(scope="module")
def abuse(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(request.config.rootpath / "experiments" / "studies")
        import abuse_foreign

        yield abuse_foreign


@pytest.fixture(scope="module")
def sound(abuse, tmp_path_factory):
    """A sound checkpoint of each layout."""
    directory = tmp_path_factory.mktemp("sound")
    abuse.make_layouts(directory)
    return directory


def load(directory: pathlib.Path, tokenizer: pathlib.Path):
    told = {"size": "toy", "tokenizer": str(tokenizer)} if directory.name == "google" else {}
    return checkpoints.load_any(directory, **told)


@pytest.mark.parametrize("layout", ["hf", "ours", "google"])
def test_a_sound_checkpoint_is_loaded(abuse, sound, layout):
    assert jax.tree.leaves(load(sound / layout, sound / "tokenizer.model").params)


@pytest.mark.parametrize("layout", ["hf", "ours", "google"])
def test_hostile_checkpoints_are_refused_in_a_line(abuse, sound, tmp_path, layout):
    failed = {}
    cases = [name for name in abuse.CASES if name.startswith(layout) and not any(word in name for word in SLOW)]
    assert len(cases) > 8
    for name in cases:
        shutil.rmtree(tmp_path / "case", ignore_errors=True)
        shutil.copytree(sound / layout, tmp_path / "case" / layout)
        abuse.CASES[name](tmp_path / "case" / layout)
        try:
            load(tmp_path / "case" / layout, sound / "tokenizer.model")
            failed[name] = "was loaded"
        except InputError as error:
            if "\n" in str(error):
                failed[name] = f"said {error}"
        except Exception as error:
            failed[name] = repr(error)[:300]
    assert failed == {}


def test_what_counts_as_refused(abuse):
    def outcome(code=2, said=("error: x",), seconds=1.0, memory=1):
        return abuse.Outcome(code, list(said), seconds, memory)

    assert outcome().refused and outcome(said=("ours: checkpoint 0 is damaged (x)", "error: y")).refused
    traceback = ("Traceback (most recent call last):", "error: x")
    for other in (
        outcome(0),
        outcome(-6),
        outcome(said=()),
        outcome(said=traceback),
        outcome(seconds=21),
        outcome(memory=1 << 31),
    ):
        assert not other.refused
