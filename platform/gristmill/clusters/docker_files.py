"""Checks of Dockerfiles: Hadolint, a pinned base, pinned packages, no root, authentication on."""

import json
import re
import subprocess

from gristmill.clusters.command_rules import check_installs
from gristmill.clusters.findings import Checked
from gristmill.clusters.rules import check_image, is_secret
from gristmill.clusters.scripts import tool


def check_dockerfile(checked: Checked) -> None:
    """Hadolint has nothing against it, nor have our rules."""
    if hadolint := tool("hadolint"):
        words = [hadolint, "--format=json", "--failure-threshold=error", "-"]
        done = subprocess.run(words, input=checked.text, capture_output=True, text=True)
        for note in json.loads(done.stdout or "[]"):
            if note["level"] in ("error", "warning"):
                checked.wrong(f"line {note['line']}", f"{note['code']}: {note['message']}")
        checked.means.append("Hadolint")
    else:
        checked.left_out.append("Hadolint: pip install 'gristmill[cluster]'")
    user, stages, arguments = "root", set[str](), dict[str, str]()
    asks = False
    for number, line in _instructions(checked.text):
        word, _, rest = line.strip().partition(" ")
        place = f"line {number}"
        match word.upper():
            case "FROM":
                parts = [p for p in rest.split() if not p.startswith("--")]
                if parts[0] not in stages:
                    check_image(checked, place, _resolved(parts[0], arguments))
                stages.add(parts[-1])
            case "ARG" | "ENV":
                for name, value in re.findall(r"(\w+)(?:=|\s+)(\S*)", rest):
                    arguments[name] = value
                    asks = asks or (name, value) == ("RAY_AUTH_MODE", "token")
                    if is_secret(name, value):
                        checked.wrong(
                            place,
                            f"{name} stays in the image for whoever pulls it; take it out and give "
                            "nodes a role, or a secret of the platform",
                        )
            case "RUN":
                check_installs(checked, place, rest)
            case "USER":
                user = rest.strip()
            case "EXPOSE":
                checked.wrong(place, "EXPOSE publishes a port under `docker run -P`; take it out")
    if user.partition(":")[0] in ("root", "0"):
        checked.wrong("USER", "the container runs as root; end with another user")
    if re.search(r"\bray\b", checked.text) and not asks:
        checked.wrong(
            "ENV RAY_AUTH_MODE",
            "not set to token: Ray in this image starts open unless told otherwise",
        )


def _instructions(text: str) -> list[tuple[int, str]]:
    """Instructions with the line each begins on, continued lines joined, comments left out."""
    found: list[tuple[int, str]] = []
    going = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            continue
        if going:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip().rstrip(chr(92))}")
        elif line.strip():
            found.append((number, line.strip().rstrip("\\")))
        going = line.rstrip().endswith("\\")
    return found


def _resolved(image: str, arguments: dict[str, str]) -> str:
    """An image with build arguments put in by their defaults."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: arguments.get(found[1], ""), image)
