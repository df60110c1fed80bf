"""Inputs pinned for the length of a run: a resume on changed inputs is refused."""

from typing import Any

from gristmill.core import io
from gristmill.core.errors import RunError
from gristmill.core.run import Run


def pin_input(run: Run, name: str, identity: dict[str, Any]) -> None:
    """Record an input, and refuse to resume when it is not what the run began with.

    Raises:
        RunError: The input changed between the start and the resume.
    """
    marker = run.scratch(f"input-{name}.json")
    if io.exists(marker) and io.read_json(marker) != identity:
        raise RunError(
            f"the {name} changed since this run began; run again with --overwrite to start anew"
        )
    io.write_json(marker, identity)
    run.add_input(name, identity)
