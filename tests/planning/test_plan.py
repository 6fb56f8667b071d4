import dataclasses
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import commands
import pytest

from spct_jax import config as config_lib
from spct_jax import plan
from spct_jax.config import validate
from spct_jax.errors import InputError
from spct_jax.models import sizes
from spct_jax.planning import search
from spct_jax.runtime import hardware, slices
from spct_jax.sharding.config import MeshConfig

EXPERIMENTS = sorted((pathlib.Path(__file__).parents[2] / "experiments").glob("gemma*.py"))


def load(path):
    """The experiment that its header plans: with the variant named there, if any."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    variant = re.search(rf"plan --config=experiments/{path.name}:?(\S*) --topology", path.read_text())[1]
    return module.get_config(variant) if variant else module.get_config()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_an_experiment_is_of_the_size_it_is_named_after_and_names_a_slice_that_its_batches_fit(path):
    config = load(path)
    validate(config)
    assert config.model == sizes.get(path.stem)
    topology = re.search(r"--topology=(\S+)", path.read_text())[1]
    hardware.parse_topology(topology)
    chosen = slices.parse(topology)
    assert f"\nHardware: {slices.describe(chosen, config.mesh.slices)}.\n" in path.read_text()
    shards = chosen.chips if config.mesh.strategy == "fsdp" else chosen.chips // config.mesh.tensor
    for stage in ("sft", "rft", "rl", "meta_rm"):
        chosen = getattr(config, stage)
        assert chosen.batch_size // chosen.accumulate % shards == 0, stage


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if "Plan:" in p.read_text()], ids=lambda p: p.stem)
def test_the_header_of_a_planned_experiment_is_what_its_plan_says(path):
    most, limit, update, seconds, hours = re.search(
        r"Plan: at most (\S+) of (\S+) GiB per chip, (\S+) in the GRPO update; a step of RL takes at least (\S+) s,\n"
        r"the paper's schedule at least (\S+) chip-hours\. ",
        path.read_text(),
    ).groups()
    page = (path.parents[1] / "docs" / "results" / "plans.md").read_text()
    plan = page[page.index(f"`python -m spct_jax.plan --config=experiments/{path.name}") :].partition("chip-hours.")[0]
    memory = re.findall(r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) \|", plan, re.MULTILINE)
    assert len(memory) == 8 and max(float(peak) + float(beside) for peak, beside in memory) == pytest.approx(
        float(most), abs=0.011
    )
    assert f"peak GiB of {limit} |" in plan and f"| grpo | {update} |" in plan
    assert f"takes at least {seconds} s" in plan and plan.rstrip().endswith(f"= {hours.replace(',', '')}")


@pytest.mark.parametrize("name", ["v5p", "v5p:4", "h100:2x2", "v5p:4x4x4x4", "v4:2x2x1"])
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
    shared = dataclasses.replace(config, mesh=MeshConfig(strategy="fsdp", tensor=2, rollout="tensor"))
    *_, before, last = [text for text, _ in search.remedies(shared, "grpo", 16)]
    assert before.endswith(" --config.mesh.strategy=fsdp_tensor") and last == f"{before} --config.mesh.tensor=4"
    texts = [text for text, _ in search.remedies(config, "reference", 16)]
    assert texts[0] == "--config.rl.accumulate=2" and not any("remat" in text for text in texts)


def test_candidates_fit_by_their_model_and_are_sorted():
    chip = hardware.CHIPS["v5e"]
    found = search.candidates(config_lib.paper(sizes.get("gemma2_2b")), chip, 16)
    assert found and all(c.memory <= chip.hbm for c in found)
    assert [c.seconds for c in found] == sorted(c.seconds for c in found)


def test_slices_that_fit_are_told_from_those_that_do_not_and_those_that_cannot_be_used(monkeypatch, tmp_path):
    config = config_lib.paper(sizes.get("gemma2_2b"))
    told = []

    def planned(config, topology, cache, only, while_fits):
        assert while_fits and cache == tmp_path and only == ["grpo", "decode"]
        if topology == "v5e:1x1":
            raise InputError("tensor=4 needs 4 devices")
        gib = {"v5e:4x4": 10, "v5e:2x4": 15, "v5e:2x2": 20}[topology] * hardware.GIB
        result = {"peak": gib, "beside": hardware.GIB // 2, "limit": 16 * hardware.GIB, "fits": topology != "v5e:2x2"}
        return {"decode": result | {"peak": 0, "fits": True}, "grpo": result}

    monkeypatch.setattr(plan, "plan", planned)
    plan.fit(config, slices.at_most("v5e:16"), tmp_path, ["grpo", "decode"], told.append)
    found = [line.partition("): ")[2] for line in told]
    assert found == [
        "fits, at most 10.50 of 16.00 GiB in grpo",
        "fits, at most 15.50 of 16.00 GiB in grpo",
        "does not fit: 20.50 of 16.00 GiB in grpo",
        "cannot be used: tensor=4 needs 4 devices",
    ]
    assert told[0].startswith("one slice v5e:4x4 (16 chips, 4 hosts")


def run_plan(*arguments):
    command = [sys.executable, "-m", "spct_jax.plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_wrong_topology_ends_with_one_line():
    done = run_plan("--topology=v9:2x2")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--topology=v9:2x2" in done.stderr


@pytest.mark.tpu_compiler
def test_a_small_experiment_is_planned(tmp_path):
    small = ["--config.model.num_layers=2", "--config.mesh.strategy=fsdp"]
    programs = "--programs=reshard,prefill,decode,reference,grpo"
    done = run_plan("--topology=v5e:2x2", programs, *small, f"--json={tmp_path / 'plan.json'}", f"--cache={tmp_path}")
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["fits"] and plan["step"] == {}, "without the programs of other stages"
    for name, result in plan["programs"].items():
        if result["flops_by_hand"]:
            assert result["flops"] == pytest.approx(result["flops_by_hand"], rel=0.05), name
    assert "| grpo |" in done.stdout

    before = set(tmp_path.glob("*.gz"))
    fit = run_plan("--fit=v5e:4", "--programs=decode", *small, f"--cache={tmp_path}")
    of_four, of_one = fit.stdout.splitlines()
    assert of_four.startswith("one slice v5e:2x2 ") and ": fits, at most " in of_four and " in decode" in of_four
    assert of_one.startswith("one slice v5e:1x1 ")
    assert len(set(tmp_path.glob("*.gz")) - before) <= 1  # that of v5e:2x2 was there


def test_a_slice_and_a_number_of_chips_are_not_asked_for_at_once():
    for flags in ([], ["--topology=v5e:2x2", "--fit=v5e:4"]):
        done = commands.completed("spct_jax.plan", *flags)
        assert done.returncode == 2 and "error: give one of --topology=SLICE and --fit=CHIP:N" in done.stderr
