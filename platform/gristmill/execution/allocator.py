"""Memory of a process that trains on CPUs."""

import contextlib
import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Numbers of options in glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, rather than give it back to the system.

    A step asks for the same megabytes again and again; fresh ones cost a page fault every 4 KiB.
    Measured in docs/results/lm-modules.md: a step of the demo model in some 0.92 of the time.

    Returns:
        Whether there was a glibc that took it.
    """
    wanted = {MMAP_THRESHOLD: 1 << 30, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 1 << 26}
    with contextlib.suppress(OSError, AttributeError):
        options = ctypes.CDLL(None).mallopt
        return all([options(name, value) == 1 for name, value in wanted.items()])
    return False
