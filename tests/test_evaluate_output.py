"""Where `python -m spct_jax.evaluate` may write."""

import json

import pytest

from spct_jax import evaluate
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import catalogue
from spct_jax.evaluation.benchmarks.reading import DataReport
from spct_jax.storage import paths


def parse(**values):
    evaluate.FLAGS.unparse_flags()
    evaluate.FLAGS(["evaluate", "--benchmark=judgebench", *(f"--{name}={value}" for name, value in values.items())])


@pytest.mark.parametrize("flag", ["data", "principles", "template"])
@pytest.mark.parametrize("name", ["judgebench.jsonl", "comparisons.jsonl", "rewardbench.json", "report.html"])
def test_nothing_that_is_read_is_written_over(tmp_path, monkeypatch, name, flag):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("x")
    (tmp_path / "d").write_text("y")
    parse(**{"output": tmp_path, "data": "d", "checkpoint": "c", flag: name})
    said = f"--output={tmp_path}/{name}: would be written over {name}, which this command uses"
    with pytest.raises(InputError, match=said):
        evaluate.check_output(catalogue.get("judgebench"), paths.parse(tmp_path, "--output"))
    parse(**{"output": tmp_path / "out", "data": "d", "checkpoint": "c", flag: name})
    evaluate.check_output(catalogue.get("judgebench"), tmp_path / "out")


def test_recorded_votes_are_not_written_over_and_may_lie_in_the_output(tmp_path):
    text = json.dumps({"id": "a", "scores": [[1, 2]], "best": 0}) + "\n"
    for name in ("judgebench.jsonl", "scores.jsonl"):
        (tmp_path / name).write_text(text)
    parse(output=tmp_path, scores=tmp_path / "judgebench.jsonl")
    with pytest.raises(InputError, match="judgebench.jsonl: would be written over"):
        evaluate.evaluate()
    assert {path.name for path in tmp_path.iterdir()} == {"judgebench.jsonl", "scores.jsonl"}
    parse(output=tmp_path, scores=tmp_path / "scores.jsonl")
    evaluate.evaluate()
    assert (tmp_path / "scores.jsonl").read_text() == text and (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", sorted(catalogue.BENCHMARKS))
def test_an_output_does_not_lie_where_it_would_be_read_as_data(tmp_path, name):
    benchmark = catalogue.get(name)
    for other in (*evaluate.LINES_WRITTEN, *evaluate.REPORTED):
        (tmp_path / other).write_text("{}\n")
    with pytest.raises(InputError) as unread:
        benchmark.read(tmp_path, "fatal", DataReport())
    assert benchmark.by_ending == ("holds no file named" not in str(unread.value))
    parse(output=tmp_path / "a" / "b", data=tmp_path, checkpoint="c")
    if benchmark.by_ending:
        with pytest.raises(InputError, match=f"--output={tmp_path}/a/b: lies in --data={tmp_path}, all files of which are the"):
            evaluate.check_output(benchmark, tmp_path / "a" / "b")
    else:
        evaluate.check_output(benchmark, tmp_path / "a" / "b")


def test_figures_that_do_not_exist_are_said_to(tmp_path, capsys):
    """Of one class there is no area under a curve."""
    (tmp_path / "votes.jsonl").write_text(json.dumps({"id": "a", "scores": [[11]], "label": "error", "subset": "t/m"}) + "\n")
    parse(output=tmp_path / "out", scores=tmp_path / "votes.jsonl", benchmark="realmistake")
    evaluate.evaluate()
    assert "vote@1: no figure; ties –, malformed 0.0\n" in capsys.readouterr().out
