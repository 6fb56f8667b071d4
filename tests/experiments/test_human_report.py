import json

import numpy as np
import pytest
import study_modules
import synthetic

from spct_jax.errors import InputError


@pytest.fixture(scope="module")
def studies():
    """The modules of the report, by name."""
    names = ("human_credits", "human_report", "verdict_sample")
    with study_modules.imported(*names) as modules:
        yield dict(zip(names, modules, strict=True))


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


PROBLEMS = [
    {"id": "hh/1", "query": "q1", "responses": ["a", "bb"], "scores": [1, 0]},
    {"id": "hh/2", "query": "q2", "responses": ["a", "bb"], "scores": [0, 1]},
    {"id": "gsm8k/3", "query": "q3", "responses": ["a", "bb", "c"], "scores": [0, 0, 1]},
]


def verdict(problem, *samples, **more):
    """A line of a run's evaluation; a sample is its scores, or (scores, reward of the meta RM)."""
    scores = problem["scores"]
    pairs = [sample if isinstance(sample, tuple) else (sample, None) for sample in samples]
    made = [
        {"order": list(range(len(scores))), "scores": s, "meta": meta, "text": f"text {s}", "truncated": s is None, "tokens": 9}
        for s, meta in pairs
    ]
    return {"id": problem["id"], "n": len(scores), "best": scores.index(1), "single": False, "samples": made, **more}


def write_run(directory, problems, **passes):
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"seed": 0, "evaluation": {"k": [1, 2], "temperature": 1.0}}))
    write_lines(directory / "evaluate" / "problems.jsonl", problems)
    for name, rows in passes.items():
        write_lines(directory / "evaluate" / f"{name}.jsonl", rows)


@pytest.fixture
def experiment(tmp_path):
    one, two, three = PROBLEMS
    write_run(
        tmp_path / "grm",
        PROBLEMS,
        sft_greedy=[verdict(one, [3, 8]), verdict(two, [5, 5]), verdict(three, None)],
        rl_greedy=[verdict(one, [8, 3]), verdict(two, [5, 5]), verdict(three, [7, 2, 7])],
        rl_sampled=[
            verdict(one, ([8, 3], 0.0), ([1, 9], -1.0)),
            verdict(two, ([2, 6], 0.5), (None, None)),
            verdict(three, ([9, 1, 2], -1.0), ([1, 1, 8], 1.0)),
        ],
    )
    write_run(tmp_path / "btrm", PROBLEMS[:2], btrm_greedy=[verdict(one, [0.5, 0.2]), verdict(two, [0.5, 0.2])])
    after = tmp_path / "after"
    write_lines(after / "likelihood.jsonl", [{"id": "hh/1", "logprobs": [-4.0, -6.0], "tokens": [1, 3]}])
    sample = verdict(two, [5, 5])["samples"][0] | {"expected": [5.2, 5.4]}
    write_lines(after / "expected_greedy.jsonl", [{"id": "hh/2", "samples": [sample]}, {"id": "hh/1", "error": "too long"}])
    return tmp_path


def test_credits_by_hand(studies, experiment):
    """Ties count 1/t, no readable verdict 1/n; what was not asked is not counted."""
    found = studies["human_credits"].read(experiment)
    assert [c.id for c in found.problems] == ["hh/1", "hh/2", "gsm8k/3"] and list(found.masks()) == ["all", "hh", "gsm8k"]
    nan = float("nan")
    expected = {
        "chance": [1 / 2, 1 / 2, 1 / 3],
        "grm sft greedy": [0, 1 / 2, 1 / 3],
        "grm rl greedy": [1, 1 / 2, 1 / 2],
        "grm rl vote@1": [1, 1, 0],
        "grm rl vote@2": [0, 1, 1 / 2],
        "grm rl meta@2": [1, 1, 1],
        "grm greedy expected": [nan, 1, nan],
        "grm greedy scores": [nan, 1 / 2, nan],
        "btrm btrm greedy": [1, 0, nan],
        "likelihood summed": [1, nan, nan],
        "likelihood per token": [0, nan, nan],
    }
    for key, credit in expected.items():
        np.testing.assert_allclose(found.ways[key].credit, credit, err_msg=key)
    assert found.ways["grm rl greedy"].tied.tolist() == [False, True, True]
    assert found.ways["btrm btrm greedy"].name == "Bradley-Terry" and "length" not in found.ways


def test_adaptive_votes_are_those_of_all_samples_where_none_is_spared(studies, experiment):
    found = studies["human_credits"].read(experiment)
    np.testing.assert_allclose(found.ways["grm rl adaptive@0.02"].credit[:2], found.ways["grm rl vote@2"].credit[:2])


def test_a_pass_that_was_cut_short_counts_as_far_as_it_went(studies, experiment):
    evaluate = experiment / "grm" / "evaluate"
    lines = (evaluate / "rl_sampled.jsonl").read_text().splitlines(keepends=True)
    (evaluate / "rl_sampled.jsonl").unlink()
    (evaluate / "rl_sampled.partial.jsonl").write_text("".join(lines[:2]) + lines[2][:20])
    (experiment / "cloud").mkdir()
    (experiment / "cloud" / "config.json").write_text("{}")
    found = studies["human_credits"].read(experiment)
    np.testing.assert_allclose(found.ways["grm rl vote@2"].credit, [0, 1, np.nan])
    assert found.unmeasured == ["cloud"]


def test_runs_on_other_problems_are_refused(studies, experiment):
    path = experiment / "btrm" / "evaluate" / "problems.jsonl"
    write_lines(path, [PROBLEMS[0] | {"query": "another"}])
    with pytest.raises(InputError, match="btrm/evaluate/problems.jsonl: 'hh/1' is another comparison"):
        studies["human_credits"].read(experiment)


def test_no_run(studies, tmp_path):
    with pytest.raises(InputError, match="no run below it has been evaluated"):
        studies["human_credits"].read(tmp_path)


def test_difference_is_of_what_both_were_asked(studies):
    nan = float("nan")
    difference = studies["human_report"].difference
    assert difference(np.array([1, 1, nan, 1]), np.array([0, 0, 1, nan])) == "+100.0 (+100.0 to +100.0) ▲"
    assert difference(np.array([0, nan]), np.array([1, 1])) == "-100.0 (-100.0 to -100.0) ▼"
    assert difference(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == "+0.0 (+0.0 to +0.0)"
    assert difference(np.array([nan, 1]), np.array([1, nan])) == "–"


def test_who_is_named(studies):
    """Two responses, the second one longer; of a verdict's scores the first is always the first response's."""
    problem = {"id": "hh/1", "responses": ["a", "bb"], "scores": [1, 0]}
    row = verdict(problem, [8, 3], [2, 3], [5, 5], None)
    row["samples"][1]["order"] = [1, 0]
    drawn, valid, cut, tied, agree, first, longer, tokens = studies["human_report"]._counts([row], {"hh/1": problem})
    assert (drawn, valid, cut, tied, tokens) == ("4", "3 (75.0 %)", "1", "33.3", "9")
    assert (first, longer) == ("83.3", "50.0")


def test_sample_is_written_filled_and_counted(studies, experiment):
    sample = studies["verdict_sample"]
    run = studies["human_credits"].read(experiment).runs["grm"]
    drawn, path = sample.draw(run, "rl"), experiment / "verdicts.jsonl"
    assert sorted(entry["id"] for entry in drawn) == ["gsm8k/3", "hh/1", "hh/2"]
    assert sample.settle(path, drawn) == drawn and "3 are not read yet" in sample.counts(drawn)
    kinds = {"hh/1": "sensible", "hh/2": "empty", "gsm8k/3": "empty"}
    filled = [entry | {"judgement": kinds[entry["id"]], "comment": f"on {entry['id']}"} for entry in drawn]
    write_lines(path, filled)
    text = sample.counts(sample.settle(path, drawn))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    columns = rows[0].strip("| ").split(" | ")
    by_kind = {row.strip("| ").split(" | ")[0]: row.strip("| ").split(" | ") for row in rows[2:]}
    assert dict(zip(columns, by_kind["empty"], strict=True)) == {
        "verdicts": "empty",
        "all": "2",
        "hh": "1",
        "gsm8k": "1",
        "right": "1 of 2",
    }
    assert by_kind["sensible"][1] == "1" and by_kind["false"][-1] == "–" and "not read" not in text
    assert "**Sensible.** on hh/1" in sample.to_read(sample.settle(path, drawn), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"judgement": "fine"}, "verdicts.jsonl:2: judgement is none of"), ({"verdict": "x"}, "verdicts.jsonl:2: not a verdict")],
)
def test_a_wrong_sample_is_named(studies, experiment, change, message):
    sample = studies["verdict_sample"]
    drawn, path = sample.draw(studies["human_credits"].read(experiment).runs["grm"], "rl"), experiment / "verdicts.jsonl"
    write_lines(path, [drawn[0], drawn[1] | change, *drawn[2:]])
    with pytest.raises(InputError, match=message):
        sample.settle(path, drawn)
    write_lines(path, drawn[:2])
    with pytest.raises(InputError, match="1 verdicts of this run's sample are missing"):
        sample.settle(path, drawn)


def test_page_of_runs_that_have_hardly_begun_to_judge(studies, tmp_path):
    for name in ("train", "development"):
        write_lines(tmp_path / "data" / f"{name}.jsonl", PROBLEMS)
    write_run(tmp_path / "grm", PROBLEMS)
    found = studies["human_report"].pages(tmp_path, str(tmp_path / "verdicts.jsonl"), "", "x")
    text = found["x.md"].decode()
    assert sorted(found) == ["x.md", "x_accuracy.png"] and "| chance | 44.4 |" in text
    assert "What verdicts say" not in text and "What each step adds" not in text


def test_page(studies, tmp_path):
    """All sections of a whole experiment, with baselines that are fitted."""
    synthetic.write_workdir(tmp_path / "grm", problems=80)
    for path in (tmp_path / "grm" / "evaluate").glob("*.jsonl"):
        path.write_text(path.read_text().replace('"id": "test-', '"id": "hh/test-'))
    problems = [json.loads(line) for line in (tmp_path / "grm" / "evaluate" / "problems.jsonl").read_text().splitlines()]
    several = [problem for problem in problems if len(problem["responses"]) > 1]
    for name, part in (("train", several[:50]), ("development", several[50:]), ("test", several)):
        write_lines(tmp_path / "data" / f"{name}.jsonl", part)
    (tmp_path / "data" / "counts.json").write_text(json.dumps({"sources": {"hh": {"rows": 80}}, "dropped": 3}))
    found = studies["human_report"].pages(tmp_path, str(tmp_path / "verdicts.jsonl"), "# Title\n\nSaid.", "real")
    text, verdicts = (found.pop(name).decode() for name in ("real.md", "real_verdicts.md"))
    assert text.startswith("# Title\n\nSaid.\n\n## Accuracy") and "[20 of them](real_verdicts.md)" in text
    assert sorted(found) == ["real_accuracy.png", "real_learning.png", "real_votes.png"]
    assert all(png.startswith(b"\x89PNG") for png in found.values())
    for line in ("- GRM, RL greedy above GRM, Cold start greedy: **holds**.", "hh: bag of 5 words"):
        assert line in text, line
    assert "\n## 20. `hh/test-" in verdicts and "## 1. `" not in text
    assert "| train | 50 | 50 |" in text and '  "hh": {"rows": 80}' in text
    assert "### Every system beside length and words, on hh" in text
