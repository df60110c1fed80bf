"""Start or join Ray, once a process, with the settings every job of ours needs."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.core.errors import BadInputError, TryAgainError
from gristmill.execution.gauges import shown_to_prometheus

PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION", "GRISTMILL_FAULT")
"""Settings of the driver that its workers need too. Never a secret: runtime environments are shown
on the dashboard. Give workers their credentials through the machine's role or environment."""
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the driver of a submitted job."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where and how wide a job runs. Nothing here changes a result."""

    address: str = ""
    """Ray cluster to join, such as `auto` or `ray://head:10001`. Empty: the one in RAY_ADDRESS,
    else a private one on this machine."""
    workers: int = 0
    """Most workers at work at once. 0: as many as the cluster has room for."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise BadInputError(f"workers must be 0 or more, not {self.workers}")


def source_root() -> str:
    """The folder that makes `import gristmill` work."""
    return str(Path(__file__).resolve().parents[2])


@contextlib.contextmanager
def session(execution: Execution) -> Iterator[None]:
    """Ray for the length of a block. A cluster that was there already is left as it was."""
    import ray

    if ray.is_initialized():
        with shown_to_prometheus(), _losses_named():
            yield
        return
    for name in ("ray._private.authentication", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    address = execution.address or os.environ.get("RAY_ADDRESS", "")
    if not address or address == "local":
        _inherit()
        options: dict[str, Any] = {
            "address": "local",  # without it Ray would join whatever cluster runs on this machine
            "num_cpus": _local_cpus(execution),
            "include_dashboard": False,
        }
    elif JOB_CONFIG in os.environ:  # a submitted job: its own runtime environment holds, whole
        options = {"address": address}
    else:
        env_vars = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        env_vars["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
        options = {"address": address, "runtime_env": {"env_vars": env_vars}}
    ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with shown_to_prometheus(), _losses_named():
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _losses_named() -> Iterator[None]:
    """Errors of Ray that say that machines are gone become ours; others are a job's own."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        if not machines_lost(error):
            raise
        first = str(error).strip().splitlines()[0]
        raise TryAgainError(f"the cluster lost machines: {first}; the same command goes on") from (
            error
        )


def machines_lost(error: BaseException) -> bool:
    """Whether an error of Ray says that a node or the head is gone, rather than a process."""
    from ray import exceptions

    lost = (
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.RaySystemError,
        exceptions.RpcError,
    )
    return isinstance(error, lost) or bool(getattr(error, "preempted", False))


def _inherit() -> None:
    """Settings for a private cluster, whose workers inherit this process's environment.

    A runtime environment would do the same, but costs each worker a fresh start: 4 s on two cores.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([source_root(), *paths]))


def _local_cpus(execution: Execution) -> int:
    """CPUs of the private cluster: the machine's, and at least the workers asked for."""
    return max(len(os.sched_getaffinity(0)), execution.workers, 1)


def node_rooms(having: str = "") -> list[tuple[float, float]]:
    """CPUs and GPUs of each machine alive, or of those that have a resource."""
    import ray

    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = [has for has in there if not having or having in has]
    return [(float(r.get("CPU", 0)), float(r.get("GPU", 0))) for r in there]


def cluster_cpus() -> int:
    """CPUs alive in the cluster that this process has joined."""
    import ray

    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def cluster_gpus() -> int:
    """GPUs alive in the cluster that this process has joined."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))
