"""What the flags of a judge become."""

import contextlib
import dataclasses
import importlib.util
import json

import pytest
from absl import flags

from spct_jax.errors import InputError
from spct_jax.judging.flags import CHOICE_TEMPLATES, JudgeFlags
from spct_jax.models import sizes


def parsed(*arguments):
    values = flags.FlagValues()
    judge = JudgeFlags(values)
    values(["judge", *arguments])
    return judge


def test_how_scores_are_read_is_among_the_settings_only_if_it_is_not_as_before():
    usual, expected = parsed(), parsed("--read=expected")
    assert usual.options(k=4)["read"] == "sampled" and "read" not in usual.settings(usual.options(k=4))
    assert expected.settings(expected.options(k=4)) == usual.settings(usual.options(k=4)) | {"read": "expected"}


def test_reading_that_goes_with_nothing_else_is_refused():
    with pytest.raises(InputError, match="^--read='expected' and mode='choice' exclude each other"):
        parsed("--read=expected", "--mode=choice").options(k=4)
    with pytest.raises(InputError, match="^--adaptive and read='expected' exclude each other"):
        parsed("--read=expected").options(k=4, adaptive=0.1)


def test_a_template_that_names_the_best_response_needs_a_mode_that_reads_one():
    for name in CHOICE_TEMPLATES:
        assert parsed(f"--template={name}", "--mode=choice").options(k=4)["mode"] == "choice"
        with pytest.raises(InputError, match=f"^--template={name} names the best response, which --mode=choice reads"):
            parsed(f"--template={name}", "--read=expected").options(k=4)


def test_the_batch_size_is_a_number_or_left_to_the_memory_of_the_devices():
    for given, rows in ((), 0), (("--batch_size=auto",), 0), (("--batch_size=24",), 24):
        judge = parsed(*given)
        assert judge.options(k=4)["batch_size"] == rows and "batch_size" not in judge.settings(judge.options(k=4))
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(flags.IllegalFlagValueError, match=f"--batch_size={wrong}: neither auto nor a number of rows"):
            parsed(f"--batch_size={wrong}")


@pytest.mark.parametrize(("kind", "draws"), [("policy", True), ("cloud", True), ("btrm", False), ("pairrm", False)])
def test_the_longest_critique_is_held_against_the_positions_of_a_model_that_writes_some(tmp_path, kind, draws):
    card = dataclasses.asdict(dataclasses.replace(sizes.toy(), max_positions=512)) | {"kind": kind}
    (tmp_path / "model.json").write_text(json.dumps(card))
    judge = parsed(f"--checkpoint={tmp_path}")
    with pytest.raises(InputError, match="leave no room for a prompt") if draws else contextlib.nullcontext():
        judge.options()


def test_a_wording_for_the_meta_rm_needs_one_and_is_among_the_settings_only_if_it_is_given():
    with pytest.raises(InputError, match="^--meta_template is for a meta reward model; give --meta_checkpoint$"):
        parsed("--meta_template=deepseek_grm_meta").options(k=4)
    assert "meta_template" not in parsed().settings({}) and parsed("--meta_template=x").settings({})["meta_template"] == "x"


def test_int8_is_among_the_settings_only_if_it_is_asked_for_and_needs_qwix(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "quantize" not in parsed().settings({}) and parsed("--quantize=int8").settings({})["quantize"] == "int8"
    with pytest.raises(InputError, match=r"^--quantize=int8 needs qwix: pip install 'spct_jax\[quantize\]'$"):
        parsed("--quantize=int8").options()
