"""The clock that tells how long devices had nothing to do."""

from concurrent import futures

import jax.numpy as jnp
import pytest

from spct_jax.runtime import idle


def test_devices_are_idle_from_the_end_of_what_they_were_given_last_to_what_they_are_given_next(monkeypatch):
    clock, now, ends = idle.IdleClock(), 100.0, {}
    monkeypatch.setattr(idle.time, "perf_counter", lambda: now)

    def submit(_, result):
        ends[result] = futures.Future()
        return ends[result]

    clock._watcher = type("Watcher", (), {"submit": staticmethod(submit)})
    clock.giving()
    clock.gave("a")
    ends["a"].set_result(101.0)
    now = 101.5
    clock.giving()  # half a second after it had ended
    now = 102.0
    clock.giving()  # told twice: nothing was given in between
    clock.gave("b")
    clock.giving()  # while b runs
    clock.gave("c")
    assert clock.seconds == 0.5
    ends["b"].set_result(103.0)
    now = 104.0
    clock.giving()  # c still runs
    assert clock.seconds == 0.5
    clock.gave("d")
    ends["d"].set_result(104.0)
    now = 104.25
    clock.giving()
    assert clock.seconds == 0.75


def test_it_watches_arrays_by_itself():
    clock = idle.IdleClock()
    clock.giving()
    clock.gave({"x": jnp.ones(3), "number": 1, "none": None})
    clock._ended.result(10)
    clock.giving()
    assert clock.seconds == pytest.approx(0, abs=10) and clock.seconds > 0
