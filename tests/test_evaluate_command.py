"""`python -m spct_jax.evaluate`: from a judge, or from recorded votes, to figures and a report."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import commands
import numpy as np
import pod_of_threads
import pytest
import random_judge
from judge_stand_in import RandomJudge, write_llmbar
from shared_data import shared

from spct_jax import evaluate
from spct_jax.errors import InputError
from spct_jax.evaluation import score_files
from spct_jax.judging.flags import JudgeFlags
from spct_jax.runtime import distributed

LAUNCHER = pathlib.Path(__file__).parents[1] / "launch" / "local.py"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
PUBLIC = {"figures.json", "judgebench.jsonl", "report.html", "report.md", "rewardbench.json", "rewardbench_scores.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A directory with a checkpoint, its template and a small LLMBar."""
    directory = tmp_path_factory.mktemp("evaluate")
    random_judge.save(directory)
    write_llmbar(directory / "data")
    return directory


@pytest.fixture
def run(model, monkeypatch):
    """The command in this process, with a stand-in for the judge that the checkpoint would be."""

    def run(output, *more, judge=None, judges=None, data=model / "data", checkpoint=model / "model"):
        """The figures; of several processes, which have one of `judges` each, what ended them."""
        judges = judges or [judge or RandomJudge()]
        monkeypatch.setattr(JudgeFlags, "load", lambda self: judges[distributed.process_index_and_count()[0]])
        given = ["--benchmark=llmbar", f"--output={output}"]
        given += [f"--data={data}"] * bool(data) + [f"--checkpoint={checkpoint}"] * bool(checkpoint)
        evaluate.FLAGS.unparse_flags()
        evaluate.FLAGS(["evaluate", *given, *more])
        if len(judges) > 1:
            return pod_of_threads.run(monkeypatch, len(judges), lambda index: evaluate.evaluate())
        evaluate.evaluate()
        return json.loads((output / "figures.json").read_text())

    return run


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def headline(figures, name, column="paper"):
    return figures["measures"][name]["table"]["all"][column]


def test_a_judge_that_guesses_is_at_chance_and_one_that_knows_is_not(run, tmp_path, capsys):
    figures = run(tmp_path / "a", "--k=1,4,8", "--seed=3")
    assert list(figures["measures"]) == ["greedy", "greedy@2", "vote@1", "vote@4", "vote@8"]
    for name in figures["measures"]:
        assert headline(figures, name)["low"] < 0.5 < headline(figures, name)["high"], name
    assert 0.05 < figures["measures"]["vote@8"]["malformed_rate"] == figures["measures"]["vote@8"]["truncated_rate"] < 0.15
    said = capsys.readouterr().out
    assert said.startswith("LLMBar, items: 60; in %\ngreedy: paper ") and f"are in {tmp_path}/a\n" in said
    assert PUBLIC < contents(tmp_path / "a").keys()

    knows = run(tmp_path / "b", "--k=8", judge=RandomJudge(skill=4))
    assert headline(knows, "vote@8")["low"] > 0.8
    biased = run(tmp_path / "c", "--k=8", judge=RandomJudge(bias=6))["position"]["sampled"]
    fair = figures["position"]["sampled"]
    assert biased["wins_by_position"]["2"][0] > 0.8 and abs(fair["wins_by_position"]["2"][0] - 0.5) < 0.1
    assert biased["changes_with_order"] > biased["changes_in_order"] + 0.3
    assert abs(fair["changes_with_order"] - fair["changes_in_order"]) < 0.05


def test_greedy_verdicts_are_in_both_orders_whatever_the_order_of_votes_is(run, tmp_path):
    run(tmp_path, "--k=4", "--order=random")
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").open()]
    assert all(sorted(line["greedy"]["orders"]) == [[0, 1], [1, 0]] for line in lines)
    assert len({tuple(map(tuple, line["orders"])) for line in lines}) > 6  # those of votes are random


def test_an_interrupted_run_goes_on_and_ends_the_same(run, tmp_path):
    run(tmp_path / "whole", "--k=1,2")
    interrupted = RandomJudge(breaks_at=85)  # after all of the 60 greedy verdicts
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "twice", "--k=1,2", judge=interrupted)
    assert not (tmp_path / "twice" / "report.html").exists()
    rest = RandomJudge()
    run(tmp_path / "twice", "--k=1,2", judge=rest)
    assert rest.judged == 120 - 84
    whole, twice = contents(tmp_path / "whole"), contents(tmp_path / "twice")
    assert whole == twice
    # When nothing is left to draw no model is loaded, whatever k up to the largest is asked for.
    again = RandomJudge(breaks_at=1)
    assert list(run(tmp_path / "twice", "--k=2", judge=again)["measures"]) == ["greedy", "greedy@2", "vote@2"]
    run(tmp_path / "twice", "--k=1,2", judge=again)
    assert contents(tmp_path / "twice") == whole


def test_several_processes_of_which_one_is_killed_write_what_one_writes(run, tmp_path, capsys):
    run(tmp_path / "alone", "--k=1,2")
    said = capsys.readouterr().out
    killed = [RandomJudge(), RandomJudge(), RandomJudge(breaks_at=25)]  # 20 greedy verdicts each, then sampled ones
    ended = run(tmp_path / "pod", "--k=1,2", judges=killed)
    assert isinstance(ended[2], KeyboardInterrupt) and all(isinstance(end, RuntimeError) for end in ended[:2])
    judges = [RandomJudge(), RandomJudge()]
    assert run(tmp_path / "pod", "--k=1,2", judges=judges) == [None, None]
    assert sum(judge.judged for judge in killed + judges) == 120 + 1
    assert contents(tmp_path / "pod") == contents(tmp_path / "alone")
    assert capsys.readouterr().out == said.replace(f"{tmp_path}/alone", f"{tmp_path}/pod")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--seed=1", "greedy.jsonl: begun with --seed=0, not 1; choose another --output"),
        ("--k=4", "sampled.jsonl: begun with --k=2, not 4"),
        ("--limit=3", "comparisons.jsonl: greedy.jsonl answers other items than --data, --limit and --by_pairs give now"),
    ],
)
def test_another_run_is_not_mixed_in(run, tmp_path, flags, message):
    run(tmp_path, "--k=2")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message):
        run(tmp_path, *({"--k": "--k=2"} | {flags.partition("=")[0]: flags}).values())
    assert contents(tmp_path) == before


def test_recorded_votes_say_the_same_as_the_judge_did(run, tmp_path, capsys):
    drawn = run(tmp_path / "a", "--k=1,2,6")
    data = [tmp_path / "a" / "scores.jsonl", "--k=1,2,6"]
    with_data = run(tmp_path / "b", f"--scores={data[0]}", *data[1:], checkpoint=None)
    alone = run(tmp_path / "c", f"--scores={data[0]}", *data[1:], checkpoint=None, data=None)
    for figures in (with_data, alone):
        assert {name: figures[name] for name in ("measures", "by_k", "position", "chance")} == {
            name: drawn[name] for name in ("measures", "by_k", "position", "chance")
        }
    assert contents(tmp_path / "a")["rewardbench.json"] != contents(tmp_path / "b")["rewardbench.json"]  # the model's name
    judged = run(tmp_path / "e", f"--scores={tmp_path}/a/sampled.jsonl", "--k=1,2,6", checkpoint=None)["measures"]
    assert judged == {name: one for name, one in drawn["measures"].items() if name.startswith("vote@")}
    assert list(run(tmp_path / "d", f"--scores={data[0]}", checkpoint=None)["measures"]) == ["greedy", "greedy@2", "vote@6"]
    assert list(run(tmp_path / "f", f"--scores={data[0]}", "--nogreedy", checkpoint=None)["measures"]) == ["vote@6"]


def test_figures_of_a_file_made_by_hand(run, tmp_path):
    votes = {"a": [[7, 3], [6, 2]], "b": [[4, 4], [9, 1]], "c": [None, [1, 3]], "d": [[2, 3], [5, 1]]}
    best = {"a": 0, "b": 0, "c": 0, "d": 1}
    lines = [{"id": id, "scores": rows, "best": best[id], "subset": "Natural"} for id, rows in votes.items()]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures = run(tmp_path / "out", f"--scores={tmp_path}/s.jsonl", "--k=1,2", checkpoint=None, data=None)
    # As given: right, tied, unread, right. Swapped: right, right, wrong, wrong.
    assert headline(figures, "vote@2", "official")["value"] == (2 / 4 + 2 / 4) / 2
    # Sums: 13 to 5, 13 to 5, 1 to 3, 7 to 4.
    assert headline(figures, "vote@2")["value"] == headline(figures, "vote@2", "strict")["value"] == 2 / 4
    assert headline(figures, "vote@1")["value"] == (1 + 1 / 2 + 1 / 2 + 1) / 4
    assert headline(figures, "vote@1", "strict")["value"] == 2 / 4
    assert figures["measures"]["vote@1"]["tie_rate"] == 1 / 4 and figures["measures"]["vote@2"]["malformed_rate"] == 1 / 8
    assert figures["measures"]["vote@1"]["unread"] == 1 and figures["position"] == {}


def test_of_several_processes_one_reads_recorded_votes_and_reports(run, tmp_path, monkeypatch):
    (tmp_path / "s.jsonl").write_text('{"id": "a", "scores": [[7, 3]], "best": 0, "subset": "Natural"}\n')
    given = ["--benchmark=llmbar", f"--scores={tmp_path}/s.jsonl"]
    run(tmp_path / "alone", f"--scores={tmp_path}/s.jsonl", checkpoint=None, data=None)
    command = [sys.executable, LAUNCHER, "--processes=2", "--restarts=0", "--", sys.executable, "-m", "spct_jax.evaluate"]
    done = subprocess.run([*command, *given, f"--output={tmp_path}/pod"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("are in") == 1 and contents(tmp_path / "pod") == contents(tmp_path / "alone")
    # What is wrong with them one process finds, and it ends all.
    reads, read = [], score_files.read
    monkeypatch.setattr(score_files, "read", lambda path: reads.append(path) or read(path))
    wrong = run(tmp_path / "none", f"--scores={tmp_path}/none.jsonl", judges=[None, None], checkpoint=None, data=None)
    assert len(reads) == 1 and all(isinstance(end, InputError) and "none.jsonl: cannot read" in str(end) for end in wrong)


@pytest.mark.parametrize("field", ["scores", "decision"])
def test_votes_of_which_none_could_be_read_are_said(field, run, tmp_path, capsys):
    lines = [{"id": id, field: [None, None], "best": 0, "subset": "Natural"} for id in "abc"]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(tmp_path / "out", f"--scores={tmp_path}/s.jsonl", checkpoint=None, data=None)
    said = "vote@2: none of 3 items has a vote that could be read; its figures are what each rule gives then."
    assert said in capsys.readouterr().out and said in (tmp_path / "out" / "report.md").read_text()


def test_items_that_cannot_be_shown_count_and_are_said(run, tmp_path, capsys):
    rows = [{"input": "q", "output_1": "good", "output_2": "bad", "label": 1}] * 2
    rows += [rows[0] | {"input": "TOO LONG"}, rows[0] | {"output_2": " "}]
    (tmp_path / "dataset.json").write_text(json.dumps(rows))
    figures = run(tmp_path / "out", "--k=2", "--nogreedy", judge=RandomJudge(skill=99), data=tmp_path / "dataset.json")
    read = 4 - figures["measures"]["vote@2"]["unread"]
    assert figures["unjudged"] == {"empty response": 1, "prompt longer than the context": 1}
    assert headline(figures, "vote@2")["value"] == (read + (4 - read) / 2) / 4  # 1/n for what was not read
    assert headline(figures, "vote@2", "strict")["value"] == read / 4 and read <= 2
    said = "1 could not be shown to the judge and count as unread: prompt longer than the context."
    assert said in (tmp_path / "out" / "report.md").read_text() and said in (tmp_path / "out" / "report.html").read_text()
    assert "1 item could not be judged: empty response\n" in capsys.readouterr().out
    # The recorded votes have these items, too.
    again = run(tmp_path / "again", f"--scores={tmp_path}/out/scores.jsonl", checkpoint=None, data=None)
    assert again["measures"]["vote@2"]["table"] == figures["measures"]["vote@2"]["table"]


def test_items_of_several_responses_whole_and_in_pairs(run, tmp_path):
    right = [(1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0), (0, 1, 1, 1)]
    rows = [
        {"question": f"q{i}"}
        | {m: {"solution": "good" if r else f"bad {m}", "is_correct": bool(r)} for m, r in zip(MODELS, row, strict=True)}
        for i, row in enumerate(right)
    ]
    (tmp_path / "example_model_solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--benchmark=gsm8k_pairs", "--k=1,2"]
    judge = RandomJudge(skill=99)
    pairs = run(tmp_path / "pairs", *flags, judge=judge, data=tmp_path)
    assert judge.judged == 2 * (3 + 4 + 3) and pairs["skipped"] == {"the solutions are all right or all wrong": 1}
    assert pairs["about"]["items"] == "3; those of more than two responses are judged in pairs" and pairs["chance"] == 0.5
    judge = RandomJudge(skill=99)
    whole = run(tmp_path / "whole", *flags, "--noby_pairs", judge=judge, data=tmp_path)
    assert judge.judged == 2 * 3 and "judgebench.jsonl" not in contents(tmp_path / "whole")
    assert set(whole["position"]["sampled"]["wins_by_position"]) == {"4"}
    for name, figures in (("pairs", pairs), ("whole", whole)):
        # Right wherever a vote could be read, and a coin elsewhere.
        found = figures["measures"]["vote@2"]
        lost = found["subsets"]["GSM8K"]["paper"]["value"], found["subsets"]["GSM8K"]["strict"]["value"]
        assert 1 - lost[0] == pytest.approx((1 - lost[1]) / 2) and lost[1] > 0.5
        again = run(tmp_path / f"{name} again", *flags, f"--scores={tmp_path}/{name}/scores.jsonl", checkpoint=None, data=None)
        assert again["measures"] == figures["measures"]
    assert "best_of_4" in whole["measures"]["vote@2"]["table"]["GSM8K"]
    # What is told of pairs is told one pair at a time.
    assert "### Right: 0/0-" in (tmp_path / "pairs" / "report.md").read_text()


def test_a_sample_of_the_items_follows_from_the_seed(run, tmp_path):
    figures = run(tmp_path / "a", "--k=1", "--limit=7")
    assert figures["about"]["items"] == "7 of 60, a sample by seed 0" and figures["measures"]["vote@1"]["items"] == 7
    run(tmp_path / "whole", "--k=1")
    flags = [f"--scores={tmp_path}/whole/scores.jsonl", "--limit=7"]
    assert run(tmp_path / "again", *flags, checkpoint=None)["measures"]["vote@1"]["items"] == 7
    run(tmp_path / "b", "--k=1", "--limit=7", "--seed=1")
    ids = [[json.loads(line)["id"] for line in (tmp_path / name / "scores.jsonl").open()] for name in "ab"]
    assert ids[0] != ids[1] and len(set(ids[0])) == 7


def test_several_benchmarks_in_one_table(run, tmp_path):
    for name, scores in (("rewardbench", [5, 1]), ("ppe_preference", [3, 3])):
        line = {"id": "a", "scores": [scores], "best": 0, "subset": "donotanswer"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    flags = [f"--scores={tmp_path}/ppe_preference.jsonl", "--benchmark=ppe_preference"]
    run(tmp_path / "p", *flags, checkpoint=None, data=None)
    flags = [f"--scores={tmp_path}/rewardbench.jsonl", "--benchmark=rewardbench"]
    figures = run(tmp_path / "r", *flags, f"--beside={tmp_path}/p", checkpoint=None, data=None)
    # One section is no average of RewardBench, so there is none in the table.
    assert figures["beside"] == {"ppe_preference": {"vote@1": 0.5}, "rewardbench": {}}
    assert "## Overall" in (tmp_path / "r" / "report.md").read_text()
    run(tmp_path / "l", "--k=1")
    for beside, message in (
        ("none", "none/figures.json: cannot be read"),
        ("r", "--beside: .*/r/figures.json holds figures of rewardbench, and so does one before it"),
        ("l", "l/figures.json: holds no figures of rewardb"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path / "x", *flags, f"--beside={tmp_path}/r,{tmp_path}/{beside}", checkpoint=None, data=None)
    with pytest.raises(InputError, match="--beside: the paper's Table 2 has rewardbench, .* and not llmbar"):
        run(tmp_path / "x", "--k=1", f"--beside={tmp_path}/r")


def test_principles_are_given_and_exported(run, tmp_path, capsys):
    given = {"Natural/0": "be kind", "Adversarial/Manual/1": None, "Z": ""}
    lines = [{"id": id, "principles": text} for id, text in given.items()]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge, flags = RandomJudge(), ["--k=1", "--nogreedy"]
    run(tmp_path / "a", *flags, f"--principles={tmp_path}/p.jsonl", f"--export_principles={tmp_path}/e.jsonl", judge=judge)
    assert {c.id: c.principles for c in judge.shown if c.principles} == {"Natural/0": "be kind"} and judge.judged == 60
    assert f"{tmp_path}/e.jsonl: principles of all verdicts; 60 verdicts without any\n" in capsys.readouterr().out
    assert len((tmp_path / "e.jsonl").read_text().splitlines()) == 60
    assert f"principles: {tmp_path}/p.jsonl" in (tmp_path / "a" / "report.md").read_text().replace("*", "")
    (tmp_path / "p.txt").write_text("be short")
    with pytest.raises(InputError, match="comparisons.jsonl: sampled.jsonl answers other items .*, or judges by other"):
        run(tmp_path / "a", *flags, f"--principles={tmp_path}/p.txt")
    judge = RandomJudge()
    run(tmp_path / "b", *flags, f"--principles={tmp_path}/p.txt", judge=judge)
    assert {c.principles for c in judge.shown} == {"be short"}
    (tmp_path / "n.jsonl").write_text('{"id": "Z", "principles": "x"}\n')
    with pytest.raises(InputError, match="n.jsonl: holds principles of none of the items"):
        run(tmp_path / "c", *flags, f"--principles={tmp_path}/n.jsonl")


def test_reference_answers_are_shown_if_they_are_asked_for(run, tmp_path):
    row = {"question": "q", "ground_truth": "It is 4."}
    row |= {model: {"solution": f"s {model}", "is_correct": model == MODELS[0]} for model in MODELS}
    (tmp_path / "example_model_solutions.jsonl").write_text(json.dumps(row) + "\n")
    flags = ["--benchmark=gsm8k_pairs", "--k=1", "--nogreedy"]
    for more, shown in ([], None), (["--reference", "--template=reference"], "It is 4."):
        judge = RandomJudge()
        run(tmp_path / str(shown), *flags, *more, judge=judge, data=tmp_path)
        assert [c.reference for c in judge.shown] == [shown] * 3
    with pytest.raises(InputError, match="--reference: the benchmark's data holds no reference answers"):
        run(tmp_path / "x", "--k=1", "--reference", "--template=reference")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--reference"], "--reference: template 'default' has no place for a reference answer"),
        (["--principles=p", "--template=no_principles"], "--principles: template 'no_principles' has no part for principles"),
        (["--export_principles=p.jsonl", "--template=no_principles"], "template 'no_principles' has no part for"),
        (["--export_principles=p"], "--export_principles=p: the name must end in .jsonl or .jsonl.gz, as --principles"),
        (["--benchmark=realmistake", "--mode=choice"], "--benchmark=realmistake: a judge that compares responses has nothing"),
        (["--benchmark=rewardbench2", "--by_pairs"], "--by_pairs: item 'Ties/ref:1' has no single best response"),
    ],
)
def test_what_a_judge_cannot_do_is_refused_before_it_is_loaded(run, tmp_path, model, flags, message):
    data = model / "data"
    if "--benchmark=rewardbench2" in flags:
        data = tmp_path / "data.jsonl"
        row = {"id": "ref:1", "prompt": "p", "chosen": ["a"], "rejected": ["b", "c"], "subset": "Ties"}
        data.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        run(tmp_path / "x", *flags, judge=RandomJudge(breaks_at=1), data=data)
    assert not (tmp_path / "x").exists()


def test_guided_votes(run, tmp_path, model):
    flags = f"--meta_checkpoint={model}/model"
    assert list(run(tmp_path / "a", "--k=1,4", flags)["measures"])[2:] == ["vote@1", "vote@4", "meta@4/2"]
    assert list(run(tmp_path / "a", "--k=1,4", "--k_meta=1,3", flags)["measures"])[2:] == [
        "vote@1",
        "vote@4",
        "meta@4/1",
        "meta@4/3",
    ]


def test_command_lines(tmp_path, model):
    (tmp_path / "s.jsonl").write_text('{"id": "Natural/0", "scores": [[1, 2], [2, 1]]}\n')
    (tmp_path / "bad.jsonl").write_text('{"id": "Natural/0", "scores": [[1, "2"]]}\n')
    given = [f"--data={model}/data", f"--output={tmp_path}/out"]
    cases = {
        "--benchmark=llmbar": "give either --checkpoint or --scores",
        f"--benchmark=llmbar --checkpoint={model}/model --scores={tmp_path}/s.jsonl": "give either --checkpoint or --scores",
        f"--benchmark=lmbar --scores={tmp_path}/s.jsonl": "no benchmark named 'lmbar'; there are ",
        f"--benchmark=llmbar --scores={tmp_path}/bad.jsonl": f"{tmp_path}/bad.jsonl:1: score is not a number ('2')",
        f"--benchmark=llmbar --scores={tmp_path}/s.jsonl": f"{tmp_path}/s.jsonl: no scores of an item (",
        f"--benchmark=llmbar --scores={tmp_path}/s.jsonl --limit=-1": "--limit: -1 is not a number of items",
        f"--benchmark=llmbar --scores={tmp_path}/s.jsonl --principles=p.txt": "--principles goes with --checkpoint",
        f"--benchmark=llmbar --scores={tmp_path}/s.jsonl --noby_pairs": "--by_pairs goes with --checkpoint; recorded votes",
        f"--benchmark=llmbar --scores={tmp_path}/none.jsonl": f"{tmp_path}/none.jsonl: cannot read the file",
        f"--benchmark=llmbar --checkpoint={tmp_path}/none": f"--checkpoint={tmp_path}/none: no such directory",
        f"--benchmark=llmbar --checkpoint={model}/model --k=1,x": "--k=1,x: not integers from 1 to 65536, as in 1,8,32",
        f"--benchmark=llmbar --checkpoint={model}/model --k=0": "--k=0: not integers from 1 to 65536",
        f"--benchmark=llmbar --checkpoint={model}/model --k=99999": "--k=99999: not integers from 1 to 65536",
        f"--benchmark=llmbar --checkpoint={model}/model --k_meta=2": "--k_meta needs --meta_checkpoint",
        f"--benchmark=llmbar --checkpoint={model}/model --meta_checkpoint={model}/model --k=1,4 --k_meta=2,4": "--k_meta: 4 is "
        "not below any number of votes (1, 4)",
        f"--benchmark=llmbar --checkpoint={model}/model --temperature=-1": "--temperature: -1.0 is not in [0, 100]",
        f"--benchmark=llmbar --checkpoint={model}/model --max_prompt=1 more": "unexpected argument 'more'",
    }
    asked = [{"argv": ["spct_jax.evaluate", *given, *line.split()]} for line in cases]
    asked += [{"argv": ["spct_jax.evaluate", *line.split()]} for line in ("", "--help")]
    *wrong, empty, asked_help = commands.run(asked)
    for (line, message), outcome in zip(cases.items(), wrong, strict=True):
        assert outcome["status"] == 2, (line, outcome)
        assert outcome["err"].startswith(f"error: {message}") and outcome["err"].count("\n") == 1, (line, outcome["err"])
    assert empty["status"] == 2 and "benchmark" in empty["err"] and empty["err"].count("\n") == 1
    assert asked_help["status"] == 0 and all(
        f"--{name}:" in asked_help["out"] for name in ("benchmark", "checkpoint", "k_meta")
    )
    assert not (tmp_path / "out").exists()


def test_a_model_of_random_weights_from_a_relative_path(model, tmp_path):
    """As a user types it, the model and all."""
    shutil.copytree(model, tmp_path / "here")
    line = "--checkpoint=model --benchmark=llmbar --data=data --k=1,4 --output=out --template=template.txt --limit=40"
    line += " --max_new_tokens=24 --temperature=1 --max_prompt=64 --nogreedy"
    command = [sys.executable, "-m", "spct_jax.evaluate", *line.split()]
    environment = os.environ | {"PYTHONPATH": str(LAUNCHER.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "here", env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "here" / "out" / "figures.json").read_text())
    assert headline(figures, "vote@4")["low"] < 0.5 < headline(figures, "vote@4")["high"]
    # Verdicts were read, so that this is no chance of silence.
    assert figures["measures"]["vote@4"]["malformed_rate"] < 0.6 and figures["measures"]["vote@4"]["tie_rate"] < 0.5


def test_all_of_llmbar_at_chance(run, tmp_path):
    figures = run(tmp_path, "--k=1,8", data=shared("data/llmbar") / "LLMBar")
    assert figures["measures"]["vote@8"]["items"] == 419 and len(figures["measures"]["vote@8"]["subsets"]) == 5
    for name in ("greedy@2", "vote@1", "vote@8"):
        assert headline(figures, name)["low"] < 0.5 < headline(figures, name)["high"], name
    # Three intervals of four subsets' worth of luck: their mean is near chance as well.
    assert np.mean([subset["paper"]["value"] for subset in figures["measures"]["vote@8"]["subsets"].values()]) > 0.4
