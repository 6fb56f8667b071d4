"""The page of plans, from plans' files."""

import contextlib
import json
import pathlib
import types

import pytest
import study_modules

from spct_jax import cli
from spct_jax.errors import InputError
from spct_jax.planning import report
from spct_jax.runtime import hardware

NAMES = ("reshard", "preamble", "prefill", "decode", "reference", "grpo", "sft", "meta_rm")


@pytest.fixture
def plan(monkeypatch, tmp_path) -> pathlib.Path:
    """A plan of an experiment, every program of which takes a second, or two by the estimate."""
    monkeypatch.chdir(study_modules.STUDIES.parents[1])
    config, chip = cli.load_config("experiments/gemma3_1b.py"), hardware.CHIPS["v5e"]
    estimate = {"seconds": 2.0, "pallas": 0.0, "copies": 0.1, "kernels": 5, "unknown": 0, "largest": []}
    sizes = {
        "peak": 2 << 30,
        "beside": 1 << 30,
        "limit": chip.hbm,
        "fits": True,
        "tokens": 512,
        "note": "",
        "bytes": 1e9,
        "sent": 0.0,
        "seconds": {"compute": 1.0},
    }
    program = sizes | {
        "flops": 1e12,
        "flops_by_hand": 1e12,
        "collectives": {},
        "bound": "memory",
        "lower_bound": 1.0,
        "estimate": estimate,
    }
    path = tmp_path / "gemma3_1b.json"
    path.write_text(report.as_json(config, "v5e:2x2", 4, {name: program for name in NAMES}))
    return path


def test_a_page_has_a_row_and_the_whole_plan_of_every_experiment(plan):
    with study_modules.imported("plan_page") as (study,):
        page = study.page([plan], "abcdef0")
    row = next(line for line in page.splitlines() if line.startswith("| Gemma-3 1B |"))
    assert row.split(" | ")[1:5] == ["v5e:2x2", "3.0 of 15.8", "1.0 / 2.0", "1000.0 / 2000.0"]
    assert "at abcdef0." in page and "| grpo | 2.00 | 1.00 |" in page
    step = json.loads(plan.read_text())["step"]
    assert (
        f"{step['seconds']:.1f} / {step['estimated_seconds']:.1f}" in row and f"takes at least {step['seconds']:.1f} s" in page
    )


def test_a_plan_of_another_configuration_or_of_some_programs_is_refused(plan):
    made = json.loads(plan.read_text())
    with study_modules.imported("plan_page") as (study,):
        plan.write_text(json.dumps(made | {"step": {}}))
        with pytest.raises(InputError, match="not all programs were planned"):
            study.page([plan], "abcdef0")
        made["config"]["rl"]["accumulate"] = 1
        plan.write_text(json.dumps(made))
        with pytest.raises(InputError, match="not a plan of experiments/gemma3_1b.py as it is now"):
            study.page([plan], "abcdef0")


def test_at_real_lengths_what_is_computed_is_scaled_by_operations_and_what_is_sent_is_not(plan, monkeypatch):
    made = json.loads(plan.read_text())
    made["programs"]["grpo"]["seconds"] = {"compute": 1.0, "links": 0.1}
    made["programs"]["meta_rm"]["seconds"] = {"compute": 0.1, "links": 0.5}
    plan.write_text(json.dumps(made))
    with study_modules.imported("plan_page", "real_lengths") as (page, study):
        layout = types.SimpleNamespace(constraints=contextlib.nullcontext)
        monkeypatch.setattr(study.hardware, "slice_devices", lambda *_: [])
        monkeypatch.setattr(study.context, "make_layouts", lambda *_: (layout, layout))
        config, _ = page.read(plan)
        found, share = study.times(config, made), study.share(config, "grpo")
        table = study.table([plan])
    # 872 + 4 x 306 of 4,096 + 4 x 1,024 slots: a quarter of the tokens, and less than that of what attends.
    assert 0.15 < share < (872 + 4 * 306) / (4096 + 4 * 1024)
    assert found["update"] == (pytest.approx(share), pytest.approx(2 * share))
    assert found["a step of the meta RM"][0] == 0.5
    assert found["a step of RL"][1] == pytest.approx(sum(found[part][1] for part in ("rollout", "reference", "update")))
    assert "| a step of RL |" in table and "Gemma-3 1B" in table
