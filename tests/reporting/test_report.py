"""The report of a run, from synthetic files of its stages."""

import json
import re

import pytest
import synthetic

from spct_jax.reporting import report

FILES = ("report.json", "report.md", "accuracy_by_stage.png", "accuracy_by_k.png", "learning_curves.png")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return synthetic.write_workdir(tmp_path_factory.mktemp("run"), problems=80)


@pytest.fixture(scope="module")
def written(workdir):
    return report.write_report(workdir)


def test_schema(workdir, written):
    assert json.loads((workdir / "report.json").read_text()) == written
    assert written["seed"] == 0 and written["problems"] == 72 and written["single"]["problems"] == 8
    assert list(written["accuracy"]) == ["sft", "rft", "rl", "rl@T0.5"]
    assert list(written["accuracy"]["rl"]) == ["greedy", "vote@1", "vote@8", "vote@32", "meta@8", "meta@32"]
    assert list(written["accuracy"]["sft"]) == ["greedy"]
    assert written["by_k"]["rl"]["k"] == [1, 2, 4, 8, 16, 32]
    assert written["by_k"]["rl"]["meta"][0] == written["accuracy"]["rl"]["vote@1"]
    assert {"vote@8 - vote@1", "vote@32 - vote@8", "meta@32 - vote@32"} <= set(written["paired"]["rl"])
    assert written["stages"]["rejection"]["data"]["skipped"]["too easy"] == 1500
    for label, measures in written["accuracy"].items():
        for name, value in measures.items():
            low, high = written["intervals"][label][name]
            assert 0 <= low <= value <= high <= 1


def test_peak_memory_of_the_run_is_printed(workdir, written):
    assert written["peak_memory_gib"] == 1.25
    assert "of the run: 1.2 GiB" in (workdir / "report.md").read_text()


def test_figures_by_hand(tmp_path):
    def problem(name, best, *scores):
        cut = {"truncated": name == "c"}
        samples = [{"order": [0, 1], "scores": s, "meta": None, "text": None} | cut for s in scores]
        return {"id": name, "n": 2, "best": best, "single": False, "samples": samples}, {
            "id": name,
            "query": "?",
            "responses": ["a", "b"],
            "scores": [9, 1],
        }

    judged = [problem("a", 0, [9, 1]), problem("b", 1, [5, 5]), problem("c", 0, None)]
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "config.json").write_text('{"seed": 3}')
    for name, index in (("sft_greedy", 0), ("problems", 1)):
        lines = "".join(json.dumps(pair[index]) + "\n" for pair in judged)
        (tmp_path / "evaluate" / f"{name}.jsonl").write_text(lines)
    result = report.write_report(tmp_path)
    assert result["accuracy"] == {"sft": {"greedy": pytest.approx(2 / 3)}}
    assert result["tie_rate"] == {"sft": {"greedy": pytest.approx(1 / 3)}}
    assert result["malformed_rate"] == {"sft": {"greedy": pytest.approx(1 / 3)}}
    assert result["truncated_rate"] == {"sft": {"greedy": pytest.approx(1 / 3)}}
    assert "of these truncated, greedy" in (tmp_path / "report.md").read_text()
    assert result["chance"] == 0.5 and result["paired"] == result["by_k"] == {}
    assert not (tmp_path / "accuracy_by_k.png").exists()


def test_the_same_files_give_the_same_bytes(workdir, written):
    before = {name: (workdir / name).read_bytes() for name in FILES}
    report.write_report(workdir)
    assert before == {name: (workdir / name).read_bytes() for name in FILES}
    assert not list(workdir.glob("*.tmp"))


def test_markdown_shows_everything(workdir, written):
    text = (workdir / "report.md").read_text()
    for name in FILES[2:]:
        assert f"]({name})" in text
    assert "Accuracy in % on 72 development problems" in text
    assert "### Wrong" in text and text.count("One verdict, whole") == 3
    assert "tie \\| for best: 300" in text and "Cold start" in text
    assert "| train.jsonl | 6,007 | 6,000 | not JSON: 7 |" in text


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 1}')
    result = report.write_report(tmp_path)
    assert result["accuracy"] == result["stages"] == {} and result["problems"] == 0
    assert "No model has been evaluated yet" in (tmp_path / "report.md").read_text()


def test_a_run_without_meta_rm_or_problems(tmp_path):
    synthetic.write_workdir(tmp_path, problems=12, samples=8)
    for path in [tmp_path / "evaluate" / "problems.jsonl", *(tmp_path / "meta_rm").iterdir()]:
        path.unlink()
    sampled = tmp_path / "evaluate" / "rl_sampled.jsonl"
    sampled.write_text(re.sub(r'"meta": [-\d.e]+', '"meta": null', sampled.read_text()))
    result = report.write_report(tmp_path)
    assert list(result["accuracy"]["rl"]) == ["greedy", "vote@1", "vote@8"]
    assert "meta" not in result["by_k"]["rl"] and "combinations" not in result and "single" not in result
