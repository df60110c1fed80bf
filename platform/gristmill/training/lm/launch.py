"""Start the ranks of a language model's training, and decide when they have failed for good."""

from collections.abc import Callable
from typing import Any

import ray
import ray.train

from gristmill.core.errors import RunError
from gristmill.training.deaths import DEATH
from gristmill.training.launch import announced, run_ranks
from gristmill.training.lm import checkpoint
from gristmill.training.lm.loop import LmSpec, Post
from gristmill.training.lm.placement import Placement
from gristmill.training.place import Place
from gristmill.training.ranks import place_ranks

FOREVER = -1


def ranks_of(placement: Placement) -> tuple[int, bool]:
    """How many ranks at most, and whether they use GPUs.

    Raises:
        BadInputError: More than the cluster can ever hold. An elastic run only needs its least.
    """
    wanted = placement.min_workers if placement.elastic else placement.workers
    found, use_gpu = place_ranks(wanted)
    return (placement.max_workers if placement.elastic else found), use_gpu


def launch(
    spec: LmSpec,
    placement: Placement,
    *,
    name: str,
    num_workers: int,
    use_gpu: bool,
    on_record: Post,
) -> None:
    """Train to the end; returns when every rank has.

    Raises:
        GristmillError: What a rank raised about its input, or RunError when ranks kept failing.
    """
    wanted: Any = num_workers
    if placement.elastic:
        wanted = (placement.min_workers, placement.max_workers)
    run_ranks(
        _train,
        spec,
        name=name,
        scaling=ray.train.ScalingConfig(num_workers=wanted, use_gpu=use_gpu),
        max_failures=FOREVER,  # Delivery counts them, by whether a checkpoint came in between
        deliver=Delivery(spec.checkpoints, placement.max_failures, on_record),
    )


def _train(spec: LmSpec, place: Place, post: Post) -> None:
    from gristmill.training.lm.loop import train

    train(spec, place, post, notice=announced)


class Delivery:
    """Hands records on, looks for checkpoints, and counts failures without progress."""

    def __init__(self, folder: str, max_failures: int, on_record: Callable[..., None]) -> None:
        self._folder, self._most, self._on_record = folder, max_failures, on_record
        self._failures, self._nodes = 0, _nodes_alive()

    def __call__(self, record: dict[str, Any]) -> None:
        """Handle one record.

        Raises:
            RunError: The ranks died too often, or checkpoints land where the driver sees none.
        """
        kind = record["kind"]
        if kind == "saved":
            self._failures = 0
            self._look_for(record["step"])
        elif kind == DEATH:
            self._failed(record)
        if kind != "saving":
            self._on_record(record)

    def _failed(self, record: dict[str, Any]) -> None:
        nodes, before = _nodes_alive(), self._nodes
        self._nodes = nodes
        said = "; ".join(f"rank {rank}: {why}" for rank, why in record["ranks"].items())
        if record["preempted"] or nodes < before:
            return
        self._failures += 1
        if self._failures > self._most:
            raise RunError(
                f"the workers died {self._failures} times without a checkpoint in between; the "
                f"last time {said}; the same command resumes"
            )

    def _look_for(self, step: int) -> None:
        here = checkpoint.steps_done(self._folder)
        if max(here, default=0) < step:
            raise RunError(
                f"a worker saved step {step} in {self._folder}, but it is not there for the "
                "driver: give --out a folder that all machines share, or a URI like s3://bucket/run"
            )


def _nodes_alive() -> int:
    return sum(bool(node["Alive"]) for node in ray.nodes())
