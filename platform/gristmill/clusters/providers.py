"""Checks of `node_config`, which Ray hands to the provider unread: which provider and machine."""

import re
from typing import Any

from gristmill.clusters import aws_nodes, azure_nodes, gcp_nodes
from gristmill.clusters.findings import Checked, at
from gristmill.clusters.machines import Machine, machine
from gristmill.clusters.rules import check_gpu_image
from gristmill.core.errors import BadInputError

KIND = {
    "aws": "InstanceType",
    "gcp": "machineType",
    "azure": "azure_arm_parameters.vmSize",
}
"""Where a node's machine kind stands."""
CHECK = {
    "aws": aws_nodes.check_node,
    "gcp": gcp_nodes.check_node,
    "azure": azure_nodes.check_node,
}


def check_nodes(checked: Checked, data: dict[str, Any]) -> None:
    """Check every node type of a cloud's file."""
    provider = data["provider"]
    cloud = provider["type"]
    zone, region = str(provider.get("availability_zone", "")), str(provider.get("region", ""))
    if zone and region and not all(z.strip().startswith(region) for z in zone.split(",")):
        checked.wrong("provider.availability_zone", f"{zone!r} is not in region {region!r}")
    for name, group in data.get("available_node_types", {}).items():
        place = f"available_node_types.{name}"
        config = group.get("node_config", {})
        is_head = name == data.get("head_node_type")
        holds = None if is_head else _check_machine(checked, place, cloud, group, config)
        CHECK[cloud](checked, f"{place}.node_config", config, holds)
        if not is_head:
            _check_group(checked, place, data, group)
    if cloud == "azure":
        azure_nodes.check_provider(checked, provider)
    if cloud == "aws":
        aws_nodes.check_by_botocore(checked, data)


def _check_group(checked: Checked, place: str, data: dict[str, Any], group: dict[str, Any]) -> None:
    gpus = group.get("resources", {}).get("GPU", 0)
    docker = data.get("docker") or {}
    image = at(group, "docker.worker_image") or docker.get("worker_image") or docker.get("image")
    where = "docker.worker_image" if at(group, "docker.worker_image") else "docker"
    check_gpu_image(checked, f"{place}.{where}", image, gpus)
    if gpus and group.get("min_workers", 0):
        checked.warn(
            f"{place}.min_workers",
            f"{group['min_workers']} machines of {gpus} GPUs are paid for even when idle",
        )


def _check_machine(
    checked: Checked, place: str, cloud: str, group: dict[str, Any], config: dict[str, Any]
) -> Machine | None:
    """The resources a group declares are those of its machine kind. That kind, if it is known."""
    kind = at(config, KIND[cloud], "")
    try:
        holds = machine(cloud, kind)
    except BadInputError as error:
        checked.wrong(f"{place}.node_config.{KIND[cloud]}", str(error))
        return None
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
    return holds


def check_notices(checked: Checked, cloud: str, commands: list[str]) -> None:
    """The notices asked for are this provider's."""
    for index, command in enumerate(commands):
        source = re.search(r"cluster notices .*--source[=\s]+(\S+)", command)
        if source and source[1] != cloud:
            checked.wrong(
                f"worker_start_ray_commands.{index}",
                f"--source {source[1]} asks another provider's metadata service; use {cloud}",
            )
