"""Checks of Kubernetes objects: a schema of KubeRay's, Kubernetes' own, and our rules."""

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gristmill.clusters.findings import Checked, at, check_schema
from gristmill.clusters.rules import check_gpus, check_image, check_range, check_ranks

NEWEST_CHECKED = "1.34"
"""Version of Kubernetes whose schema is taken."""
GPU = "nvidia.com/gpu"
QUEUE = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True, kw_only=True)
class Objects:
    """All Kubernetes objects under check, for rules that join two of them."""

    policies: tuple[dict[str, Any], ...]
    """NetworkPolicies."""

    def guards(self, namespace: str, labels: dict[str, str]) -> bool:
        """Whether a policy limits who may reach pods of these labels."""
        return any(
            at(p, "metadata.namespace", "default") == namespace
            and "Ingress" in at(p, "spec.policyTypes", ["Ingress"])
            and at(p, "spec.podSelector.matchLabels", {}).items() <= labels.items()
            for p in self.policies
        )


@functools.cache
def _schema() -> dict[str, Any]:
    path = files("gristmill.clusters").joinpath("kuberay_schema.json")
    return dict(json.loads(path.read_text()))


def check_kubernetes(checked: Checked, documents: list[dict[str, Any]], objects: Objects) -> None:
    """Check the objects of one file."""
    for document in documents:
        kind = str(document.get("kind"))
        if str(document.get("apiVersion", "")).startswith("ray.io/"):
            if kind not in ("RayCluster", "RayJob"):
                checked.left_out.append(f"{kind}: only RayCluster and RayJob are known here")
                continue
            _check_ray_object(checked, kind, document, objects)
        else:
            _check_core(checked, kind, document)
            if kind == "NetworkPolicy":
                _check_policy(checked, document)
            if kind == "Service" and at(document, "spec.type") in ("NodePort", "LoadBalancer"):
                checked.wrong(
                    "Service.spec.type", f"{document['spec']['type']} opens a port; use ClusterIP"
                )
            if kind == "Secret":
                checked.wrong(
                    "Secret", "a secret in a file; make it with kubectl, or let KubeRay make it"
                )


def _check_core(checked: Checked, place: str, document: dict[str, Any]) -> None:
    """Kubernetes' own schema, strict: an unknown field is an error."""
    try:
        import kubernetes_validate
    except ImportError:
        note = "Kubernetes' schema: pip install 'gristmill[cluster]'"
        if note not in checked.left_out:
            checked.left_out.append(note)
        return
    try:
        kubernetes_validate.validate(document, NEWEST_CHECKED, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(part) for part in error.path)
        checked.wrong(f"{place}.{where}".rstrip("."), str(error.message)[:300])
    except kubernetes_validate.SchemaNotFoundError as error:
        checked.wrong(
            place, f"Kubernetes {NEWEST_CHECKED} has no such object: {error.message}"[:300]
        )
    if (means := f"Kubernetes {NEWEST_CHECKED}'s schema") not in checked.means:
        checked.means.append(means)


def _check_ray_object(
    checked: Checked, kind: str, document: dict[str, Any], objects: Objects
) -> None:
    schema = {"$ref": f"#/definitions/{kind}", "definitions": _schema()["definitions"]}
    before = len(checked.findings)
    check_schema(checked, schema, document, kind)
    if (means := "our schema of KubeRay 1.6 and 1.7") not in checked.means:
        checked.means.append(means)
    if len(checked.findings) > before:
        return
    place = f"{kind}.spec" if kind == "RayCluster" else f"{kind}.spec.rayClusterSpec"
    spec = document["spec"] if kind == "RayCluster" else document["spec"].get("rayClusterSpec", {})
    if spec:
        _check_cluster(checked, place, spec)
        _check_exposure(
            checked, place, spec, at(document, "metadata.namespace", "default"), objects
        )
    if kind == "RayJob":
        _check_job(checked, document, spec)


def _check_cluster(checked: Checked, place: str, spec: dict[str, Any]) -> None:
    if at(spec, "authOptions.mode") != "token":
        checked.wrong(
            f"{place}.authOptions.mode", "not `token`: whoever reaches the head can run code"
        )
    head = spec["headGroupSpec"]
    _check_pod(checked, f"{place}.headGroupSpec.template", head["template"])
    if _amount(head["template"], GPU):
        checked.wrong(
            f"{place}.headGroupSpec.template",
            "the head holds GPUs for as long as the cluster lives; take them out",
        )
    groups = spec.get("workerGroupSpecs", [])
    if (
        sum(g["maxReplicas"] for g in groups) > 8
        and head.get("rayStartParams", {}).get("num-cpus") != "0"
    ):
        checked.wrong(
            f"{place}.headGroupSpec.rayStartParams.num-cpus",
            'tasks may run on the head; set it to "0"',
        )
    for index, group in enumerate(groups):
        here = f"{place}.workerGroupSpecs.{index}"
        check_range(checked, f"{here}.minReplicas", group["minReplicas"], group["maxReplicas"])
        if (
            not group["minReplicas"]
            <= group.get("replicas", group["minReplicas"])
            <= group["maxReplicas"]
        ):
            checked.wrong(
                f"{here}.replicas",
                f"{group['replicas']} is outside {group['minReplicas']} to {group['maxReplicas']}",
            )
        _check_pod(checked, f"{here}.template", group["template"])
        _check_amounts(checked, here, group)


def _check_amounts(checked: Checked, place: str, group: dict[str, Any]) -> None:
    """What Ray believes a worker holds is what its pod holds."""
    cpus, gpus = _amount(group["template"], "cpu"), _amount(group["template"], GPU)
    check_gpus(checked, f"{place}.template", cpus, gpus)
    said = group.get("rayStartParams", {})
    for name, holds in (("num-gpus", gpus), ("num-cpus", cpus)):
        if name in said and float(said[name]) > holds:
            checked.wrong(
                f"{place}.rayStartParams.{name}", f"{said[name]} said, the pod holds {holds:g}"
            )


def _amount(template: dict[str, Any], resource: str) -> float:
    """How much of a resource the first container is limited to; 0 where nothing is said."""
    containers = at(template, "spec.containers", [{}])
    text = str(at(containers[0], "resources.limits", {}).get(resource, 0))
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _check_pod(checked: Checked, place: str, template: dict[str, Any]) -> None:
    wrapped = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "x"},
        "template": template,
    }
    _check_core(checked, place, wrapped)
    spec = template.get("spec", {})
    if spec.get("hostNetwork"):
        checked.wrong(
            f"{place}.spec.hostNetwork", "the pod's ports would be the node's; take it out"
        )
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            checked.wrong(
                f"{place}.spec.volumes",
                f"{volume['name']} reaches into the node; use emptyDir or a claim",
            )
    for container in spec.get("containers", []):
        here = f"{place}.spec.containers.{container.get('name')}"
        check_image(checked, f"{here}.image", container.get("image"))
        if at(container, "securityContext.privileged"):
            checked.wrong(f"{here}.securityContext.privileged", "gives the node away; take it out")
        if not at(container, "resources.limits", {}).get("memory"):
            checked.wrong(
                f"{here}.resources.limits.memory",
                "missing: one pod could take the node down, and Ray reads it",
            )


def _check_exposure(
    checked: Checked, place: str, spec: dict[str, Any], namespace: str, objects: Objects
) -> None:
    head = spec["headGroupSpec"]
    if head.get("serviceType", "ClusterIP") != "ClusterIP":
        checked.wrong(
            f"{place}.headGroupSpec.serviceType",
            f"{head['serviceType']} opens a port; use ClusterIP",
        )
    if head.get("enableIngress"):
        checked.wrong(
            f"{place}.headGroupSpec.enableIngress", "publishes the dashboard; take it out"
        )
    labels = at(head["template"], "metadata.labels", {})
    if not objects.guards(namespace, labels) and not spec.get("networkPolicy"):
        checked.wrong(
            f"{place}.headGroupSpec.template.metadata.labels",
            "no NetworkPolicy among these files selects the head's pod: "
            "every pod of the cluster reaches it",
        )


def _check_policy(checked: Checked, document: dict[str, Any]) -> None:
    for index, rule in enumerate(at(document, "spec.ingress", []) or []):
        blocks = [at(peer, "ipBlock.cidr", "") for peer in rule.get("from", [])]
        if not rule.get("from") or "0.0.0.0/0" in blocks or "::/0" in blocks:
            checked.wrong(
                f"NetworkPolicy.spec.ingress.{index}", "lets everybody in; name pods or namespaces"
            )


def _check_job(checked: Checked, document: dict[str, Any], spec: dict[str, Any]) -> None:
    """The rules that keep a RayJob from holding GPUs for nothing."""
    job = document["spec"]
    place = "RayJob.spec"
    if not job.get("activeDeadlineSeconds"):
        checked.wrong(
            f"{place}.activeDeadlineSeconds",
            "missing: a job whose head died stays RUNNING and holds its GPUs",
        )
    rules = at(job, "deletionStrategy.deletionRules")
    if rules and (job.get("shutdownAfterJobFinishes") or job.get("ttlSecondsAfterFinished")):
        checked.wrong(
            f"{place}.deletionStrategy.deletionRules",
            "excludes shutdownAfterJobFinishes and ttlSecondsAfterFinished; KubeRay refuses both",
        )
    if not rules and not job.get("shutdownAfterJobFinishes"):
        checked.wrong(
            f"{place}.shutdownAfterJobFinishes",
            "not true: the cluster stays when the job has ended",
        )
    if "backoffLimit" not in job:
        checked.wrong(
            f"{place}.backoffLimit", "missing: a lost head would not be retried; 3 is a start"
        )
    if at(document, "metadata.labels", {}).get(QUEUE) and spec.get("enableInTreeAutoscaling"):
        checked.wrong(
            f"{place}.rayClusterSpec.enableInTreeAutoscaling",
            "Kueue admits a job of fixed size; set it to false, or take the queue label out",
        )
    groups = spec.get("workerGroupSpecs", [])
    gpus = sum(
        int(_amount(g["template"], GPU)) * g.get("replicas", g["minReplicas"]) for g in groups
    )
    check_ranks(checked, f"{place}.entrypoint", job.get("entrypoint", ""), gpus)
