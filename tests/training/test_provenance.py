"""What a stage depends on, also of data that is mixed, divided and cleaned."""

import pathlib

from spct_jax import config as config_lib
from spct_jax.config import STAGES
from spct_jax.data import chat
from spct_jax.data.config import DataConfig
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
    left = {field for field in found if field.split(".")[0] not in provenance.FREE} - read
    assert left == {"data.development", "data.toy.development"}
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
