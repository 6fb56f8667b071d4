"""What a training run says before its first step: wrong input in one line, and what has changed since it began."""

import contextlib
import dataclasses
import functools
import json

import commands
import pytest

from spct_jax import pipeline
from spct_jax.errors import InputError
from spct_jax.grm.template import load_template
from spct_jax.storage import locks
from spct_jax.training import provenance

PAIRS = [{"id": str(i), "query": "Tea?", "responses": ["Yes.", "No."], "scores": [1, 0]} for i in range(4)]


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def demonstrations(length):
    said = [" ".join(str(i * i * j) for j in range(3, 3 + length)) for i in range(300)]
    return [{"turns": [{"role": "user", "content": f"Please say {i}."}], "completions": [text]} for i, text in enumerate(said)]


@pytest.mark.parametrize(
    ("lacks", "said"), [("demonstrations", "a tokenizer is trained on them, and there are none"), ("test", "evaluate needs")]
)
def test_what_a_later_stage_would_lack_is_said_before_the_first_step(lacks, said, micro_config, tmp_path):
    micro_config.stages, data = ("sft", "rl", "evaluate"), micro_config.data
    data.train, data.vocab_size, data.max_prompt = write_lines(tmp_path / "train.jsonl", PAIRS), 320, 400
    if lacks == "test":
        data.demonstrations = write_lines(tmp_path / "shown.jsonl", demonstrations(1))
    with pytest.raises(InputError, match=rf"config\.data\.{lacks}: {said}"):
        pipeline.train(micro_config, tmp_path / "run")
    assert not (tmp_path / "run" / "sft").exists()


VERDICT = "Specific Criteria:\n1. Warmth (weight 2)\nAnalysis:\nNo.\nScores: \\boxed{8, 3}"
OWN = """low: 1
high: 5
parts: Rubric, Verdict
--- response
<<Answer {number}>>
{response}
--- prompt
Write a Rubric and a Verdict.
{conversation}
{responses}
"""
HINTED = OWN.replace("--- prompt", "--- hint\nAnswer {number} is best.\n--- prompt") + "{hint}\n"


@pytest.mark.parametrize(
    ("role", "text", "said"),
    [
        ("template", OWN, "config.prompt.template: .*own.txt has no hint section; .* config.rejection.hinted=False"),
        ("template", HINTED, "config.prompt.template: demonstrations of the toy world have .* from 1 to 10, unlike"),
        ("template", HINTED.replace("high: 5\nparts: Rubric, Verdict\n", ""), "toy world have labelled parts"),
        ("single_template", OWN, "config.prompt.single_template: demonstrations of the toy world have .* from 0 to 1, unlike"),
    ],
)
def test_a_template_that_a_run_cannot_use_is_named(role, text, said, micro_config, tmp_path):
    (tmp_path / "own.txt").write_text(text)
    setattr(micro_config.prompt, role, str(tmp_path / "own.txt"))
    micro_config.data.max_prompt = 400
    with pytest.raises(InputError, match=said):
        pipeline.prepare(micro_config, tmp_path / "run")


def test_no_single_response_is_judged_in_a_range_without_its_truth(micro_config, tmp_path):
    """Every verdict on it would be wrong, and RL would be told so."""
    (tmp_path / "own.txt").write_text(OWN)
    micro_config.prompt.single_template, data = str(tmp_path / "own.txt"), micro_config.data
    alone = {"id": "alone", "query": "Tea?", "responses": ["Yes."], "scores": [1]}
    shown = [*demonstrations(1), demonstrations(1)[0] | {"completions": [VERDICT]}]
    data.demonstrations, data.vocab_size, data.max_prompt = write_lines(tmp_path / "shown.jsonl", shown), 320, 400
    micro_config.stages = ("sft", "rl")
    for name, records in (("pairs", PAIRS), ("mixed", [*PAIRS, alone])):
        data.train = write_lines(tmp_path / f"{name}.jsonl", records)
        run = pipeline.prepare(micro_config, tmp_path / name)
        refused = pytest.raises(InputError, match="config.prompt.single_template: .*own.txt has scores from 1 to 5, but")
        with refused if name == "mixed" else contextlib.nullcontext():
            pipeline.check(run)


@pytest.mark.parametrize(
    ("on_bad", "lengths", "said"),
    [
        ("fatal", (1, 200), r"shown\.jsonl:301: completion is longer than data\.max_completion \(84 tokens\)"),
        ("skip", (200,), r"config\.data\.demonstrations: none of its demonstrations fits \{'completion too long': 300\}"),
        ("skip", (1, 200), None),
    ],
)
def test_demonstrations_that_do_not_fit_are_not_passed_over_in_silence(micro_config, tmp_path, on_bad, lengths, said):
    """Else a cold start might learn from general instructions alone, and from none of the verdicts that it was given."""
    micro_config.stages, data = ("sft",), micro_config.data
    data.train, data.vocab_size, data.max_prompt = write_lines(tmp_path / "train.jsonl", PAIRS), 320, 400
    data.general, data.on_bad = write_lines(tmp_path / "general.jsonl", demonstrations(1)), on_bad
    shown = [record for length in lengths for record in demonstrations(length)]
    data.demonstrations = write_lines(tmp_path / "shown.jsonl", shown)
    run = pipeline.prepare(micro_config, tmp_path / "run")
    with pytest.raises(InputError, match=said) if said else contextlib.nullcontext():
        pipeline.check(run)


ASKED = r"a completion does not end as the template short asks, in a \boxed{..} of scores from 1 to 10 after Scores:"


@pytest.mark.parametrize(
    ("completions", "others", "is_wrong"),
    [
        ([VERDICT], None, False),
        (["Scores: \\boxed{1}", VERDICT + " Indeed."], None, False),
        (["Tea is warm."], "nor does any other", True),
        (["Scores: [8, 3]", "\\boxed{8, 3}", "Scores: \\boxed{11, 3}"], "nor does any other", True),
        ([VERDICT, "Scores: 8, 3"], "nor do 127 others", False),
    ],
)
def test_demonstrations_that_are_no_verdicts_are_noticed_before_they_are_learned(
    completions, others, is_wrong, micro_config, tmp_path, capsys
):
    micro_config.stages, data = ("sft", "rl"), micro_config.data
    data.train, data.vocab_size, data.max_prompt = write_lines(tmp_path / "train.jsonl", PAIRS), 320, 400
    shown = [d | {"completions": [completions[i % len(completions)]]} for i, d in enumerate(demonstrations(1)[:256])]
    data.demonstrations = write_lines(tmp_path / "shown.jsonl", shown)
    run = pipeline.prepare(micro_config, tmp_path / "run")
    capsys.readouterr()
    with pytest.raises(InputError) if is_wrong else contextlib.nullcontext() as raised:
        pipeline.check(run)
    first = 1 if is_wrong else 2
    expected = f"{tmp_path}/shown.jsonl:{first}: {ASKED}; {others} of the 256 demonstrations looked at" if others else ""
    assert (str(raised.value) if is_wrong else capsys.readouterr().err.strip()) == expected


@pytest.mark.parametrize("name", ["development", "test", "demonstrations", "general"])
def test_a_named_file_that_would_not_be_read_is_an_error(name, micro_config, tmp_path):
    setattr(micro_config.data, name, str(tmp_path / "x.jsonl"))
    with pytest.raises(InputError, match=rf"config\.data\.{name}: names a source"):
        pipeline.train(micro_config, tmp_path / "run")


def test_two_processes_do_not_share_a_workdir(micro_config, tmp_path):
    micro_config.stages = ("sft",)
    with locks.locked_directory(tmp_path):
        done = commands.completed("spct_jax.train", f"--workdir={tmp_path}")
        assert done.returncode == 2 and done.stderr == f"error: {tmp_path}: another run is under way in it\n"
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_file_that_changes_between_two_lives_of_a_run_is_named(micro_config, tmp_path):
    def write(name, records):
        return write_lines(tmp_path / name, records)

    data, pairs, shown = micro_config.data, PAIRS, demonstrations(1)
    data.train = data.test = write("pairs.jsonl", pairs)
    data.test, data.demonstrations, data.vocab_size = write("test.jsonl", pairs), write("shown.jsonl", shown), 320
    template = tmp_path / "mine.txt"
    template.write_text(load_template("short").text)
    micro_config.prompt.template, micro_config.evaluation.problems = str(template), 4
    values = functools.partial(provenance.values, provenance.absolute(micro_config), tmp_path / "run")
    provenance.begin("sft", micro_config, tmp_path / "run", values())
    provenance.begin("evaluate", micro_config, tmp_path / "run", values())

    def check(field, stage):
        load_template.cache_clear()
        with pytest.raises(InputError, match=rf"config\.{field}: the content of .* is not that which {stage} began with"):
            provenance.check(micro_config, tmp_path / "run", values())

    provenance.check(micro_config, tmp_path / "run", values())
    write("test.jsonl", pairs[::-1])
    check(r"data\.test", "evaluate")
    write("test.jsonl", pairs)
    provenance.check(micro_config, tmp_path / "run", values())
    template.write_text(template.read_text() + "\n")
    check(r"prompt\.template", "sft")
    write("shown.jsonl", shown[1:])
    check(r"data\.demonstrations", "sft")


def test_a_slip_before_the_first_stage_claims_nothing(micro_config, tmp_path):
    micro_config.stages, slip = ("sft",), dataclasses.replace(micro_config)
    slip.data = dataclasses.replace(micro_config.data, train=str(tmp_path / "trian.jsonl"), vocab_size=500)
    with pytest.raises(InputError, match=r"trian\.jsonl"):
        pipeline.train(slip, tmp_path / "run")
    pipeline.prepare(micro_config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["vocab_size"] == micro_config.data.vocab_size


def test_a_comparison_without_one_best_response_is_named(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"query": "q", "responses": ["a", "b"], "scores": [1, 1]}\n')
    done = commands.completed("spct_jax.train", f"--workdir={tmp_path / 'run'}", f"--config.data.train={path}")
    assert done.returncode == 2 and f"{path}:1: no unique best response" in done.stderr
