"""Speed, memory and traces of training steps."""

import dataclasses

import jax
import pytest

from spct_jax import sharding
from spct_jax.runtime import hardware, memory
from spct_jax.training import performance


class Device:
    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def test_speed_leaves_compiling_out():
    assert performance.speed(600, {"seconds": 2, "compile_seconds": 1}, {"seconds": 9, "compile_seconds": 5}) == 200


def test_peak_memory_is_in_gib():
    """As Linux says elsewhere."""
    said = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    assert memory.peak_gib() == pytest.approx(int(said.split()[1]) / 2**20, abs=0.02)


def test_memory_is_of_the_fullest_device_and_absent_where_unknown():
    known = [Device({"bytes_in_use": 3, "peak_bytes_in_use": 9}), Device({"bytes_in_use": 5, "peak_bytes_in_use": 7})]
    assert memory.of_devices(known) == {"device_memory_bytes": 5.0, "device_memory_peak_bytes": 9.0}
    assert memory.of_devices([*known, Device(None)]) == {}


def test_the_least_time_is_that_of_the_busier_resource(known_chip):
    layout = sharding.make_layout()
    assert layout.mesh.size == 2
    assert [performance.roofline_seconds(layout, flops, read) for flops, read in ((12, 0), (12, 2), (12, 5))] == [3, 3, 5]


def test_a_gpu_has_published_peaks_of_its_own(monkeypatch):
    layout = sharding.make_layout()
    h100 = dataclasses.replace(hardware.device_of("NVIDIA H100 80GB HBM3"), kind=jax.devices()[0].device_kind)
    monkeypatch.setattr(hardware, "GPUS", (h100,))
    assert performance.roofline_seconds(layout, 2 * 989e12, 3.35e12 / 2) == pytest.approx(1.0)
    assert performance.roofline_seconds(layout, 0, 3.35e12) == pytest.approx(1.0)


def test_nothing_is_said_of_devices_without_published_peaks():
    assert performance.roofline_seconds(sharding.make_layout(), 1e9, 1e9) == 0


@pytest.mark.parametrize(
    ("steps", "first", "events"),
    [((2, 4), 0, ["wait", "start 2", "wait", "stop 4"]), ((2, 9), 3, ["wait", "start 3", "stop 6"]), ((0, 0), 0, [])],
)
def test_the_profiler_covers_its_steps(monkeypatch, tmp_path, steps, first, events):
    seen, now = [], [first]
    monkeypatch.setattr(performance.jax.profiler, "start_trace", lambda _, profiler_options: seen.append(f"start {now[0]}"))
    monkeypatch.setattr(performance.jax.profiler, "stop_trace", lambda: seen.append(f"stop {now[0]}"))
    with performance.Profiler(tmp_path, steps) as profiler:
        for now[0] in range(first, 6):
            profiler.before(now[0], lambda: seen.append("wait"))
        now[0] = 6
    assert seen == events
