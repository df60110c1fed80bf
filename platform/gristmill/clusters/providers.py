"""Checks of `node_config`, which Ray hands to the provider unread: by the provider's own models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.clusters.findings import Checked, at
from gristmill.clusters.machines import machine
from gristmill.core.errors import BadInputError


def check_nodes(checked: Checked, data: dict[str, Any]) -> None:
    """Check every node type of a cloud's file."""
    cloud = data["provider"]["type"]
    check = {"aws": _check_aws, "gcp": _check_gcp, "azure": _check_azure}[cloud]
    for name, group in data.get("available_node_types", {}).items():
        place = f"available_node_types.{name}"
        config = group.get("node_config", {})
        is_head = name == data.get("head_node_type")
        check(checked, f"{place}.node_config", config, is_head)
        if not is_head:
            _check_machine(checked, place, cloud, group, config)
    if cloud == "azure" and not data["provider"].get("msi_name"):
        checked.wrong(
            "provider.msi_name",
            "missing: Ray would make an identity that is Contributor of the whole group",
        )
    if cloud == "aws":
        _check_by_botocore(checked, data)


def _check_machine(
    checked: Checked, place: str, cloud: str, group: dict[str, Any], config: dict[str, Any]
) -> None:
    """The resources a group declares are those of its machine kind."""
    kinds = {
        "aws": ("InstanceType", config.get("InstanceType", "")),
        "gcp": ("machineType", config.get("machineType", "")),
        "azure": ("azure_arm_parameters.vmSize", at(config, "azure_arm_parameters.vmSize", "")),
    }
    key, kind = kinds[cloud]
    try:
        holds = machine(cloud, kind)
    except BadInputError as error:
        checked.wrong(f"{place}.node_config.{key}", str(error))
        return
    resources = group.get("resources", {})
    if resources.get("GPU", 0) != holds.gpus:
        checked.wrong(
            f"{place}.resources.GPU",
            f"{resources.get('GPU', 0)} declared, {kind} holds {holds.gpus}: "
            "jobs would wait for GPUs that never come, or leave some idle",
        )
    if resources.get("CPU", 0) > holds.cpus:
        checked.wrong(
            f"{place}.resources.CPU", f"{resources['CPU']} declared, {kind} holds {holds.cpus}"
        )


def _check_aws(checked: Checked, place: str, config: dict[str, Any], is_head: bool) -> None:
    if not str(config.get("ImageId", "")).startswith("ami-"):
        checked.wrong(
            f"{place}.ImageId", f"{config.get('ImageId')!r} is not an image's id; pin an ami-..."
        )
    if not config.get("IamInstanceProfile"):
        given = "full access to EC2 and S3 by Ray" if is_head else "no role, so no bucket"
        checked.wrong(
            f"{place}.IamInstanceProfile", f"missing: the machine gets {given}; name a profile"
        )
    cards = config.get("NetworkInterfaces", [])
    if not config.get("SecurityGroupIds") and not cards:
        checked.wrong(
            f"{place}.SecurityGroupIds",
            "missing: Ray would make a group with SSH open to the world",
        )
    for index, card in enumerate(cards):
        if card.get("AssociatePublicIpAddress"):
            checked.wrong(
                f"{place}.NetworkInterfaces.{index}", "asks for a public address; take that out"
            )
    if at(config, "MetadataOptions.HttpTokens") != "required":
        checked.wrong(
            f"{place}.MetadataOptions.HttpTokens",
            "not `required`: a process tricked into a request can take the role's keys",
        )


def _check_by_botocore(checked: Checked, data: dict[str, Any]) -> None:
    """EC2's own model of RunInstances, as botocore ships it: no network is used."""
    try:
        import botocore.loaders
        import botocore.model
        import botocore.validate
    except ImportError:
        checked.left_out.append("EC2's model of a machine: pip install 'gristmill[cluster]'")
        return
    model = botocore.loaders.Loader().load_service_model("ec2", "service-2")
    shape = botocore.model.ServiceModel(model).operation_model("RunInstances").input_shape
    for name, group in data.get("available_node_types", {}).items():
        wanted = dict(group.get("node_config", {}), MinCount=1, MaxCount=1)
        wanted["SubnetId"] = (wanted.pop("SubnetIds", None) or [""])[0]  # Ray picks one of them
        report = botocore.validate.ParamValidator().validate(wanted, shape)
        for problem in report.generate_report().splitlines() if report.has_errors() else ():
            checked.wrong(f"available_node_types.{name}.node_config", f"EC2 refuses it: {problem}")
    checked.means.append("EC2's model of RunInstances")


def _check_gcp(checked: Checked, place: str, config: dict[str, Any], is_head: bool) -> None:
    for index, card in enumerate(config.get("networkInterfaces", [])):
        if card.get("accessConfigs"):
            checked.wrong(
                f"{place}.networkInterfaces.{index}.accessConfigs",
                "gives a public address; take it out",
            )
    if not config.get("networkInterfaces"):
        checked.wrong(
            f"{place}.networkInterfaces",
            "missing: Ray would take the first subnet and a public address",
        )
    for index, disk in enumerate(config.get("disks", [])):
        source = str(at(disk, "initializeParams.sourceImage", ""))
        if not source or "/family/" in source:
            checked.wrong(
                f"{place}.disks.{index}.initializeParams.sourceImage",
                f"{source!r} moves with its family; name one image",
            )
    accounts = config.get("serviceAccounts", [])
    if not accounts and not is_head:  # Ray's launcher sets the head's itself
        checked.wrong(f"{place}.serviceAccounts", "missing: the machine cannot reach the bucket")
    for index, account in enumerate(accounts):
        if any(str(scope).endswith("/cloud-platform") for scope in account.get("scopes", [])):
            checked.wrong(
                f"{place}.serviceAccounts.{index}.scopes",
                "cloud-platform is every API; name the few needed",
            )
    if isinstance(config.get("scheduling"), list):
        checked.wrong(f"{place}.scheduling", "is a list; Google's API takes a mapping")


def _check_azure(checked: Checked, place: str, config: dict[str, Any], is_head: bool) -> None:
    given = config.get("azure_arm_parameters", {})
    known = set(_azure_parameters())
    for key in given:
        if key not in known:
            checked.wrong(
                f"{place}.azure_arm_parameters.{key}",
                "Ray's template of a machine has no such parameter; "
                f"known: {', '.join(sorted(known))}",
            )
    version = str(given.get("imageVersion", ""))
    if not given.get("imageId") and version in ("", "latest"):
        checked.wrong(
            f"{place}.azure_arm_parameters.imageVersion", f"{version!r} moves; name a version"
        )
    if not is_head and given.get("priority") == "Spot" and given.get("evictionPolicy") != "Delete":
        checked.wrong(
            f"{place}.azure_arm_parameters.evictionPolicy",
            "a spot machine taken away keeps its disk; use Delete",
        )


def _azure_parameters() -> Iterator[str]:
    """Parameters of the ARM template that Ray's Azure provider deploys, and the zone it adds."""
    import ray.autoscaler

    folder = Path(ray.autoscaler.__file__).parent / "_private" / "_azure"
    yield from json.loads((folder / "azure-vm-template.json").read_text())["parameters"]
    yield "availability_zone"
