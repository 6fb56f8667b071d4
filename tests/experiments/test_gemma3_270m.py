import pathlib

import pytest

from spct_jax import cli
from spct_jax.config import SYSTEMS, validate
from spct_jax.errors import InputError
from spct_jax.models import sizes

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
