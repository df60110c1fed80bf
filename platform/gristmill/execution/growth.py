"""How large the cluster may grow: its groups of machines often begin at none.

Ray tells a driver what is alive, and a managed Ray also what may come; the open autoscaler keeps
that to itself. So it is read where the autoscaler reads it, on the head: in the file that its
monitor was started with, or from the RayCluster on Kubernetes. What cannot be learnt counts as
alive alone.
"""

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.execution.session import node_rooms

HEAD = "node:__internal_head__"
"""A resource of the head alone, by which Ray itself knows it."""
ANSWER_SECONDS = 60.0
NO_END = 1_000_000
"""Machines of a group without a bound."""
NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Machines of one kind that an autoscaler may start."""

    cpus: float
    gpus: float
    most: int
    """At once."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What an autoscaler may start beside the head."""

    groups: tuple[Group, ...]
    machines: int
    """Most of all groups together."""

    def room(self, fits: Callable[[float, float], int]) -> int:
        """The most that fits, given what fits on a machine of so many CPUs and GPUs."""
        free, found = self.machines, 0
        for fitting, most in sorted((fits(g.cpus, g.gpus), g.most) for g in self.groups)[::-1]:
            taken = min(most, free)
            found, free = found + taken * fitting, free - taken
        return found


def growth() -> Growth | None:
    """What the autoscaler of the joined cluster may start; None where none is found."""
    import ray

    return _growth_of(ray.get_runtime_context().get_job_id())


def most_room(fits: Callable[[float, float], int]) -> int:
    """The most that the cluster ever holds, alive or to come; see `Growth.room`."""
    alive = sum(fits(*room) for room in node_rooms())
    grown = growth()
    if grown is None:
        return alive
    return max(alive, sum(fits(*room) for room in node_rooms(HEAD)) + grown.room(fits))


def most_cpus() -> int:
    """CPUs of the cluster once it has grown as far as it may."""
    return max(most_room(lambda cpus, _: int(cpus)), 1)


def most_gpus() -> int:
    """GPUs of the cluster once it has grown as far as it may."""
    return most_room(lambda _, gpus: int(gpus))


@functools.lru_cache(maxsize=1)
def _growth_of(job: str) -> Growth | None:
    """Asked once in the life of a driver; a job is one connection to one cluster."""
    del job
    try:
        config = _reported() or _on_the_head()
    except Exception as error:  # Ray's inner parts, another machine's files, Kubernetes
        text = str(error).strip() or type(error).__name__
        logger.warning(
            "could not learn how far the cluster may grow (%s); counting what is alive",
            text.splitlines()[0],
        )
        return None
    return growth_in(config) if config else None


def growth_in(config: Mapping[str, Any]) -> Growth:
    """What a configuration of Ray's autoscaler lets it start."""
    head = config.get("head_node_type")
    groups = []
    for name, kind in config["available_node_types"].items():
        has = kind.get("resources") or {}
        most = int(kind.get("max_workers", config.get("max_workers", 0)))
        if name != head and most:
            gpus = float(has.get("GPU", 0))
            groups.append(Group(cpus=float(has.get("CPU", 0)), gpus=gpus, most=most))
    machines = int(config.get("max_workers", sum(group.most for group in groups)))
    return Growth(groups=tuple(groups), machines=machines)


def _reported() -> dict[str, Any]:
    """The configuration that a managed Ray reports, in the form of an autoscaler's file."""
    from ray._private.state import state

    found = state.get_cluster_config()
    if found is None or not found.node_group_configs:
        return {}
    kinds = {
        str(number): {
            "resources": dict(group.resources),
            "max_workers": group.max_count if group.max_count >= 0 else NO_END,
        }
        for number, group in enumerate(found.node_group_configs)
    }
    return {"available_node_types": kinds}


def _on_the_head() -> dict[str, Any]:
    """The configuration as the head knows it: asked here if this is the head, else there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    heads = [n for n in ray.nodes() if n["Alive"] and HEAD in n["Resources"]]
    if not heads:
        return {}
    context = ray.get_runtime_context()
    address, head = context.gcs_address, heads[0]["NodeID"]
    if head == context.get_node_id():
        return autoscaler_config(address)
    there = NodeAffinitySchedulingStrategy(head, soft=False)
    ask = ray.remote(autoscaler_config).options(num_cpus=0, scheduling_strategy=there)
    return dict(ray.get(ask.remote(address), timeout=ANSWER_SECONDS))


def autoscaler_config(gcs_address: str) -> dict[str, Any]:
    """On the head: the configuration of the autoscaler that serves it; empty if there is none."""
    import yaml

    path = _file_of_monitor(gcs_address)
    if path:
        return dict(yaml.safe_load(Path(path).read_text()))
    name, namespace = os.environ.get("RAY_CLUSTER_NAME"), Path(NAMESPACE)
    if name and namespace.is_file():
        return _of_kubernetes(name, namespace.read_text().strip())
    return {}


def _file_of_monitor(gcs_address: str) -> str:
    """The --autoscaling-config of the monitor of the cluster at an address, if one runs here."""
    import psutil  # Ray brings it

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        given = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if "--autoscaling-config" in given and given.get("--gcs-address") == gcs_address:
            return os.path.expanduser(given["--autoscaling-config"])
    return ""


def _of_kubernetes(name: str, namespace: str) -> dict[str, Any]:
    """A RayCluster's groups by Ray's own reading, empty if it does not scale by itself."""
    from ray.autoscaler._private.kuberay import autoscaling_config, node_provider

    client = node_provider.KubernetesHttpApiClient(namespace=namespace)
    cluster = client.get(f"rayclusters/{name}")
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return {}
    return dict(autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster))
