"""Freed memory stays with a process that asks for it again."""

import subprocess
import sys

import pytest
from killing import environment

FAULTS = """
import resource, sys
import numpy as np
from gristmill.execution.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    raise SystemExit(77)
def step():
    made = [np.ones(1 << 19) for _ in range(8)]
    del made
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_step_meets_the_memory_of_the_step_before():
    found = {}
    for how in ("keep", "plain"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], env=environment(), capture_output=True, text=True
        )
        if done.returncode == 77:
            pytest.skip("no glibc")
        found[how] = int(done.stdout)
    # 8 arrays of 4 MiB are 8,192 pages.
    assert found["keep"] < 8192 < found["plain"], found
