"""A resumable parallel map: the one way our data jobs run.

A job cuts its source into slices (a file and a range of row groups, a shard, an output shard). A
worker handles one slice, writes what it makes aside and publishes it, then commits a small JSON
marker named after the slice. Markers are the checkpoint: whoever is killed, and whenever, a rerun
does the slices without one. Results never depend on how many workers there were.
"""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError, GristmillError, TryAgainError
from gristmill.core.progress import Progress
from gristmill.execution.hosting import Host, outcomes
from gristmill.execution.session import Execution
from gristmill.execution.work import Slice, SliceFailedError, SliceWorker

__all__ = ["Slice", "SliceFailedError", "SliceWorker", "committed", "map_slices"]

READ_MARKERS_AT_ONCE = 16
BEGUN = "begun"
"""Lies in a ledger that slices may write to."""
logger = logging.getLogger(__name__)

_ERRORS: dict[str, type[GristmillError]] = {
    "corrupt": CorruptDataError,
    "bad input": BadInputError,
    "try again": TryAgainError,
    "other": SliceFailedError,
}


def map_slices(
    title: str,
    pieces: Sequence[Slice],
    worker: SliceWorker,
    *,
    ledger: str,
    execution: Execution,
    unit: str = "rows",
    also: tuple[str, Callable[[dict[str, Any]], int]] | None = None,
    skip_corrupt: bool = False,
) -> list[dict[str, Any]]:
    """Handle every slice once, in parallel, going on from what an earlier run committed.

    Args:
        title: For the progress line.
        pieces: The slices; names must be unique.
        worker: Copied to the workers.
        ledger: Folder of the markers; one map a folder.
        execution: How many workers at most.
        unit: What `weight` counts.
        also: What else a marker counts, by name, to be shown as a rate.
        skip_corrupt: Note a slice that raises CorruptDataError and go on; its marker then has
            a `corrupt` entry.

    Returns:
        The marker of each slice, in the order of `pieces`.

    Raises:
        CorruptDataError: A slice cannot be read and `skip_corrupt` is off.
        BadInputError: A worker found input that cannot be right.
        TryAgainError: A worker lost its store's connection.
        SliceFailedError: A worker raised anything else.
    """
    done = committed(ledger)
    pending = [p for p in pieces if p.name not in done]
    already = sum(p.weight for p in pieces) - sum(p.weight for p in pending)
    if already:
        logger.info("%s: %s %s were done before", title, f"{already:,}", unit)
    total = already + sum(p.weight for p in pending)
    if pending:  # slices in flight may write after one has ended the run: its folder is claimed
        io.write_bytes(io.join(ledger, BEGUN), b"")
    more, count = also or ("", lambda _: 0)
    with Progress(title, total, unit, done=already, also=more) as progress:
        for outcome in outcomes(pending, Host(worker, ledger, skip_corrupt), execution):
            if "error" in outcome:
                raise _ERRORS[outcome["kind"]](outcome["error"])
            done[outcome["name"]] = outcome["result"]
            progress.advance(outcome["weight"], count(outcome["result"]))
    return [done[p.name] for p in pieces]


def committed(ledger: str) -> dict[str, dict[str, Any]]:
    """The markers that are there, by slice name."""
    files = io.list_files(ledger, ".json")
    with ThreadPoolExecutor(READ_MARKERS_AT_ONCE) as pool:
        markers = list(pool.map(io.read_json, files))
    return {
        os.path.basename(f).removesuffix(".json"): m for f, m in zip(files, markers, strict=True)
    }
