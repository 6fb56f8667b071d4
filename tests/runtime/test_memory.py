"""Memory that is freed is kept or handed back as asked, in a process of its own."""

import subprocess
import sys

import jax
import pytest

from spct_jax.runtime import hardware, memory

HOLES = """
import platform
from spct_jax.runtime import memory
if platform.libc_ver()[0] != "glibc":
    raise SystemExit(3)
memory.keep()
import numpy as np
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 2**10
before, kept = resident(), []
for size in range(50, 250, 10):  # each larger than the hole that the one before left, and something small after it
    large = np.ones(size * 2**17)
    kept.append(np.ones(2**16))
    del large
print(resident() - before)
"""


def test_large_buffers_leave_no_holes():
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=300)
    if done.returncode == 3:
        pytest.skip("not glibc")
    assert float(done.stdout) < 100, done.stderr


FAULTS = """
import platform, resource
from spct_jax.runtime import memory
if platform.libc_ver()[0] != "glibc":
    raise SystemExit(3)
memory.keep()
memory.keep_large()
import numpy as np
def faults_of_large_buffers():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults_of_large_buffers()
print(faults_of_large_buffers())
"""


def test_kept_large_buffers_are_not_asked_of_the_system_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=300)
    if done.returncode == 3:
        pytest.skip("not glibc")
    assert int(done.stdout) < 4096, done.stderr  # one buffer has 32,768 pages


class Device:
    def __init__(self, stats, kind):
        self.device_kind = kind
        self.memory_stats = lambda: stats


def test_a_devices_memory_is_what_it_says_or_what_its_kind_is_known_to_have():
    assert memory.limit(Device({"bytes_limit": 5 << 30}, "TPU v5 lite")) == 5 << 30
    for stats in (None, {}):
        assert memory.limit(Device(stats, "TPU v5 lite")) == hardware.CHIPS["v5e"].hbm
        assert memory.limit(Device(stats, "NVIDIA H200")) == 143771 << 20  # MiB, as the driver says


def test_a_cpus_devices_share_half_of_what_the_machine_or_its_container_has(tmp_path, monkeypatch):
    (tmp_path / "limit").write_text(f"{1 << 30}\n")
    (tmp_path / "none").write_text("max\n")
    device, devices = jax.local_devices()[0], jax.local_device_count()
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", [str(tmp_path / "none"), str(tmp_path / "absent")])
    machine = memory.limit(device) * devices
    assert machine > 1 << 29
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", [str(tmp_path / "none"), str(tmp_path / "limit")])
    assert memory.limit(device) == (1 << 29) // devices
