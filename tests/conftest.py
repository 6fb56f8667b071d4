"""Fixtures shared by all tests; JAX sees two CPU devices, as the tiny experiment does, whatever else is installed."""

import importlib.util
import os
import pathlib
import tempfile

import jax
import pytest
import shape_checks  # noqa: F401 (before anything of the package)

from spct_jax import config as config_lib
from spct_jax import sharding

# What one process of the tests compiles the others find; a third of the time goes into it otherwise.
# A directory of the developer's own keeps it from one run of the tests to the next.
COMPILED = tempfile.TemporaryDirectory(prefix="spct_jax_tests_")
SETTINGS = {
    "jax_platforms": os.environ.get("JAX_PLATFORMS", "cpu"),
    "jax_compilation_cache_dir": os.environ.get("JAX_COMPILATION_CACHE_DIR", COMPILED.name),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}
for name, value in SETTINGS.items():  # here, and in the processes that tests start
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
sharding.use_devices(config_lib.MeshConfig(cpu_devices=2))


SLOWEST = (
    "test_train.py",
    "judging/test_judge.py",
    "test_judge_command.py",
    "sharding/test_layouts.py",
    "models/test_sizes.py",
)
"""Files of tests that are begun first, so that at the end no process waits for another one's long file."""


def pytest_collection_modifyitems(items):
    """Puts the slowest files first, and skips what needs the TPU compiler where there is none."""
    first = {pathlib.Path(__file__).parent / name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
    if importlib.util.find_spec("libtpu") is None:
        for item in items:
            if item.get_closest_marker("tpu_compiler"):
                item.add_marker(pytest.mark.skip(reason="needs the TPU compiler (pip install -e '.[plan]')"))


@pytest.fixture
def micro_config():
    """As of `make_micro_config`."""
    return make_micro_config()


def make_micro_config():
    """Every stage of the tiny experiment with next to no work in it."""
    config = config_lib.tiny()
    config.data.toy = config_lib.ToyConfig(train=48, development=16, test=24, demonstrations=64, general=16)
    config.sft.steps = 2
    config.sft.batch_size = 8
    config.rejection.problems = 24
    config.rejection.batch_size = 16
    config.rft.steps = 2
    config.rft.batch_size = 8
    config.rl.steps = 2
    config.rl.batch_size = 8
    config.meta_rm.steps = 2
    config.meta_rm.batch_size = 8
    config.evaluation.problems = 10
    config.evaluation.k = (1, 4)
    config.evaluation.buckets = ((68, 60),)
    config.evaluation.compare_temperatures = ()
    config.evaluation.slots = 32
    config.checkpoint.every_steps = 1
    return config
