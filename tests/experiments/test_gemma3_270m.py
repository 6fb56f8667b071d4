import importlib
import pathlib
import subprocess
import sys

import pytest

from spct_jax import cli
from spct_jax.config import SYSTEMS, validate
from spct_jax.errors import InputError
from spct_jax.models import sizes

STUDIES = pathlib.Path(__file__).parents[2] / "experiments" / "studies"
EXPERIMENT = pathlib.Path(__file__).parents[2] / "experiments" / "gemma3_270m.py"


@pytest.mark.parametrize("system", ["", *SYSTEMS])
@pytest.mark.parametrize("machine", ["", "gpu", "tpu"])
def test_every_variant_is_an_experiment(machine, system):
    config = cli.load_config(f"{EXPERIMENT}:{','.join(filter(None, (machine, system)))}")
    validate(config)
    assert config.model.vocab_size == sizes.get("gemma3_270m").vocab_size
    assert config.data.max_prompt + 2 * config.data.max_completion <= 2048
    assert config.data.demonstrations.endswith(f"demonstrations_{'judge' if system == 'llm_judge' else system}.jsonl") == (
        system in ("llm_judge", "cloud", "no_principles")
    )


def test_unknown_variants_are_refused():
    with pytest.raises(InputError, match="unknown variant 'cpus'"):
        cli.load_config(f"{EXPERIMENT}:cpus")
    with pytest.raises(InputError, match="more than one"):
        cli.load_config(f"{EXPERIMENT}:gpu,btrm,cloud")


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("gemma3_270m")


@pytest.mark.parametrize(
    ("config", "system", "expected"),
    [
        ("x/y.py", "grm", "x/y.py"),
        ("x/y.py", "btrm", "x/y.py:btrm"),
        ("x/y.py:gpu", "grm", "x/y.py:gpu"),
        ("x/y.py:gpu", "btrm", "x/y.py:gpu,btrm"),
    ],
)
def test_a_system_is_a_variant(study, config, system, expected):
    assert study.variant(config, system) == expected


def test_every_command_names_its_own_files(study, tmp_path):
    found = study.commands(f"{EXPERIMENT}:gpu", ["--config.seed=3"], "/model", tmp_path, ["grm", "cloud"])
    assert list(found) == ["grm", "cloud", "likelihood", "expected", "report"]
    config = cli.read_config([flag for flag in found["cloud"] if flag.startswith("--config")])
    assert (config.seed, config.init_checkpoint, config.stages) == (3, "/model", ("sft", "cloud", "evaluate"))
    assert config.data.demonstrations == str(tmp_path / "data" / "demonstrations_cloud.jsonl")
    assert f"--workdir={tmp_path / 'grm'}" in found["grm"] and pathlib.Path(found["report"][1]).exists()


def test_what_the_study_names_itself_is_refused(tmp_path):
    flags = [f"--model={tmp_path}", f"--data={tmp_path}", f"--workdir={tmp_path}", "--config.data.train=x"]
    done = subprocess.run([sys.executable, STUDIES / "gemma3_270m.py", *flags], capture_output=True, text=True)
    assert done.returncode == 2 and "--config.data.train=x: this study names" in done.stderr
