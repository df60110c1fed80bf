"""Rules for every cluster file, whatever its kind: no secrets, pinned images, sizes that fit."""

import re

from gristmill.clusters.findings import Checked

SECRETS = {
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a Ray token": r"RAY_AUTH_TOKEN\s*[=:]\s*[\"']?[0-9A-Za-z]{8,}",
    "a GitHub token": r"\bgh[pousr]_[0-9A-Za-z]{30,}\b",
    "a Hugging Face token": r"\bhf_[0-9A-Za-z]{30,}\b",
    "an Azure storage key": r"AccountKey=[0-9A-Za-z+/=]{40,}",
    "a password": r"(?i)\b(?:password|passwd|secret_access_key|client_secret)"
    r"\s*[=:]\s*[\"']?[^\s\"'{}$<]{6,}",
}
SECRET_NAME = re.compile(
    r"(?i)(?:secret|passw(?:or)?d|credentials?|(?:^|_)token|(?:api|access|private)_?key|(?:^|_)key$)"
    r"(?:_|$)"
)
HARMLESS = re.compile(r"(?i)(?:true|false|\d+)?")
PLACE_NAME = re.compile(r"(?i)(?:_path|_file|_url|_mode|_dir)$")
"""Names that hold where a secret lies, not the secret."""
AUTHENTICATION_OFF = re.compile(
    r"""RAY_AUTH_MODE["']?(?:=|:[ ]*|,[ ]*value:[ ]*|\n\s+value:[ ]*)["']?(?!token\b)(\w+)"""
)
MOVING = (
    "latest",
    "nightly",
    "main",
    "master",
    "stable",
    "edge",
    "current",
    "lts",
    "dev",
    "rolling",
)


def check_text(checked: Checked) -> None:
    """What can be seen in the bare text of any file."""
    for what, pattern in SECRETS.items():
        for found in re.finditer(pattern, checked.text):
            checked.wrong(
                checked.line_of(found.start()),
                f"holds {what}; take it out and give nodes a role, or a secret of the platform",
            )
    for found in AUTHENTICATION_OFF.finditer(checked.text):
        checked.wrong(
            checked.line_of(found.start()),
            f"RAY_AUTH_MODE is {found[1]!r}: authentication is off; set it to token",
        )
    checked.means.append("our rules")


def is_secret(name: str, value: object) -> bool:
    """Whether a variable of this name and value holds a secret in the clear."""
    return bool(
        SECRET_NAME.search(name)
        and not PLACE_NAME.search(name)
        and value is not None
        and not HARMLESS.fullmatch(str(value))
        and not str(value).startswith("$")
    )


def check_image(checked: Checked, place: str, image: object) -> None:
    """An image has a tag or a digest, and the tag is a version."""
    text = str(image or "")
    if "@sha256:" in text:
        return
    tag = text.rpartition("/")[2].partition(":")[2]
    if not tag:
        checked.wrong(
            place, f"image {text!r} has no tag, which means latest; pin a version or digest"
        )
    elif any(word in MOVING for word in tag.split("-")) or not re.search(r"\d", tag):
        checked.wrong(place, f"image {text!r} moves; pin a version or digest")


def check_gpu_image(checked: Checked, place: str, image: object, gpus: float) -> None:
    """What has GPUs does not run an image whose tag says that it is for CPUs."""
    tag = str(image or "").rpartition("/")[2].partition(":")[2]
    if gpus and "cpu" in tag.split("-"):
        checked.wrong(
            place, f"image {image!r} is for CPUs, and {gpus:g} GPUs are held; use the GPU's"
        )


def check_range(checked: Checked, place: str, least: object, most: object) -> None:
    """0 <= min <= max."""
    if isinstance(least, int) and isinstance(most, int) and not 0 <= least <= most:
        checked.wrong(place, f"min {least} and max {most} need 0 <= min <= max")


def check_gpus(checked: Checked, place: str, cpus: float, gpus: float) -> None:
    """A node's GPUs fit what jobs ask for: whole GPUs, two CPUs a rank."""
    if gpus and gpus not in (1, 2, 4, 8, 16):
        checked.wrong(place, f"{gpus:g} GPUs a node: ranks take whole nodes of 1, 2, 4, 8 or 16")
    if gpus and cpus < 2 * gpus:
        checked.wrong(
            place,
            f"{cpus:g} CPUs for {gpus:g} GPUs: each rank asks for one CPU and its loader for one; "
            f"give {2 * gpus:g} or more",
        )


def ranks_of(command: str) -> int:
    """The `--workers` of a command; 0 where it has none."""
    found = re.search(r"--workers[=\s]+(\d+)", command)
    return int(found[1]) if found else 0


def check_ranks(checked: Checked, place: str, command: str, gpus: int) -> None:
    """The ranks that a command asks for fit the GPUs of the nodes it is given."""
    ranks = ranks_of(command)
    if ranks and gpus and ranks > gpus:
        checked.wrong(
            place,
            f"the command asks for {ranks} ranks, the nodes hold {gpus} GPUs; it would never start",
        )
