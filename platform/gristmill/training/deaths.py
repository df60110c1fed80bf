"""What is kept of ranks that died: which, of what, and their last words."""

import logging
from typing import Any

import ray.train

from gristmill.core.run import CURRENT, current_logs
from gristmill.execution.worker_log import last_lines

DEATH = "failure"
"""Kind of the record that tells of dead ranks."""
LINES = 20
RANKS_QUOTED = 2
logger = logging.getLogger(__name__)


class FailureReport(ray.train.UserCallback):
    """Lives in Ray Train's controller: tells the driver that ranks have died."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Post who died of what, and whether a node was taken away."""
        del run_context
        preempted = any(getattr(e, "preempted", False) for e in worker_exceptions.values())
        ranks = {str(rank): _last_line(error) for rank, error in worker_exceptions.items()}
        self._mailbox.post.remote({"kind": DEATH, "ranks": ranks, "preempted": preempted})


def log_kind(rank: int) -> str:
    """What the names of a rank's logs begin with."""
    return f"rank-{rank:03d}"


def tell_of_death(record: dict[str, Any]) -> None:
    """Note it as an event of the run, and quote the ranks' last lines in the driver's log."""
    for rank, why in record["ranks"].items():
        logger.warning("rank %s died: %s", rank, why)
    logs = current_logs()
    for rank in sorted(record["ranks"], key=int)[:RANKS_QUOTED] if logs else ():
        for line in last_lines(logs, log_kind(int(rank)), LINES):
            logger.warning("rank %s said: %s", rank, line)
    if (run := CURRENT.get()) is not None:
        run.event("ranks died", ranks=record["ranks"], preempted=record["preempted"])


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else repr(error))[:300]
