"""Checks of shell scripts: bash, ShellCheck, and how Ray is started."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from gristmill.clusters.command_rules import check_installs, check_start_command
from gristmill.clusters.findings import Checked


def tool(name: str) -> str | None:
    """A tool of the cluster extra, beside this Python or on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def check_shell(checked: Checked) -> None:
    """Bash can read it, ShellCheck has nothing against it, and Ray is started closed."""
    done = subprocess.run(["bash", "-n"], input=checked.text, capture_output=True, text=True)
    for line in done.stderr.splitlines():
        checked.wrong(line.partition(": ")[2].partition(":")[0], f"bash cannot read it: {line}")
    checked.means.append("bash -n")
    if shellcheck := tool("shellcheck"):
        words = [shellcheck, "--format=json", "--severity=warning", "--shell=bash", "-"]
        done = subprocess.run(words, input=checked.text, capture_output=True, text=True)
        for note in json.loads(done.stdout or "[]"):
            checked.wrong(f"line {note['line']}", f"SC{note['code']}: {note['message']}")
        checked.means.append("ShellCheck")
    else:
        checked.left_out.append("ShellCheck: pip install 'gristmill[cluster]'")
    exported = ""
    for number, line in enumerate(checked.text.replace("\\\n", " ").splitlines(), start=1):
        if line.lstrip().startswith("#"):
            continue
        check_installs(checked, f"line {number}", line)
        if re.search(r"\bray start\b", line):  # what was exported above holds here too
            check_start_command(checked, f"ray start (line {number})", exported + line)
        elif "RAY_AUTH_MODE" in line:
            exported += f"{line.strip()}; "
    writes = re.search(r"AUTH_TOKEN|get-auth-token", checked.text)
    if writes and not re.search(r"^\s*umask 0?77\b", checked.text, re.M):
        checked.wrong(
            "umask", "not 077: the token that this script writes could be read by others; set it"
        )
