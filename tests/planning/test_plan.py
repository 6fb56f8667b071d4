import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

from spct_jax import config as config_lib
from spct_jax import hardware
from spct_jax.config import validate
from spct_jax.errors import InputError
from spct_jax.models import sizes
from spct_jax.planning import search
from spct_jax.sharding.config import MeshConfig

EXPERIMENTS = sorted((pathlib.Path(__file__).parents[2] / "experiments").glob("gemma*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_an_experiment_is_of_the_size_it_is_named_after_and_names_a_slice_that_its_batches_fit(path):
    config = load(path)
    validate(config)
    assert config.model == sizes.get(path.stem)
    topology = re.search(r"--topology=(\S+)", path.read_text())[1]
    hardware.parse_topology(topology)
    devices = 1
    for size in topology.partition(":")[2].split("x"):
        devices *= int(size)
    shards = devices // config.mesh.tensor
    for stage in ("sft", "rft", "rl", "meta_rm"):
        chosen = getattr(config, stage)
        assert chosen.batch_size // chosen.accumulate % shards == 0, stage


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if "Plan:" in p.read_text()], ids=lambda p: p.stem)
def test_the_header_of_a_planned_experiment_is_what_its_plan_says(path):
    most, limit, update, seconds, hours = re.search(
        r"Plan: at most (\S+) of (\S+) GiB per chip, (\S+) in the GRPO update; a step of RL takes at least (\S+) s,\n"
        r"the paper's schedule at least (\S+) chip-hours.",
        path.read_text(),
    ).groups()
    page = (path.parents[1] / "docs" / "plan.md").read_text()
    plan = page[page.index(f"`python -m spct_jax.plan --config=experiments/{path.name}") :].partition("chip-hours.")[0]
    memory = re.findall(r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) \|", plan, re.MULTILINE)
    assert len(memory) == 8 and max(float(peak) + float(beside) for peak, beside in memory) == pytest.approx(
        float(most), abs=0.011
    )
    assert f"peak GiB of {limit} |" in plan and f"| grpo | {update} |" in plan
    assert f"takes at least {seconds} s" in plan and plan.rstrip().endswith(f"= {hours.replace(',', '')}")


@pytest.mark.parametrize("name", ["v5p", "v5p:4", "h100:2x2", "v5p:4x4x4x4"])
def test_a_wrong_topology_is_named(name):
    with pytest.raises(InputError, match=re.escape(name)):
        hardware.parse_topology(name)


def test_what_may_make_an_update_fit_is_tried_in_order_each_beside_the_ones_before():
    config = config_lib.paper(sizes.get("gemma2_2b"))
    config.mesh = MeshConfig(strategy="fsdp")
    config.rl.batch_size = 64
    config.rl.ref_dtype = "float32"
    texts = [text for text, _ in search.remedies(config, "grpo", 16)]
    assert texts[:2] == ["--config.rl.accumulate=2", "--config.rl.accumulate=4"]
    assert texts[2].endswith("--config.model.time_chunk=32")
    assert texts[3].endswith("--config.rl.ref_dtype=bfloat16") and texts[4].endswith("--config.rl.optimizer.name=adafactor")
    assert texts[5].endswith("--config.mesh.strategy=fsdp_tensor --config.mesh.tensor=2")
    assert config.rl.accumulate == 1
    texts = [text for text, _ in search.remedies(config, "reference", 16)]
    assert texts[0] == "--config.rl.accumulate=2" and not any("remat" in text for text in texts)


def test_candidates_fit_by_their_model_and_are_sorted():
    chip = hardware.CHIPS["v5e"]
    found = search.candidates(config_lib.paper(sizes.get("gemma2_2b")), chip, 16)
    assert found and all(c.memory <= chip.hbm for c in found)
    assert [c.seconds for c in found] == sorted(c.seconds for c in found)


def run_plan(*arguments):
    command = [sys.executable, "-m", "spct_jax.plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_wrong_topology_ends_with_one_line():
    done = run_plan("--topology=v9:2x2")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--topology=v9:2x2" in done.stderr


@pytest.mark.tpu_compiler
def test_a_small_experiment_is_planned(tmp_path):
    small = ["--config.model.num_layers=12", "--config.mesh.strategy=fsdp"]
    done = run_plan("--topology=v5e:2x2", *small, f"--json={tmp_path / 'plan.json'}", f"--cache={tmp_path}")
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["fits"] and plan["step"]["seconds"] > 0
    for name, result in plan["programs"].items():
        if result["flops_by_hand"]:
            assert result["flops"] == pytest.approx(result["flops_by_hand"], rel=0.05), name
    assert "| grpo |" in done.stdout
