"""What a stage depends on, also of data that is mixed, divided and cleaned."""

import dataclasses
import json
import pathlib

import pytest

from spct_jax import config as config_lib
from spct_jax import pipeline
from spct_jax.config import STAGES
from spct_jax.data import chat
from spct_jax.data.config import DataConfig
from spct_jax.errors import InputError
from spct_jax.training import provenance


def test_a_stage_depends_on_what_it_reads(tmp_path):
    sources = {name: str(tmp_path / f"{name}.jsonl") for name in ("a", "b", "shown", "bench")}
    for name, path in sources.items():
        pathlib.Path(path).write_text(name)

    def reads(stage, **changes):
        data = {"train": f"1*{sources['a']} + 1*{sources['b']}", "split": (0.8, 0.1, 0.1), "demonstrations": sources["shown"]}
        config = config_lib.tiny()
        config.data = DataConfig(**data | changes)
        return provenance.read_by(stage, config, provenance.values(provenance.absolute(config), tmp_path))

    mixed = reads("rl")["data.train"]
    assert mixed.startswith("1*") and " + 1*" in mixed and reads("evaluate")["data.train"] == mixed
    assert (
        reads("rl")["data.split"] == [0.8, 0.1, 0.1] and "data.split" not in reads("sft") and "data.train" not in reads("sft")
    )
    assert reads("rl", train=f"2*{sources['a']} + 1*{sources['b']}")["data.train"] == mixed.replace("1*", "2*", 1)
    clean = reads("sft", decontaminate=(sources["bench"],))["data.decontaminate"]
    with open(sources["bench"], "a") as file:
        file.write("!")
    assert len(clean) == 1 and reads("sft", decontaminate=(sources["bench"],))["data.decontaminate"] != clean


def test_every_field_is_read_by_a_stage_or_free(micro_config, tmp_path):
    found, micro_config.stages = provenance.values(micro_config, tmp_path), STAGES
    read = {field for stage in STAGES for field in provenance.read_by(stage, micro_config, found)}
    left = {field for field in found if not provenance.is_free(field)} - read
    assert left == {"data.development", "data.toy.development"}
    free = (
        "mesh.tensor",
        "rl.slots",
        "rejection.slots",
        "sft.accumulate",
        "meta_rm.accumulate",
        "model.remat",
        "checkpoint.keep",
    )
    assert all(map(provenance.is_free, free)) and not any(map(provenance.is_free, ("rl.batch_size", "model.width", "seed")))
    micro_config.stages, micro_config.meta_rm.policy_data = ("sft", "meta_rm"), "draws"
    assert "rejection.samples" in provenance.read_by("meta_rm", micro_config, found)


def test_a_model_of_another_chat_format_is_another_model(tmp_path):
    """Also where nothing but the template of its chats was changed."""
    config, found = config_lib.tiny(), []
    config.init_checkpoint = str(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    for template in ("", *(one.jinja for one in chat.FORMATS.values())):
        (tmp_path / "chat_template.jinja").write_text(template)
        found.append(provenance.values(config, tmp_path)["init_checkpoint"])
    assert len({*found}) == len(found) > 2


def test_a_stage_behind_it_does_not_change_what_an_unfinished_stage_learns_from(micro_config, tmp_path):
    """A scalar baseline reads responses by themselves, so that fewer comparisons fit: all have other numbers then."""
    lines = [{"query": "q", "responses": ["a " * (60 if i % 5 == 4 else 2), "b"], "scores": [1, 0]} for i in range(40)]
    shown = [{"turns": [{"role": "user", "content": f"say {i} a b q"}], "completions": [f"a b {i}"]} for i in range(50)]
    for name, records in (("train", lines), ("demonstrations", shown)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        setattr(micro_config.data, name, str(tmp_path / f"{name}.jsonl"))
    data, workdir = micro_config.data, tmp_path / "run"
    data.on_bad, data.vocab_size, data.max_prompt, data.max_completion = "skip", 330, 400, 40

    def prepare(*stages):
        return pipeline.prepare(dataclasses.replace(micro_config, stages=stages), workdir)

    run = prepare("sft", "rejection", "rl")
    values = provenance.values(run.config, workdir) | provenance.fitting(run.dataset.train)
    for stage in run.config.stages:
        provenance.begin(stage, run.config, workdir, values)
    assert len(prepare("sft", "rejection", "rl", "meta_rm").dataset.train) == 40
    with pytest.raises(InputError, match=r"config\.stages: .*\(32\) are not those that rejection began with \(40\)"):
        prepare("sft", "rejection", "rl", "btrm")
    for stage in run.config.stages:
        (workdir / stage / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="those that rejection began with"):
        prepare("sft", "rejection", "rl", "meta_rm", "btrm")  # the meta RM reads completions of all 40
    assert len(prepare("sft", "rejection", "rl", "btrm").dataset.train) == 32
