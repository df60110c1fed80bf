"""Checks of role files: each right is one that a cluster needs, on what is its own."""

import functools
import json
import re
from importlib.resources import files
from typing import Any

from gristmill.clusters.findings import Checked, near

ELEMENTS = ("Sid", "Effect", "Principal", "Action", "Resource", "Condition")
ANYWHERE = re.compile(r"ec2:Describe|ecr:GetAuthorizationToken|ssm:Update|ssmmessages:|cloudwatch:")
"""Actions that have no resource to name, or none that matters."""
BUCKET = re.compile(r"arn:aws[\w-]*:s3:::[a-z0-9.-]+(?:/.*)?")
ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+")


@functools.cache
def _table() -> dict[str, list[str]]:
    return dict(json.loads(files("gristmill.clusters").joinpath("role_actions.json").read_text()))


def _allowed(checked: Checked, provider: str) -> frozenset[str]:
    """The rights that a file of this name may give; of another name, those of its provider."""
    stem = checked.name.rsplit("/", 1)[-1].rpartition(".")[0]
    if stem in _table():
        return frozenset(_table()[stem])
    return frozenset(
        action
        for name, rights in _table().items()
        if name.startswith(provider)
        for action in rights
    )


def _check_right(checked: Checked, place: str, right: str, allowed: frozenset[str]) -> None:
    if right in allowed:
        return
    if "*" in right:
        every = right == "*" or right.endswith((":*", "/*"))
        what = "every action" if every else "a pattern of actions"
        checked.wrong(place, f"{right!r} is {what}; name the few needed")
    else:
        checked.wrong(
            place,
            f"{right!r} is no right that a cluster needs{near(right, allowed)}; take it out, or "
            "add it to platform/gristmill/clusters/role_actions.json with a reason",
        )


def check_aws_policy(checked: Checked, data: dict[str, Any]) -> None:
    """An IAM policy names its actions, and what changes things names its resources."""
    allowed = _allowed(checked, "aws")
    statements = data.get("Statement", [])
    for index, statement in enumerate(statements if isinstance(statements, list) else [statements]):
        place = f"Statement.{statement.get('Sid', index)}"
        for key in statement:
            if key in ("NotAction", "NotResource", "NotPrincipal"):
                checked.wrong(f"{place}.{key}", "means all but these; name what is allowed instead")
            elif key not in ELEMENTS:
                checked.wrong(f"{place}.{key}", f"IAM has no such element{near(key, ELEMENTS)}")
        if "Effect" in statement and statement["Effect"] not in ("Allow", "Deny"):
            checked.wrong(f"{place}.Effect", f"{statement['Effect']!r} is not Allow or Deny")
        actions, resources = _list(statement.get("Action")), _list(statement.get("Resource"))
        for action in actions:
            _check_right(checked, f"{place}.Action", action, allowed)
        if "Principal" in statement:
            _check_trust(checked, place, statement)
        elif not resources or not actions:
            if not {"NotAction", "NotResource"} & set(statement):
                checked.wrong(place, "needs Action and Resource")
        else:
            _check_resources(checked, place, actions, resources, statement.get("Condition"))
    checked.means.append("our rules for roles")


def _check_trust(checked: Checked, place: str, statement: dict[str, Any]) -> None:
    if statement["Principal"] != {"Service": "ec2.amazonaws.com"}:
        checked.wrong(
            f"{place}.Principal",
            f"{statement['Principal']!r} may take the role; only ec2.amazonaws.com needs to",
        )


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _check_resources(
    checked: Checked, place: str, actions: list[str], resources: list[str], condition: Any
) -> None:
    """What an action may touch: this bucket, these roles, machines with the cluster's tag."""
    everywhere = [action for action in actions if not ANYWHERE.match(action)]
    if "*" in resources and everywhere:
        checked.wrong(
            f"{place}.Resource",
            f"{', '.join(everywhere)} on every resource; name them by their ARN",
        )
    for resource in (r for r in resources if r != "*"):
        on_buckets = [action for action in actions if action.startswith("s3:")]
        if on_buckets and not BUCKET.fullmatch(resource):
            checked.wrong(
                f"{place}.Resource",
                f"{', '.join(on_buckets)} on {resource!r}: every bucket; name yours",
            )
        on_roles = [action for action in actions if action.startswith("iam:")]
        if on_roles and not ROLE.fullmatch(resource):
            checked.wrong(
                f"{place}.Resource",
                f"{', '.join(on_roles)} on {resource!r}: whoever passes any role becomes an "
                "administrator; name the account and the role in full",
            )
    if any(r.endswith(":instance/*") for r in resources) and not condition:
        checked.wrong(
            f"{place}.Condition",
            f"{', '.join(actions)} on every machine of the account; "
            "ask for the tag ray-cluster-name",
        )


def check_azure_role(checked: Checked, data: dict[str, Any]) -> None:
    """A custom role of Azure names its actions and one resource group."""
    allowed = _allowed(checked, "azure")
    for key in ("Actions", "DataActions"):
        for action in data.get(key, []):
            _check_right(checked, key, action, allowed)
    for scope in data.get("AssignableScopes", []):
        if "/resourceGroups/" not in scope:
            checked.wrong("AssignableScopes", f"{scope!r} is wider than a resource group")
    checked.means.append("our rules for roles")


def check_gcp_role(checked: Checked, data: dict[str, Any]) -> None:
    """A custom role of Google Cloud names its permissions."""
    allowed = _allowed(checked, "gcp")
    for permission in data.get("includedPermissions", []):
        _check_right(checked, "includedPermissions", permission, allowed)
    checked.means.append("our rules for roles")
