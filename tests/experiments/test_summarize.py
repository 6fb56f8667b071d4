import importlib.util
import json
import pathlib

import pytest
import synthetic

PATH = pathlib.Path(__file__).parents[2] / "experiments" / "studies" / "summarize.py"


@pytest.fixture(scope="module")
def summarize():
    spec = importlib.util.spec_from_file_location("summarize", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        synthetic.write_workdir(root / f"full{seed}", seed=seed, problems=150)
        synthetic.write_workdir(root / f"plain{seed}", seed=seed, problems=150, skill=0.2)
    return root


def call(summarize, runs, *ablation, names=("full0", "full1", "full2")):
    extra = ["--ablation", *(str(runs / name) for name in ablation)] if ablation else []
    directories = [str(runs / name) for name in names]
    output = runs / "out" / "tiny.md"
    status = summarize.main(["--runs", *directories, *extra, "--output", str(output), "--command", "train --it"])
    return status, output


def test_page(summarize, runs):
    status, output = call(summarize, runs, "plain0", "plain1", "plain2")
    text = output.read_text()
    assert status == 0 and output.with_suffix(".png").stat().st_size > 10_000
    assert "```sh\ntrain --it\n```" in text and "![accuracy of every run](tiny.png)" in text
    assert "| sft greedy \\< rft greedy | pass | pass | pass |" in text
    assert "3 runs, 135 test problems" in text
    assert "drawn once for all seeds" in text
    ablation = next(line for line in text.splitlines() if line.startswith("| rl greedy | 3 |"))
    assert ablation.endswith("| yes |")


def test_failures_are_stated(summarize, runs):
    rft, sft = (runs / "full1" / "evaluate" / f"{stage}_greedy.jsonl" for stage in ("rft", "sft"))
    kept = rft.read_text()
    rft.write_text(sft.read_text())
    try:
        text = call(summarize, runs)[1].read_text()
    finally:
        rft.write_text(kept)
    assert "| sft greedy \\< rft greedy | pass | FAIL | pass |" in text
    assert "Ablation" not in text


@pytest.mark.parametrize(
    ("names", "ablation", "message"),
    [
        (("full0", "plain0"), (), "seed 0 again"),
        (("full0",), ("plain1",), "no ablation run has the seed"),
        (("absent",), (), "has no config.json"),
    ],
)
def test_one_line_of_error(summarize, runs, capsys, names, ablation, message):
    assert call(summarize, runs, *ablation, names=names)[0] == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_mean_and_standard_deviation_by_hand(summarize, tmp_path):
    for seed, right in ((0, 6), (1, 8)):
        rows = [
            {
                "id": str(i),
                "n": 2,
                "best": 0,
                "single": False,
                "samples": [{"order": [0, 1], "scores": [2, 1] if i < right else [1, 2], "meta": None, "text": None}],
            }
            for i in range(10)
        ]
        directory = tmp_path / str(seed) / "evaluate"
        directory.mkdir(parents=True)
        (directory / "rl_greedy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / str(seed) / "config.json").write_text(json.dumps({"seed": seed}))
    status, output = call(summarize, tmp_path, names=("0", "1"))
    text = output.read_text()
    assert status == 0
    assert "| mean | 70.0 |" in text and "| standard deviation | 14.1 |" in text
    assert "not measured" in text
