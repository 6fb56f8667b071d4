"""Fixtures shared by all tests; JAX sees two CPU devices, as the tiny experiment does, whatever else is installed."""

import dataclasses
import gc
import importlib.util
import os
import pathlib
import tempfile

import jax
import pytest
import shape_checks  # noqa: F401 (before anything of the package)
from shared_programs import shared_programs  # noqa: F401

import micro_experiment
from spct_jax import config as config_lib
from spct_jax import sharding
from spct_jax.runtime import hardware

# What one process of the tests compiles the others find; a third of the time goes into it otherwise.
# A directory of the developer's own keeps it from one run of the tests to the next.
COMPILED = tempfile.TemporaryDirectory(prefix="spct_jax_tests_")
SETTINGS = {
    "jax_platforms": os.environ.get("JAX_PLATFORMS", "cpu"),
    "jax_compilation_cache_dir": os.environ.get("JAX_COMPILATION_CACHE_DIR", COMPILED.name),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    # Where in Python an operation comes from, which is written down for each and carried through XLA; a tenth of the time.
    "jax_traceback_in_locations_limit": 0,
}
# Most programs here take longer to compile than to run. Without LLVM's optimisation, and with XLA's older code for fusions,
# which compiles faster, all stages in miniature take 75 s of CPU time instead of 137; and a program in one piece, which only
# one core compiles, takes a fifth less of it than in 32.
QUICKLY = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ["XLA_FLAGS"] = " ".join((*QUICKLY, os.environ.get("XLA_FLAGS", "")))
for name, value in SETTINGS.items():  # here, and in the processes that tests start
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
sharding.use_devices(config_lib.MeshConfig(cpu_devices=2))
# Tracing makes millions of objects that stay; by Python's own thresholds a fifth of the time goes into looking through them.
gc.set_threshold(50_000, 20, 50)


SLOWEST = (
    "test_train.py",
    "sharding/test_layouts.py",
    "test_train_killed.py",
    "launching/test_rehearsal.py",
    "test_judge_command.py",
    "training/test_accumulation.py",
    "sampling/test_engine.py",
)
"""Files of tests that are begun first, so that at the end no process waits for another one's long file.

Runs that are killed come after those of test_train.py, whose compiled programs are theirs.
"""


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
    """As of `micro_experiment.make_config`."""
    return micro_experiment.make_config()


@pytest.fixture
def known_chip(monkeypatch):
    """The host's CPU passes for a chip of two operations and a byte a second."""
    chip = dataclasses.replace(hardware.CHIPS["v5e"], kind=jax.devices()[0].device_kind, flops=2.0, hbm_bandwidth=1.0)
    monkeypatch.setitem(hardware.CHIPS, "fake", chip)
