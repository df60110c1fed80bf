"""Checks of Kubernetes objects: which kind each is, its schema, and who may reach what."""

import ipaddress
from typing import Any

from gristmill.clusters.findings import Checked, at
from gristmill.clusters.kueue_files import check_kueue, check_monitor
from gristmill.clusters.objects import Objects, check_core
from gristmill.clusters.ray_objects import check_ray_object

NARROWEST = {4: 16, 6: 48}
"""Addresses that a NetworkPolicy may let in at once, as the least prefix length."""


def check_kubernetes(checked: Checked, documents: list[dict[str, Any]], objects: Objects) -> None:
    """Check the objects of one file."""
    for document in documents:
        kind = str(document.get("kind"))
        group = str(document.get("apiVersion", "")).partition("/")[0]
        if group == "ray.io":
            if kind not in ("RayCluster", "RayJob"):
                checked.left_out.append(f"{kind}: only RayCluster and RayJob are known here")
                continue
            check_ray_object(checked, kind, document, objects)
        elif group == "kueue.x-k8s.io":
            check_kueue(checked, kind, document, objects)
        elif group == "monitoring.coreos.com":
            check_monitor(checked, kind, document)
        else:
            check_core(checked, kind, document)
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


def _check_policy(checked: Checked, document: dict[str, Any]) -> None:
    if "Ingress" not in at(document, "spec.policyTypes", ["Ingress"]):
        checked.wrong(
            "NetworkPolicy.spec.policyTypes",
            "without Ingress it keeps nobody from reaching the pods; add it",
        )
    for index, rule in enumerate(at(document, "spec.ingress", []) or []):
        place = f"NetworkPolicy.spec.ingress.{index}"
        if not rule.get("from"):
            checked.wrong(place, "lets everybody in; name pods or namespaces")
        for peer in rule.get("from") or []:
            if peer.get("namespaceSelector") == {}:
                checked.wrong(
                    place, "namespaceSelector {} lets everybody in, of every namespace; name one"
                )
            block = at(peer, "ipBlock.cidr", "")
            if block and _wide(block):
                checked.wrong(
                    place, f"{block} lets everybody in; name pods, or the few addresses needed"
                )


def _wide(block: str) -> bool:
    try:
        network = ipaddress.ip_network(block, strict=False)
    except ValueError:
        return True
    return network.prefixlen < NARROWEST[network.version]
