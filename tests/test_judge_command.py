"""`python -m spct_jax.judge`: its flags, messages and exit status, and its verdicts on several devices."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import commands
import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from judge_stand_in import MIXED, run, write
from small_judge import comparisons, judge, tokenizer

from spct_jax import checkpoints, models
from spct_jax import judge as command
from spct_jax.errors import InputError

LAUNCHER = pathlib.Path(__file__).parents[1] / "launch" / "local.py"


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("--explain=a --output={tmp}/out.jsonl", 0, "Response 1 wins by 4, 16 to 12; 4 of 4 samples could be read."),
        ("--explain=5 --output={tmp}/out.jsonl", 2, "error: {tmp}/in.jsonl:5: prompt longer than the context"),
        ("--output={tmp}/new.jsonl --checkpoint={tmp}/none", 2, "error: --checkpoint={tmp}/none: no such directory"),
        ("--output={tmp}/new.jsonl --checkpoint={tmp} --k_meta=2", 2, "error: --k_meta and --meta_checkpoint need each other"),
        (
            "--output={tmp}/new.jsonl --checkpoint={tmp} --seed=4294967296",
            2,
            "error: --seed: 4294967296 is not in [0, ",
        ),
        ("--output={tmp}/new.jsonl --checkpoint={tmp} --on_bad=no", 2, "error: flag --on_bad=no"),
    ],
)
def test_the_command(tmp_path, flags, code, message):
    source = write(tmp_path / "in.jsonl", MIXED)
    run(source, tmp_path / "out.jsonl")
    done = commands.completed("spct_jax.judge", f"--input={source}", *flags.format(tmp=tmp_path).split())
    assert done.returncode == code, done.stderr
    assert message.format(tmp=tmp_path) in (done.stderr if code else done.stdout)
    assert code == 0 or done.stderr.count("\n") == 1


@pytest.fixture
def parsed(tmp_path):
    """The command's module, its flags as given and as they were afterwards; the checkpoint is an empty directory."""
    saved = flagsaver.save_flag_values(command.FLAGS)

    def parse(*arguments):
        command.FLAGS(["judge", f"--input={tmp_path}/in.jsonl", f"--checkpoint={tmp_path}", "--template=short", *arguments])
        return command

    yield parse
    flagsaver.restore_flag_values(saved, command.FLAGS)


def test_principles_are_exported_from_an_output_and_only_from_a_file_of_them(tmp_path, parsed, capsys):
    text = "Specific Criteria:\n- tea\nAnalysis:\nx"
    (tmp_path / "out.jsonl").write_text(json.dumps({"id": 1, "samples": [{"text": text, "meta": None}]}) + "\n")
    flags = [f"--output={tmp_path}/out.jsonl", f"--export_principles={tmp_path}/p.jsonl"]
    one = parsed(*flags)
    one.check_export()
    one.export()
    assert json.loads((tmp_path / "p.jsonl").read_text()) == {"id": 1, "principles": "- tea", "samples": ["- tea"]}
    assert "p.jsonl: principles of all verdicts; 0 verdicts without any" in capsys.readouterr().out
    with pytest.raises(InputError, match="--export_principles: --output=- is not a file that can be read again"):
        parsed("--output=-").check_export()
    with pytest.raises(InputError, match="template 'short_no_principles' has no part for principles"):
        parsed(*flags, "--template=short_no_principles").check_export()


@pytest.mark.parametrize("name", ["in", "out", "p"])
def test_principles_are_not_exported_over_what_the_command_uses(tmp_path, parsed, name):
    """By whatever path; an input or verdicts that took hours would be lost."""
    (tmp_path / "link").symlink_to(tmp_path)
    flags = [f"--output={tmp_path}/out.jsonl", f"--principles={tmp_path}/p.jsonl"]
    with pytest.raises(InputError, match=f"=.*/link/{name}.jsonl: would be written over .*/{name}.jsonl, which"):
        parsed(*flags, f"--export_principles={tmp_path}/link/{name}.jsonl").check_export()


def test_a_file_that_exported_principles_could_not_be_read_from_is_refused(tmp_path, parsed):
    with pytest.raises(InputError, match="p.json: the name must end in .jsonl or .jsonl.gz, as --principles reads it"):
        parsed(f"--output={tmp_path}/out.jsonl", f"--export_principles={tmp_path}/p.json").check_export()
    (tmp_path / "p.jsonl").mkdir()
    with pytest.raises(InputError, match="--export_principles=.*/p.jsonl: is a directory"):
        parsed(f"--output={tmp_path}/out.jsonl", f"--export_principles={tmp_path}/p.jsonl").check_export()
    with pytest.raises(InputError, match="none/p.jsonl: not in a directory"):
        parsed(f"--output={tmp_path}/out.jsonl", f"--export_principles={tmp_path}/none/p.jsonl").check_export()


def test_principles_of_other_comparisons_than_those_of_the_input_are_refused(tmp_path, parsed):
    (tmp_path / "in.jsonl").write_text('\n{"query": "q", "responses": ["a"]}\n{"id": "x", "query": "q", "responses": ["a"]}\n')
    one = parsed(f"--output={tmp_path}/out.jsonl", f"--principles={tmp_path}/p.jsonl")
    for given in ("tea", {"x": "tea"}, {"y": "tea", "2": "tea"}):
        one.check_principles({"principles": given})
    for given in ({}, {"y": "tea"}):
        with pytest.raises(InputError, match=r"--principles=.*p.jsonl: holds principles of no comparison in .*in.jsonl$"):
            one.check_principles({"principles": given})


def test_principles_are_among_the_settings_only_if_they_are_given(tmp_path, parsed):
    """By their file and what it holds."""
    plain = parsed().settings_of({"k": 4})
    (tmp_path / "p.txt").write_text("tea")
    given = parsed(f"--principles={tmp_path}/p.txt")
    tea, wifi = (given.settings_of({"k": 4, "principles": text}) for text in ("tea", "wifi"))
    assert "principles" not in plain and tea["principles"].startswith(f"{tmp_path.resolve()}/p.txt (")
    assert tea != wifi and plain == {name: value for name, value in tea.items() if name != "principles"}


def flags_of(directory, output, devices, *flags):
    """Of the command on virtual devices, with a checkpoint and comparisons in a directory."""
    own = [f"--checkpoint={directory}/model", f"--input={directory}/in.jsonl", f"--output={directory}/{output}"]
    return [*own, f"--cpu_devices={devices}", "--k=2", "--temperature=0", "--max_new_tokens=24", *flags]


def run_command(directory, output, devices, *flags, processes=1):
    """`python -m spct_jax.judge`, each process on so many devices: exit status, the texts it wrote, what it said went wrong."""
    command = [sys.executable, "-m", "spct_jax.judge", *flags_of(directory, output, devices, *flags)]
    if processes > 1:
        command = [sys.executable, str(LAUNCHER), f"--processes={processes}", "--restarts=0", "--", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (directory / output).read_text().splitlines()
    return done.returncode, [[s["text"] for s in json.loads(line)["samples"]] for line in lines], done.stderr


def test_the_command_gives_the_same_greedy_verdicts_on_any_mesh(tmp_path):
    """Heads, feed-forward and vocabulary split in two; two processes, each with a model of its own and rows split over the rest
    of its four devices, or with one that is also split along its width over the two devices of both.
    """
    # A fresh model repeats its last token, whatever it has read; this one does not.
    config, rng = (
        dataclasses.replace(judge().models.policy.config, num_heads=4, num_kv_heads=2, tied=False),
        np.random.default_rng(0),
    )
    fresh = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.2, x.shape).astype(x.dtype), fresh)
    checkpoints.save(tmp_path / "model", checkpoints.Model(params, config, tokenizer()))
    shown = [{"id": c.id, "query": c.query, "responses": c.responses} for c in comparisons()[:6]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in shown))
    code, want, error = run_command(tmp_path, "whole.jsonl", 1)
    assert code == 0 and len(want) == 6 and len({text for texts in want for text in texts}) > 6, error
    apart, across = ["--strategy=tensor", "--tensor=2"], ["--strategy=fsdp_tensor", "--tensor=2", "--across_hosts"]
    for devices, flags in ((4, apart), (2, across)):
        code, got, error = run_command(tmp_path, f"{'_'.join(flags)}.jsonl", devices, *flags, processes=2)
        assert code == 0 and got == want, (flags, error)
    split = "(cpu_devices says into how many a CPU is split)"
    for flags, message in (
        (["--strategy=tensor", "--tensor=3"], f"error: 8 devices cannot be arranged in slices=1 and tensor=3 {split}\n"),
        (["--tensor=2"], "error: --tensor: 2 does not go with strategy='data'\n"),
    ):
        done = commands.completed("spct_jax.judge", *flags_of(tmp_path, "none.jsonl", 8, *flags))
        assert (done.returncode, done.stderr, (tmp_path / "none.jsonl").read_text()) == (2, message, "")
