"""Checks of Compute Engine's machines: by our rules, since no package carries Google's model."""

from typing import Any

from gristmill.clusters.findings import Checked, at, near
from gristmill.clusters.machines import Machine

FIELDS = (
    "machineType", "disks", "networkInterfaces", "scheduling", "serviceAccounts", "metadata",
    "shieldedInstanceConfig", "confidentialInstanceConfig", "guestAccelerators", "labels", "tags",
    "minCpuPlatform", "reservationAffinity", "resourcePolicies", "networkPerformanceConfig",
    "advancedMachineFeatures", "sourceMachineImage", "sourceInstanceTemplate", "canIpForward",
    "deletionProtection", "description", "params",
)  # fmt: skip
"""Of an instance in Google's API, those that a caller sets."""
MODELS = ("STANDARD", "SPOT", "FLEX_START", "RESERVATION_BOUND")
NICS = ("GVNIC", "MRDMA", "IRDMA", "VIRTIO_NET")


def check_node(checked: Checked, place: str, config: dict[str, Any], holds: Machine | None) -> None:
    """Check one node type; `holds` is None for the head."""
    for key in config:
        if key not in FIELDS:
            checked.wrong(f"{place}.{key}", f"an instance has no such field{near(key, FIELDS)}")
    _check_network(checked, place, config, holds)
    for index, disk in enumerate(config.get("disks", [])):
        here = f"{place}.disks.{index}.initializeParams"
        source = str(at(disk, "initializeParams.sourceImage", ""))
        if not source or "/family/" in source:
            checked.wrong(
                f"{here}.sourceImage", f"{source!r} moves with its family; name one image"
            )
        kind = str(at(disk, "initializeParams.diskType", "")).rpartition("/")[2]
        if holds and holds.disk.startswith("hyperdisk") and not kind.startswith("hyperdisk"):
            checked.wrong(
                f"{here}.diskType", f"{kind!r}: {config['machineType']} takes {holds.disk} only"
            )
    accounts = config.get("serviceAccounts", [])
    if not accounts and holds:  # Ray's launcher sets the head's itself
        checked.wrong(f"{place}.serviceAccounts", "missing: the machine cannot reach the bucket")
    for index, account in enumerate(accounts):
        if any(str(scope).endswith("/cloud-platform") for scope in account.get("scopes", [])):
            checked.wrong(
                f"{place}.serviceAccounts.{index}.scopes",
                "cloud-platform is every API; name the few needed",
            )
    _check_scheduling(checked, f"{place}.scheduling", config, holds)


def _check_network(
    checked: Checked, place: str, config: dict[str, Any], holds: Machine | None
) -> None:
    cards = config.get("networkInterfaces", [])
    if not cards:
        checked.wrong(
            f"{place}.networkInterfaces",
            "missing: Ray would take the first subnet and a public address",
        )
    for index, card in enumerate(cards):
        here = f"{place}.networkInterfaces.{index}"
        for key in ("accessConfigs", "ipv6AccessConfigs"):
            if card.get(key):
                checked.wrong(f"{here}.{key}", "gives a public address; take it out")
        kind = card.get("nicType", "GVNIC")
        if kind not in NICS:
            checked.wrong(
                f"{here}.nicType", f"{kind!r} is none of {', '.join(NICS)}{near(kind, NICS)}"
            )
    rdma = [card for card in cards if card.get("nicType") == "MRDMA"]
    others = {card.get("subnetwork") for card in cards if card.get("nicType") != "MRDMA"}
    if any(card.get("subnetwork") in others for card in rdma):
        checked.wrong(
            f"{place}.networkInterfaces",
            "a subnet holds both an MRDMA and another interface; RDMA needs a network of its own "
            "profile",
        )
    if holds and len(cards) > 1:
        wanted = {"MRDMA": holds.rdma, "gVNIC": 1 + holds.gvnics}
        for name, have in (("MRDMA", len(rdma)), ("gVNIC", len(cards) - len(rdma))):
            if have != wanted[name] and all(c.get("nicType") in NICS for c in cards):
                checked.wrong(
                    f"{place}.networkInterfaces",
                    f"{have} {name} interfaces, {config['machineType']} has {wanted[name]}",
                )


def _check_scheduling(
    checked: Checked, place: str, config: dict[str, Any], holds: Machine | None
) -> None:
    given = config.get("scheduling", {})
    if isinstance(given, list):
        checked.wrong(place, "is a list; Google's API takes a mapping")
        return
    model = given.get("provisioningModel", "STANDARD")
    if model not in MODELS:
        checked.wrong(
            f"{place}.provisioningModel",
            f"{model!r} is none of {', '.join(MODELS)}{near(model, MODELS)}",
        )
    stays = (holds and holds.gpus) or model == "SPOT"
    if stays and given.get("onHostMaintenance") != "TERMINATE":
        checked.wrong(
            f"{place}.onHostMaintenance",
            f"{given.get('onHostMaintenance', 'MIGRATE')}: a machine with GPUs, or a spot one, "
            "cannot move; use TERMINATE",
        )
    if model == "FLEX_START" and not given.get("maxRunDuration"):
        checked.wrong(f"{place}.maxRunDuration", "missing: FLEX_START needs one, of 7 days at most")
    affinity = at(config, "reservationAffinity.consumeReservationType")
    if model == "RESERVATION_BOUND" and affinity != "SPECIFIC_RESERVATION":
        checked.wrong(
            f"{place}.provisioningModel",
            "RESERVATION_BOUND without a reservationAffinity that names the reservation",
        )
