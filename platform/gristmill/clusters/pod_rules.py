"""Rules for pods: without root, without secrets, with room to end in, on images that fit."""

import re
from typing import Any

from gristmill.clusters.findings import Checked, at
from gristmill.clusters.rules import check_gpu_image, check_image, is_secret

GPU = "nvidia.com/gpu"
MAY_ADD = ("IPC_LOCK",)
"""EFA and InfiniBand pin memory."""
HOOK_SECONDS = 50
"""What telling Ray may take at most, beside the time that the hook waits."""
DEFAULT_GRACE = 30


def amount(template: dict[str, Any], resource: str, kind: str = "limits") -> float:
    """How much of a resource the first container is limited to; 0 where nothing is said."""
    containers = at(template, "spec.containers", [{}])
    text = str(at(containers[0], f"resources.{kind}", {}).get(resource, 0))
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def check_pod(checked: Checked, place: str, template: dict[str, Any], *, api: bool = False) -> None:
    """Check a pod template; only with `api` may it hold a token of Kubernetes' API."""
    spec = template.get("spec", {})
    if spec.get("hostNetwork"):
        checked.wrong(
            f"{place}.spec.hostNetwork", "the pod's ports would be the node's; take it out"
        )
    for key in ("hostPID", "hostIPC"):
        if spec.get(key):
            checked.wrong(f"{place}.spec.{key}", "shows the pod what others run; take it out")
    if not api and spec.get("automountServiceAccountToken", True):
        checked.wrong(
            f"{place}.spec.automountServiceAccountToken",
            "not false: every job could speak to Kubernetes' API as the pod; set it to false",
        )
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            checked.wrong(
                f"{place}.spec.volumes",
                f"{volume['name']} reaches into the node; use emptyDir or a claim",
            )
    for container in (*spec.get("initContainers", []), *spec.get("containers", [])):
        here = f"{place}.spec.containers.{container.get('name')}"
        check_image(checked, f"{here}.image", container.get("image"))
        gpus = at(container, "resources.limits", {}).get(GPU, 0)
        check_gpu_image(checked, f"{here}.image", container.get("image"), float(gpus))
        _check_security(checked, here, spec.get("securityContext", {}), container)
        _check_amounts(checked, here, container)
        _check_environment(checked, here, container)
        _check_ending(checked, place, here, spec, container)


def _check_security(
    checked: Checked, here: str, pod: dict[str, Any], container: dict[str, Any]
) -> None:
    own = container.get("securityContext", {})
    both = {**pod, **own}
    place = f"{here}.securityContext"
    if own.get("privileged"):
        checked.wrong(f"{place}.privileged", "gives the node away; take it out")
    if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
        checked.wrong(
            f"{place}.runAsNonRoot",
            f"runAsNonRoot {both.get('runAsNonRoot')}, runAsUser {both.get('runAsUser')}: the "
            "container may run as root; set runAsNonRoot: true and a user",
        )
    if own.get("allowPrivilegeEscalation") is not False:
        checked.wrong(
            f"{place}.allowPrivilegeEscalation",
            f"{own.get('allowPrivilegeEscalation')}: a process may become root; set it to false",
        )
    if "ALL" not in at(own, "capabilities.drop", []):
        checked.wrong(f"{place}.capabilities.drop", "not [ALL]: root's powers stay; drop them")
    for added in at(own, "capabilities.add", []):
        if added not in MAY_ADD:
            checked.wrong(
                f"{place}.capabilities.add",
                f"{added!r}: a training needs {', '.join(MAY_ADD)} at most",
            )
    if at(both, "seccompProfile.type") not in ("RuntimeDefault", "Localhost"):
        checked.wrong(
            f"{place}.seccompProfile",
            f"{at(both, 'seccompProfile.type')}: every system call is open; use RuntimeDefault",
        )


def _check_amounts(checked: Checked, here: str, container: dict[str, Any]) -> None:
    limits = at(container, "resources.limits", {})
    if not limits.get("memory"):
        checked.wrong(
            f"{here}.resources.limits.memory",
            "missing: one pod could take the node down, and Ray reads it",
        )
    for name, wanted in at(container, "resources.requests", {}).items():
        if "/" in name and str(wanted) != str(limits.get(name)):
            checked.wrong(
                f"{here}.resources.requests.{name}",
                f"{wanted} requested, {limits.get(name)} the limit; Kubernetes wants them equal",
            )


def _check_environment(checked: Checked, here: str, container: dict[str, Any]) -> None:
    for variable in container.get("env", []):
        name = str(variable.get("name"))
        if is_secret(name, variable.get("value")):
            checked.wrong(
                f"{here}.env.{name}",
                "holds a secret in the clear; use valueFrom.secretKeyRef, or the account's role",
            )


def _check_ending(
    checked: Checked, place: str, here: str, spec: dict[str, Any], container: dict[str, Any]
) -> None:
    words = " ".join(map(str, at(container, "lifecycle.preStop.exec.command", [])))
    found = re.search(r"--grace[= ](\d+)|\bsleep (\d+)", words)
    seconds = at(container, "lifecycle.preStop.sleep.seconds", 0)
    told = HOOK_SECONDS if found and found[1] else 0
    needed = told + int(next((g for g in found.groups() if g), 0) if found else seconds)
    granted = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE)
    if needed > granted:
        checked.wrong(
            f"{place}.spec.terminationGracePeriodSeconds",
            f"{granted}, preStop of {here.rpartition('.')[2]} takes up to {needed} s: it would be "
            "killed before the training has saved; give it so long",
        )
