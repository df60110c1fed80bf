"""Matrices here are small: several BLAS threads wait for each other longer than they work."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS to one thread for the length of a block, where threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError:  # it comes with scikit-learn; without it things are only slower
        yield
        return
    with threadpool_limits(1):
        yield
