"""Checks of EC2's machines: closed, encrypted, with all their cards, by EC2's own model."""

import functools
from typing import Any

from gristmill.clusters.findings import Checked, at, near
from gristmill.clusters.machines import Machine

LEAST_DISK_GB = 50
"""The image unpacked, twice while it is renewed, and what Ray writes."""


def check_node(checked: Checked, place: str, config: dict[str, Any], holds: Machine | None) -> None:
    """Check one node type; `holds` is None for the head."""
    if not str(config.get("ImageId", "")).startswith("ami-"):
        checked.wrong(
            f"{place}.ImageId", f"{config.get('ImageId')!r} is not an image's id; pin an ami-..."
        )
    if not config.get("IamInstanceProfile"):
        given = "no role, so no bucket" if holds else "full access to EC2 and S3 by Ray"
        checked.wrong(
            f"{place}.IamInstanceProfile", f"missing: the machine gets {given}; name a profile"
        )
    if at(config, "MetadataOptions.HttpTokens") != "required":
        checked.wrong(
            f"{place}.MetadataOptions.HttpTokens",
            "not `required`: any process that can be made to fetch a URL can take the role's keys",
        )
    _check_network(checked, place, config, holds)
    for index, disk in enumerate(config.get("BlockDeviceMappings", [])):
        _check_disk(checked, f"{place}.BlockDeviceMappings.{index}.Ebs", disk.get("Ebs", {}))


def _check_network(
    checked: Checked, place: str, config: dict[str, Any], holds: Machine | None
) -> None:
    cards = config.get("NetworkInterfaces", [])
    if not config.get("SecurityGroupIds") and not cards:
        checked.wrong(
            f"{place}.SecurityGroupIds",
            "missing: Ray would make a group with SSH open to the world",
        )
    if not (config.get("SubnetIds") or config.get("SubnetId")) and not cards:
        checked.wrong(
            f"{place}.SubnetIds", "missing: Ray takes the zone's default subnet, which is public"
        )
    for index, card in enumerate(cards):
        if card.get("AssociatePublicIpAddress"):
            checked.wrong(
                f"{place}.NetworkInterfaces.{index}", "asks for a public address; take that out"
            )
        for key in ("SubnetId", "Groups"):
            if not card.get(key):
                checked.wrong(f"{place}.NetworkInterfaces.{index}.{key}", "missing; name it")
    efa = [c.get("NetworkCardIndex", 0) for c in cards if "efa" in str(c.get("InterfaceType"))]
    numbers = [c.get("NetworkCardIndex", 0) for c in cards]
    if repeated := sorted({n for n in numbers if numbers.count(n) > 1}):
        checked.wrong(
            f"{place}.NetworkInterfaces",
            f"NetworkCardIndex {repeated[0]} twice; each card takes one interface here",
        )
    elif efa and holds and holds.cards and set(efa) != set(range(holds.cards)):
        checked.wrong(
            f"{place}.NetworkInterfaces",
            f"{len(set(efa))} of the machine's {holds.cards} cards carry EFA; give each card one",
        )


def _check_disk(checked: Checked, place: str, disk: dict[str, Any]) -> None:
    if disk.get("Encrypted") is not True:
        checked.wrong(f"{place}.Encrypted", f"{disk.get('Encrypted')}: set it to true")
    if disk.get("DeleteOnTermination") is not True:
        checked.wrong(
            f"{place}.DeleteOnTermination",
            f"{disk.get('DeleteOnTermination')}: the volume stays, and is paid for; set it to true",
        )
    if disk.get("VolumeSize", LEAST_DISK_GB) < LEAST_DISK_GB:
        checked.wrong(
            f"{place}.VolumeSize",
            f"{disk['VolumeSize']} GB does not hold the image; give {LEAST_DISK_GB} or more",
        )


@functools.cache
def _run_instances() -> Any:
    """The shape of RunInstances' input, read once: it takes a second."""
    import botocore.loaders
    import botocore.model

    model = botocore.loaders.Loader().load_service_model("ec2", "service-2")
    return botocore.model.ServiceModel(model).operation_model("RunInstances").input_shape


def check_by_botocore(checked: Checked, data: dict[str, Any]) -> None:
    """EC2's own model of RunInstances, as botocore ships it: no network is used."""
    try:
        import botocore.validate
    except ImportError:
        checked.left_out.append("EC2's model of a machine: pip install 'gristmill[cluster]'")
        return
    shape = _run_instances()
    for name, group in data.get("available_node_types", {}).items():
        place = f"available_node_types.{name}.node_config"
        wanted = dict(group.get("node_config", {}), MinCount=1, MaxCount=1)
        wanted["SubnetId"] = (wanted.pop("SubnetIds", None) or [""])[0]  # Ray picks one of them
        report = botocore.validate.ParamValidator().validate(wanted, shape)
        for problem in report.generate_report().splitlines() if report.has_errors() else ():
            checked.wrong(place, f"EC2 refuses it: {problem}")
        if not report.has_errors():
            _check_enums(checked, place, wanted, shape)
    checked.means.append("EC2's model of RunInstances")


def _check_enums(checked: Checked, place: str, value: Any, shape: Any) -> None:
    """Words are among those that the model lists, which botocore's validator does not look at."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for key, inner in value.items():
            _check_enums(checked, f"{place}.{key}", inner, shape.members[key])
    elif shape.type_name == "list" and isinstance(value, list):
        for index, inner in enumerate(value):
            _check_enums(checked, f"{place}.{index}", inner, shape.member)
    elif place.endswith("InstanceType"):
        return  # machines.json is asked about those
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        checked.wrong(
            place,
            f"EC2 has no {value!r} there{near(str(value), shape.enum)}; "
            f"known: {', '.join(shape.enum)}",
        )
