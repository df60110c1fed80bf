"""Start the ranks of a language model's training, and decide when they have failed for good."""

import time
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
NODE_DEATH_SECONDS, LOOK_SECONDS = 40.0, 0.5
"""How long Ray may take to see that a node is dead, by its default heartbeats; how often to ask."""


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
    ranks: dict[str, Any] = {"num_workers": num_workers}
    if placement.elastic:
        ranks = {
            "num_workers": (placement.min_workers, placement.max_workers),
            "elastic_resize_monitor_interval_s": placement.resize_seconds,
        }
    scaling = ray.train.ScalingConfig(**ranks, use_gpu=use_gpu)
    run_ranks(
        _train,
        spec,
        name=name,
        scaling=scaling,
        max_failures=FOREVER,  # Delivery counts them, by whether a checkpoint came in between
        deliver=Delivery(spec.checkpoints, placement.max_failures, on_record),
    )


def _train(spec: LmSpec, place: Place, post: Post) -> None:
    from gristmill.training.lm.loop import train

    node = ray.get_runtime_context().get_node_id()
    post({"kind": "rank", "rank": place.rank, "world_size": place.world_size, "node": node})
    train(spec, place, post, notice=announced)


class Delivery:
    """Hands records on, looks for checkpoints, and counts failures without progress."""

    def __init__(self, folder: str, max_failures: int, on_record: Callable[..., None]) -> None:
        self._folder, self._most, self._on_record = folder, max_failures, on_record
        self._failures: list[set[str]] = []
        """Since the last checkpoint: the nodes that the ranks ran on, for each."""
        self._nodes: dict[int, str] = {}
        """Of each rank, the node it runs on."""

    def __call__(self, record: dict[str, Any]) -> None:
        """Handle one record.

        Raises:
            RunError: The ranks died too often, or checkpoints land where the driver sees none.
        """
        kind = record["kind"]
        if kind == "rank":
            self._nodes[record["rank"]] = record["node"]
            self._nodes = {r: n for r, n in self._nodes.items() if r < record["world_size"]}
            return
        if kind == "saved":
            self._failures = []
            self._look_for(record["step"])
        elif kind == DEATH:
            self._failed(record)
        if kind != "saving":
            self._on_record(record)

    def _failed(self, record: dict[str, Any]) -> None:
        nodes, self._nodes = set(self._nodes.values()), {}
        said = "; ".join(f"rank {rank}: {why}" for rank, why in record["ranks"].items())
        if record["preempted"]:
            return
        self._failures.append(nodes)
        end = time.monotonic() + NODE_DEATH_SECONDS
        # Workers are missed at once, a node only after some missed heartbeats: so it is asked for a
        # while before a run is given up, where there is another node than the driver's.
        while (count := self._counted(alive := _nodes_alive())) > self._most:
            if len(alive) == 1 or time.monotonic() > end:
                raise RunError(
                    f"the workers died {count} times without a checkpoint in between; the last "
                    f"time {said}; the same command resumes"
                )
            time.sleep(LOOK_SECONDS)

    def _counted(self, alive: set[str]) -> int:
        """Failures none of whose nodes has died."""
        return sum(nodes <= alive for nodes in self._failures)

    def _look_for(self, step: int) -> None:
        here = checkpoint.steps_done(self._folder)
        if max(here, default=0) < step:
            raise RunError(
                f"a worker saved step {step} in {self._folder}, but it is not there for the "
                "driver: give --out a folder that all machines share, or a URI like s3://bucket/run"
            )


def _nodes_alive() -> set[str]:
    return {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}
