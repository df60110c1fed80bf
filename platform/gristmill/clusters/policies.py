"""Checks of role files: nothing wider than a cluster needs."""

from typing import Any

from gristmill.clusters.findings import Checked

READING = ("Describe", "List", "Get")


def check_aws_policy(checked: Checked, data: dict[str, Any]) -> None:
    """An IAM policy names its actions, and what changes things names its resources."""
    statements = data.get("Statement", [])
    for index, statement in enumerate(statements if isinstance(statements, list) else [statements]):
        place = f"Statement.{statement.get('Sid', index)}"
        actions, resources = _list(statement.get("Action")), _list(statement.get("Resource"))
        if not actions or not resources:
            checked.wrong(place, "needs Action and Resource")
        for action in actions:
            service, _, name = action.partition(":")
            if "*" in service or name.startswith("*"):
                checked.wrong(f"{place}.Action", f"{action!r} is every action; name the few needed")
            if _changes(action) and "*" in resources:
                checked.wrong(
                    f"{place}.Resource", f"{action} on every resource; name them by their ARN"
                )
            if action == "iam:PassRole" and any(r.endswith("role/*") for r in resources):
                checked.wrong(
                    f"{place}.Resource", "iam:PassRole of any role makes the head an administrator"
                )
    checked.means.append("our rules for roles")


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _changes(action: str) -> bool:
    service, _, name = action.partition(":")
    return service not in ("ssm", "ssmmessages") and (
        service == "s3" or not name.startswith(READING)
    )


def check_azure_role(checked: Checked, data: dict[str, Any]) -> None:
    """A custom role of Azure names its actions and one resource group."""
    for key in ("Actions", "DataActions"):
        for action in data.get(key, []):
            if action == "*" or action.endswith("/*"):
                checked.wrong(key, f"{action!r} is every action; name the few needed")
    for scope in data.get("AssignableScopes", []):
        if "/resourceGroups/" not in scope:
            checked.wrong("AssignableScopes", f"{scope!r} is wider than a resource group")
    checked.means.append("our rules for roles")


def check_gcp_role(checked: Checked, data: dict[str, Any]) -> None:
    """A custom role of Google Cloud names its permissions."""
    for permission in data.get("includedPermissions", []):
        if "*" in permission or permission.endswith((".setIamPolicy", "serviceAccounts.actAs")):
            checked.wrong("includedPermissions", f"{permission!r} is too wide for a worker")
    checked.means.append("our rules for roles")
