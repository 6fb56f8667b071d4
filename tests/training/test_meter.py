"""Speed, memory and traces of training steps."""

import pytest

from spct_jax.training import meter


class Device:
    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def test_speed_leaves_compiling_out():
    assert meter.speed(600, {"seconds": 2, "compile_seconds": 1}, {"seconds": 9, "compile_seconds": 5}) == 200


def test_memory_is_of_the_fullest_device_and_absent_where_unknown():
    known = [Device({"bytes_in_use": 3, "peak_bytes_in_use": 9}), Device({"bytes_in_use": 5, "peak_bytes_in_use": 7})]
    assert meter.memory(known) == {"device_memory_bytes": 5.0, "device_memory_peak_bytes": 9.0}
    assert meter.memory([*known, Device(None)]) == {}


@pytest.mark.parametrize(
    ("steps", "first", "events"), [((2, 4), 0, ["start 2", "stop 4"]), ((2, 9), 3, ["start 3", "stop 6"]), ((0, 0), 0, [])]
)
def test_the_profiler_covers_its_steps(monkeypatch, tmp_path, steps, first, events):
    seen, now = [], [first]
    monkeypatch.setattr(meter.jax.profiler, "start_trace", lambda _: seen.append(f"start {now[0]}"))
    monkeypatch.setattr(meter.jax.profiler, "stop_trace", lambda: seen.append(f"stop {now[0]}"))
    with meter.Profiler(tmp_path, steps) as profiler:
        for now[0] in range(first, 6):
            profiler.before(now[0])
        now[0] = 6
    assert seen == events
