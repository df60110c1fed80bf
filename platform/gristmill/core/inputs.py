"""Inputs pinned for the length of a run: a resume on changed inputs is refused."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, RunError
from gristmill.core.run import Run, json_copy

logger = logging.getLogger(__name__)


def pin_inputs(run: Run, inputs: Mapping[str, Any]) -> None:
    """`pin_input` for each."""
    for name, identity in inputs.items():
        pin_input(run, name, identity)


def require_inputs(run: Run, inputs: Callable[[], Mapping[str, Any]]) -> None:
    """Refuse a finished run whose inputs are other ones now. Those that are gone change nothing.

    Raises:
        RunError: One changed; names it.
    """
    then = (run.done() or {}).get("inputs", {})
    try:
        now = json_copy(dict(inputs()))
    except (BadInputError, OSError) as error:
        logger.info("inputs of %s cannot be compared: %s", io.redact(run.uri), error)
        return
    for name, identity in now.items():
        if name in then and then[name] != identity:
            raise RunError(
                f"the {name} changed since {io.redact(run.uri)} was done; add --overwrite to do it "
                "anew, or choose another --out"
            )


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
