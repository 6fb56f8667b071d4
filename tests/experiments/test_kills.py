"""What the kill test reads off a run: the step a life went on from, what was lost, and what a kill is aimed at."""

import json
import os

import pytest

LOG = (
    "sft:  33%|###       | 4/12 [00:00<?, ?step/s]\rsft:  50%|#####     | 6/12 [00:01<00:03, 2.00step/s]\n"
    "rl:   0%|          | 0/6 [00:00<?, ?step/s]\rsft_greedy: 100%|##########| 9/9 [00:01<00:00]"
)


@pytest.fixture
def kills(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath / "experiments" / "studies")
    import kills

    return kills


def test_a_life_goes_on_where_its_first_bars_begin(kills):
    assert kills.first_steps(LOG) == {"sft": 4, "rl": 0}


def test_a_life_has_reached_a_stage_once_it_is_at_work_in_it_or_a_later_one(kills):
    assert [stage for stage in kills.STAGES if kills.has_reached(stage, LOG)] == list(kills.STAGES)
    begun = LOG.partition("rl: ")[0]
    assert [stage for stage in kills.STAGES if kills.has_reached(stage, begun)] == ["sft"]
    drawn = "\rrejection draws:  50%|#####     | 1/2"
    assert [stage for stage in kills.STAGES if kills.has_reached(stage, drawn)] == ["sft", "rejection"]
    assert not kills.has_reached("meta_rm", "meta_rm draws:  50%|#####     | 1/2")


def test_the_stage_of_a_run_in_a_bucket_is_told_by_names(kills):
    names = ["config.json", "sft/summary.json", "sft/checkpoints/2/a", "rejection/hinted_000000.jsonl"]
    assert kills.stage_among(names) == "rejection"
    assert kills.stage_among(names[:3]) == kills.stage_among(["config.json"]) == ""


def test_a_lost_or_damaged_checkpoint_is_a_fault(kills):
    assert kills.faults({"sft": 4, "rl": 0}, LOG) == []
    assert kills.faults({"sft": 6, "rl": 0}, LOG) == ["sft went back to 4, though 6 was saved"]
    said = "run/sft: checkpoint 6 is damaged (its bits are not those that were saved); going back to an earlier one"
    assert kills.faults({}, f"{said}\n") == [said]


def test_only_saves_of_this_life_are_aimed_at(kills, tmp_path):
    torn = tmp_path / "sft" / "checkpoints" / "6.orbax-checkpoint-tmp"
    torn.mkdir(parents=True)
    (torn.parent / "4").mkdir()
    assert kills.finished_saves(tmp_path)["sft"] == 4
    os.utime(torn, (100, 100))
    assert kills.saving(tmp_path, 99) == "the save of step 6 of sft"
    assert kills.saving(tmp_path, 101) == ""


def test_a_rollout_is_aimed_at_between_an_update_and_its_file(kills, tmp_path):
    rollouts = tmp_path / "rl" / "rollouts"
    rollouts.mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps({"rl": {"steps": 3}}))
    metrics = tmp_path / "rl" / "metrics.jsonl"

    def made(path, when, text=""):
        path.write_text(text)
        os.utime(path, (when, when))

    made(metrics, 100, "{}\n")
    made(rollouts / "000000.jsonl", 90)
    made(rollouts / "000001.jsonl", 91)
    assert kills.rolling_out(tmp_path, 80) == "", "step 1 is drawn"
    assert kills.rolling_out(tmp_path, 90) == "", "no update yet in this life"
    made(rollouts / "000000.jsonl", 99)
    assert kills.rolling_out(tmp_path, 95) == "the rollout of step 1 of rl" and kills.updating(tmp_path, 95) == ""
    made(rollouts / "000001.jsonl", 101)
    assert kills.rolling_out(tmp_path, 95) == "" and kills.updating(tmp_path, 95) == "the update of step 1 of rl"
    made(metrics, 102, "{}\n" * 3)
    made(rollouts / "000002.jsonl", 101)
    for aim in (kills.rolling_out, kills.updating):
        assert aim(tmp_path, 95) == "", "the stage's last update is done"
