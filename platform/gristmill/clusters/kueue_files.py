"""Checks of Kueue's queues and of a PodMonitor: our rules, as no package carries their schema."""

from typing import Any

from gristmill.clusters.findings import Checked, at, near
from gristmill.clusters.objects import Objects

KINDS = ("ResourceFlavor", "ClusterQueue", "LocalQueue")
VERSIONS = ("kueue.x-k8s.io/v1beta1", "kueue.x-k8s.io/v1beta2")
MEANS = "our rules for Kueue v1beta1"


def check_kueue(checked: Checked, kind: str, document: dict[str, Any], objects: Objects) -> None:
    """A queue leads to quotas, and quotas to flavors that exist."""
    if MEANS not in checked.means:
        checked.means.append(MEANS)
    if kind not in KINDS:
        checked.left_out.append(f"{kind}: only {', '.join(KINDS)} are known here")
        return
    if document["apiVersion"] not in VERSIONS:
        checked.wrong(f"{kind}.apiVersion", f"{document['apiVersion']!r}; use {VERSIONS[0]}")
    if kind == "LocalQueue":
        queue = at(document, "spec.clusterQueue", "")
        known = [q["metadata"]["name"] for q in objects.of("ClusterQueue")]
        if queue not in known:
            checked.wrong(
                f"{kind}.spec.clusterQueue",
                f"no ClusterQueue {queue!r} in these files{near(queue, known)}: "
                "nothing would be admitted",
            )
    if kind == "ClusterQueue":
        for index, group in enumerate(at(document, "spec.resourceGroups", [])):
            _check_group(checked, f"{kind}.spec.resourceGroups.{index}", group, objects)
        _check_covered(checked, document, objects)


def _check_group(checked: Checked, place: str, group: dict[str, Any], objects: Objects) -> None:
    covered = group.get("coveredResources", [])
    known = [f["metadata"]["name"] for f in objects.of("ResourceFlavor")]
    for flavor in group.get("flavors", []):
        name = flavor.get("name", "")
        if name not in known:
            checked.wrong(
                f"{place}.flavors.{name}",
                f"no ResourceFlavor {name!r} in these files{near(name, known)}",
            )
        have = [r.get("name") for r in flavor.get("resources", [])]
        if have != covered:
            checked.wrong(
                f"{place}.flavors.{name}.resources",
                f"{have}, coveredResources are {covered}; Kueue wants the same in the same order",
            )
        for resource in flavor.get("resources", []):
            if "nominalQuota" not in resource:
                checked.wrong(
                    f"{place}.flavors.{name}.resources.{resource.get('name')}.nominalQuota",
                    "missing",
                )


def _check_covered(checked: Checked, document: dict[str, Any], objects: Objects) -> None:
    """Whatever the pods of our clusters ask for is counted, else they are never admitted."""
    covered = {
        r for g in at(document, "spec.resourceGroups", []) for r in g.get("coveredResources", [])
    }
    asked: set[str] = set()
    for ray in (*objects.of("RayCluster"), *objects.of("RayJob")):
        spec = ray.get("spec", {})
        spec = spec.get("rayClusterSpec", spec)
        for group in (spec.get("headGroupSpec", {}), *spec.get("workerGroupSpecs", [])):
            for container in at(group, "template.spec.containers", []):
                asked |= set(at(container, "resources.requests", {}))
    for resource in sorted(asked - covered):
        checked.wrong(
            "ClusterQueue.spec.resourceGroups",
            f"{resource} is asked for by pods and covered by no group: they would wait for ever",
        )


def check_monitor(checked: Checked, kind: str, document: dict[str, Any]) -> None:
    """A PodMonitor names pods and a port."""
    checked.means.append("our rules for a PodMonitor")
    if kind != "PodMonitor":
        checked.left_out.append(f"{kind}: only PodMonitor is known here")
    elif not at(document, "spec.selector.matchLabels") or not at(
        document, "spec.podMetricsEndpoints"
    ):
        checked.wrong("PodMonitor.spec", "needs selector.matchLabels and podMetricsEndpoints")
