"""Programs of an update are compiled beside each other, and what goes wrong in one is said."""

import os
import threading

import jax
import pytest

from spct_jax.training import micro_batches
from spct_jax.training.micro_batches import Part


class Program:
    def __init__(self, compile_):
        self.compile = compile_


@pytest.fixture
def no_cache():
    directory = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", directory)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_programs_are_compiled_at_once(no_cache):
    meeting = threading.Barrier(2, timeout=60)
    micro_batches.compile_all([Part(Program(meeting.wait), 1, 0)] * 2)


def test_where_programs_are_kept_the_caller_compiles_for_a_cpu():
    assert jax.config.jax_compilation_cache_dir and jax.default_backend() == "cpu"
    compiled_by = []
    micro_batches.compile_all([Part(Program(lambda: compiled_by.append(threading.current_thread())), 1, 0)] * 2)
    assert compiled_by == [threading.current_thread()] * 2


def test_an_error_of_the_compiler_is_raised():
    def fails():
        raise RuntimeError("out of registers")

    with pytest.raises(RuntimeError, match="out of registers"):
        micro_batches.compile_all([Part(Program(lambda: None), 1, 0), Part(Program(fails), 1, 0)])
