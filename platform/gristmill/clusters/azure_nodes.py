"""Checks of Azure's machines, by the template that Ray deploys, and of what Ray does besides."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.clusters.findings import Checked
from gristmill.clusters.machines import Machine

WORDS = {
    "priority": ("Regular", "Low", "Spot"),
    "evictionPolicy": ("Delete", "Deallocate"),
}


def check_provider(checked: Checked, provider: dict[str, Any]) -> None:
    """The identity is ours. Ray makes it Contributor of the group all the same (security.md)."""
    if not provider.get("msi_name") or not provider.get("msi_resource_group"):
        checked.wrong(
            "provider.msi_name",
            "missing, or without msi_resource_group: Ray would make an identity that `ray down` "
            "deletes with its roles; name yours, which is Contributor of the whole group too "
            "until you take that away",
        )


def check_node(checked: Checked, place: str, config: dict[str, Any], holds: Machine | None) -> None:
    """Check one node type; `holds` is None for the head."""
    given = config.get("azure_arm_parameters", {})
    known = set(_parameters())
    for key in given:
        if key not in known:
            checked.wrong(
                f"{place}.azure_arm_parameters.{key}",
                "Ray's template of a machine has no such parameter; "
                f"known: {', '.join(sorted(known))}",
            )
    for key, words in WORDS.items():
        if key in given and given[key] not in words:
            checked.wrong(
                f"{place}.azure_arm_parameters.{key}",
                f"{given[key]!r} is none of {', '.join(words)}",
            )
    if given.get("provisionPublicIp"):
        checked.wrong(
            f"{place}.azure_arm_parameters.provisionPublicIp",
            "true: asks for a public address; take it out",
        )
    version = str(given.get("imageVersion", ""))
    if not given.get("imageId") and version in ("", "latest"):
        checked.wrong(
            f"{place}.azure_arm_parameters.imageVersion", f"{version!r} moves; name a version"
        )
    if holds and given.get("priority") == "Spot" and given.get("evictionPolicy") != "Delete":
        checked.wrong(
            f"{place}.azure_arm_parameters.evictionPolicy",
            "a spot machine taken away keeps its disk; use Delete",
        )


def _parameters() -> Iterator[str]:
    """Parameters of the ARM template that Ray's Azure provider deploys, and the zone it adds."""
    import ray.autoscaler

    folder = Path(ray.autoscaler.__file__).parent / "_private" / "_azure"
    yield from json.loads((folder / "azure-vm-template.json").read_text())["parameters"]
    yield "availability_zone"
