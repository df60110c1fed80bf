"""How many ranks a training has, and whether their machines are there or yet to start."""

import logging

from gristmill.core.errors import BadInputError
from gristmill.core.run import Run
from gristmill.execution.growth import most_cpus, most_gpus
from gristmill.execution.session import cluster_gpus, node_rooms

logger = logging.getLogger(__name__)


def place_ranks(wanted: int) -> tuple[int, bool]:
    """How many ranks, and whether they use GPUs: those asked for, else one a GPU, else one CPU.

    Machines that the autoscaler has yet to start count for ranks that are asked for. A number that
    nobody gave is never the whole of what the cluster may grow to, and cost.

    Raises:
        BadInputError: More are wanted than the cluster can ever hold, or no GPU is alive, some may
            come, and nobody says how many.
    """
    most = most_gpus()
    use_gpu = most > 0
    if use_gpu and not wanted and not cluster_gpus():
        raise BadInputError(
            f"no GPU is alive now, and the cluster may grow to {most}: say with --workers N how "
            "many to take, one a worker, and the autoscaler starts their machines"
        )
    most = most or most_cpus()
    if wanted > most:
        kind, alive = _alive(use_gpu)
        size, remedy = f"{most} {kind}s", f"give --workers {most} or fewer"
        if most > alive:
            size = f"{alive} {kind}s that may grow to {most}"
            remedy += ", or raise the max of the cluster's groups"
        raise BadInputError(f"{wanted} workers on a cluster with {size}; {remedy}")
    return wanted or cluster_gpus() or 1, use_gpu


def tell_of_waiting(run: Run, workers: int, *, use_gpu: bool) -> None:
    """Say and note what a training waits for, if machines for its ranks are yet to start."""
    kind, alive = _alive(use_gpu)
    if workers <= alive:
        return
    most = most_gpus() if use_gpu else most_cpus()
    logger.info(
        "%d ranks take a %s each and %d of at most %d are alive: waiting for the autoscaler, whose "
        "doings `ray status` shows",
        workers,
        kind,
        alive,
        most,
    )
    run.event("waiting", ranks=workers, resource=kind, alive=alive, most=most)


def _alive(use_gpu: bool) -> tuple[str, int]:
    """What a rank takes, and how much of it the cluster has at this moment."""
    kind, place = ("GPU", 1) if use_gpu else ("CPU", 0)
    return kind, int(sum(room[place] for room in node_rooms()))
