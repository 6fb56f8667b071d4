"""Memory that is freed is kept or handed back as asked, in a process of its own."""

import subprocess
import sys

import pytest

HOLES = """
import platform
from spct_jax import memory
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
