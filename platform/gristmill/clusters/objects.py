"""Kubernetes objects of all files under check, for rules that join two, and their schema."""

from dataclasses import dataclass
from typing import Any

from gristmill.clusters.findings import Checked, at

NEWEST_CHECKED = "1.34"
"""Version of Kubernetes whose schema is taken."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """What is under check together."""

    all: tuple[dict[str, Any], ...]
    """Every Kubernetes object."""
    ray: str = ""
    """Ray's version in the Dockerfiles beside them; empty: there are none."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind."""
        return [found for found in self.all if found.get("kind") == kind]

    def guards(self, namespace: str, labels: dict[str, str]) -> bool:
        """Whether a policy limits who may reach pods of these labels."""
        return any(
            at(p, "metadata.namespace", "default") == namespace
            and "Ingress" in at(p, "spec.policyTypes", ["Ingress"])
            and at(p, "spec.podSelector.matchLabels", {}).items() <= labels.items()
            for p in self.of("NetworkPolicy")
        )


def check_core(checked: Checked, place: str, document: dict[str, Any]) -> None:
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
