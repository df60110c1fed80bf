"""Checks of RayCluster and RayJob: a schema of KubeRay's, and rules against idle GPUs."""

import functools
import json
import re
from importlib.resources import files
from typing import Any

from gristmill.clusters.findings import Checked, at, check_schema, near
from gristmill.clusters.fleet_rules import OLDEST_RAY
from gristmill.clusters.objects import Objects, check_core
from gristmill.clusters.pod_rules import GPU, amount, check_pod
from gristmill.clusters.rules import check_gpus, check_range, check_ranks

QUEUE = "kueue.x-k8s.io/queue-name"
LABELS = (QUEUE, "kueue.x-k8s.io/priority-class", "kueue.x-k8s.io/max-exec-time-seconds")
ELASTIC = "kueue.x-k8s.io/elastic-job"
LONG_IDLE_SECONDS = 3600
LONGEST_SECONDS = 30 * 86_400
MOST_RETRIES = 3


@functools.cache
def _schema() -> dict[str, Any]:
    path = files("gristmill.clusters").joinpath("kuberay_schema.json")
    return dict(json.loads(path.read_text()))


def check_ray_object(
    checked: Checked, kind: str, document: dict[str, Any], objects: Objects
) -> None:
    """Check a RayCluster or RayJob."""
    schema = {"$ref": f"#/definitions/{kind}", "definitions": _schema()["definitions"]}
    before = len(checked.findings)
    check_schema(checked, schema, document, kind)
    if (means := "our schema of KubeRay 1.6 and 1.7") not in checked.means:
        checked.means.append(means)
    if len(checked.findings) > before:
        return
    place = f"{kind}.spec" if kind == "RayCluster" else f"{kind}.spec.rayClusterSpec"
    spec = document["spec"] if kind == "RayCluster" else document["spec"].get("rayClusterSpec", {})
    check_labels(checked, kind, document)
    if spec:
        _check_cluster(checked, place, spec)
        _check_version(checked, place, spec, objects)
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
    _check_template(checked, f"{place}.headGroupSpec.template", head["template"], head=True)
    _check_autoscaler(checked, place, spec)
    if amount(head["template"], GPU):
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
        _check_template(checked, f"{here}.template", group["template"])
        _check_amounts(checked, here, group)


def _check_template(
    checked: Checked, place: str, template: dict[str, Any], *, head: bool = False
) -> None:
    meta = {"name": "x"}
    wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": meta, "template": template}
    check_core(checked, place, wrapped)
    check_pod(checked, place, template, api=head)


def _check_version(checked: Checked, place: str, spec: dict[str, Any], objects: Objects) -> None:
    """KubeRay and the image agree on Ray's version, one that can ask for a token."""
    said = str(spec.get("rayVersion", ""))
    parts = re.match(r"(\d+)\.(\d+)", said)
    if parts is None or (int(parts[1]), int(parts[2])) < OLDEST_RAY:
        checked.wrong(
            f"{place}.rayVersion",
            f"{said!r}: Ray asks for tokens from 2.52 on; say the image's version",
        )
    image = str(at(spec["headGroupSpec"]["template"], "spec.containers", [{}])[0].get("image", ""))
    tag = re.search(r"/ray(?:-ml)?:(\d+\.\d+\.\d+)", image)
    inside = tag[1] if tag else objects.ray
    if inside and said != inside:
        checked.wrong(f"{place}.rayVersion", f"{said!r}, the image holds Ray {inside}; say that")


def _check_autoscaler(checked: Checked, place: str, spec: dict[str, Any]) -> None:
    """The container that KubeRay puts beside the head's."""
    if not spec.get("enableInTreeAutoscaling"):
        return
    options = spec.get("autoscalerOptions", {})
    context = options.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or "ALL" not in at(
        context, "capabilities.drop", []
    ):
        checked.wrong(
            f"{place}.autoscalerOptions.securityContext",
            "the autoscaler's container may gain rights; set allowPrivilegeEscalation: false and "
            "capabilities: {drop: [ALL]}",
        )
    if options.get("idleTimeoutSeconds", 60) > LONG_IDLE_SECONDS:
        checked.wrong(
            f"{place}.autoscalerOptions.idleTimeoutSeconds",
            f"{options['idleTimeoutSeconds']}: idle pods are held for longer than "
            f"{LONG_IDLE_SECONDS} s",
        )


def _check_amounts(checked: Checked, place: str, group: dict[str, Any]) -> None:
    """What Ray believes a worker holds is what its pod holds."""
    cpus, gpus = amount(group["template"], "cpu"), amount(group["template"], GPU)
    check_gpus(checked, f"{place}.template", cpus, gpus)
    said = group.get("rayStartParams", {})
    for name, holds in (("num-gpus", gpus), ("num-cpus", cpus)):
        if name in said and float(said[name]) > holds:
            checked.wrong(
                f"{place}.rayStartParams.{name}", f"{said[name]} said, the pod holds {holds:g}"
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


def _check_job(checked: Checked, document: dict[str, Any], spec: dict[str, Any]) -> None:
    """The rules that keep a RayJob from holding GPUs for nothing."""
    job = document["spec"]
    place = "RayJob.spec"
    deadline = job.get("activeDeadlineSeconds", 0)
    if not 0 < deadline <= LONGEST_SECONDS:
        checked.wrong(
            f"{place}.activeDeadlineSeconds",
            f"{deadline or 'missing'}: a job whose head died stays RUNNING and holds its GPUs; "
            f"give what the job needs, {LONGEST_SECONDS} (30 days) at most",
        )
    if job.get("ttlSecondsAfterFinished", 0) > LONG_IDLE_SECONDS:
        checked.wrong(
            f"{place}.ttlSecondsAfterFinished",
            f"{job['ttlSecondsAfterFinished']}: the ended job holds its GPUs for so long; "
            f"{LONG_IDLE_SECONDS} at most",
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
    if job.get("suspend") and not at(document, "metadata.labels", {}).get(QUEUE):
        checked.wrong(
            f"{place}.suspend",
            "true, and no queue to end it: the job would never start; take it out",
        )
    if not 0 <= job.get("backoffLimit", -1) <= MOST_RETRIES:
        checked.wrong(
            f"{place}.backoffLimit",
            f"{job.get('backoffLimit', 'missing')}: each retry builds the whole cluster anew, "
            f"for a typo too; say 1, {MOST_RETRIES} at most",
        )
    if at(job, "submitterPodTemplate"):
        _check_template(checked, f"{place}.submitterPodTemplate", job["submitterPodTemplate"])
    groups = spec.get("workerGroupSpecs", [])
    gpus = sum(
        int(amount(g["template"], GPU)) * g.get("replicas", g["minReplicas"]) for g in groups
    )
    check_ranks(checked, f"{place}.entrypoint", job.get("entrypoint", ""), gpus)


def check_labels(checked: Checked, kind: str, document: dict[str, Any]) -> None:
    """Kueue's labels are Kueue's, and what it admits has a size it can count."""
    labels = at(document, "metadata.labels", {})
    for label in labels:
        if label.startswith("kueue.x-k8s.io/") and label not in LABELS:
            checked.wrong(
                f"{kind}.metadata.labels", f"Kueue has no label {label}{near(label, LABELS)}"
            )
    spec = document["spec"] if kind == "RayCluster" else document["spec"].get("rayClusterSpec", {})
    elastic = at(document, "metadata.annotations", {}).get(ELASTIC) == "true"
    if labels.get(QUEUE) and spec.get("enableInTreeAutoscaling") and not elastic:
        where = f"{kind}.spec" + ("" if kind == "RayCluster" else ".rayClusterSpec")
        checked.wrong(
            f"{where}.enableInTreeAutoscaling",
            f"Kueue admits a fixed size; set it to false, or the annotation {ELASTIC} to "
            '"true" where Kueue has that feature',
        )
