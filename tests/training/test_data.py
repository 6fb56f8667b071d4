"""What a run makes of its records."""

import dataclasses
import json

import numpy as np
import pytest
from stand_ins import stand_in

from spct_jax import pipeline
from spct_jax.data.comparison import Turn
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records
from spct_jax.errors import InputError
from spct_jax.training import provenance, rl
from spct_jax.training.context import Dataset
from spct_jax.training.data import load_tokenizer
from spct_jax.training.fitting import demonstrations
from spct_jax.training.mixture import Mixture


def test_a_run_depends_on_what_its_sources_are_taken_for(micro_config, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')

    def values(train, **more):
        data = dataclasses.replace(micro_config.data, train=train, **more)
        found = provenance.values(provenance.absolute(dataclasses.replace(micro_config, data=data)), tmp_path)
        return {field: value for field, value in found.items() if field.startswith("data")}

    base = values(f"pairs:{path}")
    assert base == values(f"pairs:{tmp_path}/*.jsonl") == values(f"pairs:{path}", data_dir=str(tmp_path))
    assert not any(field.startswith("data.toy") or field in ("data.data_dir", "data.fields") for field in base)
    others = [values(f"math_pairs:{path}"), values(str(path)), values(f"pairs:{path}", fields=("prompt=q",)), values("toy:")]
    assert all(other != base for other in others)
    assert any(field.startswith("data.toy") for field in values(f"pairs:{path}", test="toy:"))
    path.write_text('{"prompt": "r", "chosen": "a", "rejected": "b"}\n')
    assert values(f"pairs:{path}") != base


FIELDS = ("train", "development", "test", "demonstrations", "general")


def prepared(config, workdir, **data):
    return pipeline.prepare(dataclasses.replace(config, data=dataclasses.replace(config.data, **data)), workdir)


def drawn(run):
    """What the first steps of fine-tuning and RL draw."""
    pools = [demonstrations(run, name)[0] for name in ("demonstrations", "general")]
    mixture = Mixture(run.config.seed, "sft", 8, 0.25, *pools)
    examples = [[(e.id, e.tokens()) for e in rows] for step in range(3) for rows in mixture.batch(step).values()]
    return examples, [rl.prompts_of(run, np.arange(len(run.dataset.train)), step) for step in range(3)]


def test_the_toy_world_named_as_a_source_gives_the_same_records_in_the_same_order(micro_config, tmp_path):
    plain = prepared(micro_config, tmp_path / "plain")
    for name, data in {"train": {"train": "toy:"}, "all": dict.fromkeys(FIELDS, "toy:")}.items():
        named = prepared(micro_config, tmp_path / name, **data)
        for field in FIELDS:
            assert list(getattr(named.dataset, field)) == list(getattr(plain.dataset, field)) != []
        assert named.dataset.responses.tolist() == plain.dataset.responses.tolist()
        assert named.dataset.reports == plain.dataset.reports and drawn(named) == drawn(plain)
        assert provenance.values(named.config, named.workdir) == provenance.values(plain.config, plain.workdir)


def test_the_tokenizer_is_of_the_demonstrations_that_the_first_stage_finds(micro_config, tmp_path):
    """And not of what their file held at an earlier start, which ended before there was a stage."""

    def model(workdir, word):
        lines = [{"turns": [{"role": "user", "content": f"{word} {i}"}], "completions": [word * 3]} for i in range(50)]
        (tmp_path / "shown.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        shown = {"train": "toy:", "demonstrations": str(tmp_path / "shown.jsonl"), "vocab_size": 320}
        prepared(micro_config, tmp_path / workdir, **shown, max_prompt=900)
        return (tmp_path / workdir / "tokenizer.model").read_bytes()

    assert model("again", "kettle") != model("again", "blossom") == model("anew", "blossom")


def test_a_tokenizer_that_cannot_be_of_that_size_is_refused_by_the_field(micro_config, tmp_path):
    micro_config.data.vocab_size = 100
    shown = Records.of([Demonstration(turns=(Turn("user", "tea"),), completions=("leaves",))])
    dataset = stand_in(Dataset, demonstrations=shown, general=Records.of([]))
    with pytest.raises(InputError, match="^config.data.vocab_size: cannot train a tokenizer of 100 pieces"):
        load_tokenizer(micro_config, dataset, tmp_path / "tokenizer.model")


def test_the_toy_world_stands_in_for_what_no_source_is_named_for(micro_config, tmp_path):
    shown = {"turns": [{"role": "user", "content": "say a"}], "completions": ["a"]}
    (tmp_path / "general.jsonl").write_text(json.dumps(shown) + "\n")
    general = str(tmp_path / "general.jsonl")
    plain, mixed = prepared(micro_config, tmp_path / "plain"), prepared(
        micro_config, tmp_path / "mixed", train="toy:", general=general
    )  # fmt: skip
    assert [d.completions for d in mixed.dataset.general] == [("a",)]
    for field in FIELDS[:-1]:
        assert list(getattr(mixed.dataset, field)) == list(getattr(plain.dataset, field))
    reports = mixed.dataset.reports
    assert set(reports) == {*FIELDS[:-1], general} and reports["test"].used == len(plain.dataset.test)


def test_the_toy_world_is_divided_where_that_is_asked_for(micro_config, tmp_path):
    divided = prepared(micro_config, tmp_path, train="toy:", split=(0.5, 0.25, 0.25)).dataset
    parts = [{c.id for c in part} for part in (divided.train, divided.development, divided.test)]
    assert all(parts) and set.union(*parts) == {c.id for c in prepared(micro_config, tmp_path / "plain").dataset.train}
    assert len(divided.demonstrations) == 64
