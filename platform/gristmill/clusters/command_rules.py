"""Rules for shell commands in cluster files: how Ray is started, and what is installed."""

import functools
import re
import shlex

from gristmill.clusters.findings import Checked, near

START = re.compile(r"\bray\s+start\b")
PIPED = re.compile(r"\b(?:curl|wget)\b[^|;]*\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b")
PART = re.compile(r"&&|\|\||[;\n]")
PIP = re.compile(r"\bpip3?\s+install\s+([^;&|]*)")
WITH_VALUE = ("-c", "--constraint", "-r", "--requirement", "-e", "--editable", "--target", "-t")
PORT = 6379
"""Of the head, where `ray start` is not told another."""


def check_start_command(checked: Checked, place: str, command: str) -> None:
    """A command that starts Ray asks for the token and keeps its dashboard on loopback."""
    flat = " ".join(command.split())
    if not START.search(flat):
        return
    mode, where = "", ""
    for part in PART.split(flat):
        if re.search(r"\bunset\b.*\bRAY_AUTH_MODE\b", part):
            mode, where = "", "unset before"
        here = re.findall(r"\bRAY_AUTH_MODE=(\S*)", part)
        if here and "export " in part:
            mode, where = here[-1], f"set to {here[-1]!r} before"
        if not START.search(part):
            continue
        asked = here[-1] if here else mode
        if "-u RAY_AUTH_MODE" in part or asked != "token":
            told = f"it is {where}" if where and not here else ""
            told = f"it is set to {here[-1]!r} there" if here else told
            checked.wrong(
                place,
                "starts Ray without RAY_AUTH_MODE=token"
                + (f" ({told})" if told else "")
                + ": it would be open to whoever reaches it; put `export RAY_AUTH_MODE=token; ` "
                "before",
            )
        check_ray_options(checked, place, part[START.search(part).end() :])  # type: ignore[union-attr]
    check_dashboard(checked, place, flat)


def check_dashboard(checked: Checked, place: str, command: str) -> None:
    """The dashboard, which runs jobs for whoever reaches it, listens on loopback."""
    host = re.search(r"--dashboard-host[=\s]+([^\s'\"]+)", command)
    if host and host[1] not in ("127.0.0.1", "localhost", "::1"):
        checked.wrong(
            place,
            f"--dashboard-host={host[1]} opens the dashboard, which runs code for whoever reaches "
            "it; use 127.0.0.1 and a tunnel",
        )
    if re.search(r"--ray-debugger-external\b", command):
        checked.wrong(
            place, "--ray-debugger-external opens a debugger on all interfaces; take it out"
        )


@functools.cache
def _ray_options() -> frozenset[str]:
    """The options of `ray start`, by Ray's own command line."""
    from ray.scripts.scripts import start

    return frozenset(option for p in start.params for option in (*p.opts, *p.secondary_opts))


def check_ray_options(checked: Checked, place: str, words: str, also: tuple[str, ...] = ()) -> None:
    """`ray start` knows every option it is given."""
    known = _ray_options() | set(also)
    plain = re.sub(r"\$\(\(.*?\)\)", "", words).partition("$(")[0]
    for option in re.findall(r"(?<!\S)(--[a-z][\w-]*)", plain):
        if option not in known:
            checked.wrong(place, f"`ray start` has no option {option}{near(option, known)}")


def check_join(checked: Checked, head: list[str], workers: list[str]) -> None:
    """Workers join the head where it listens."""
    said = re.search(r"--port[=\s]+(\d+)", " ".join(head))
    port = int(said[1]) if said else PORT
    for index, command in enumerate(workers):
        if not START.search(command):
            continue
        address = re.search(r"--address[=\s]+['\"]?([^\s'\"]+)", command)
        if address is None or address[1] != f"$RAY_HEAD_IP:{port}":
            checked.wrong(
                f"worker_start_ray_commands.{index}",
                f"--address {address[1] if address else 'missing'!r}, the head listens on "
                f"$RAY_HEAD_IP:{port}: no worker would join",
            )


def check_installs(checked: Checked, place: str, command: str, ray: str = "") -> None:
    """What a command installs is pinned, and is no script from the network run unread.

    Args:
        checked: The file.
        place: The command's field or line.
        command: The command.
        ray: The version of Ray that every node must have; empty: any.
    """
    if PIPED.search(command):
        checked.wrong(
            place, "runs a script from the network unread; download it, check its hash, then run it"
        )
    for found in PIP.finditer(command.replace("\\\n", " ")):
        for wanted in _requirements(found[1]):
            name = re.split(r"[\[=<>~! ]", wanted)[0]
            pinned = "==" in wanted or wanted.startswith((".", "/", "$"))
            if wanted.startswith("git+"):
                pinned = bool(re.search(r"@[0-9a-f]{40}", wanted))
            if not pinned and "--constraint" not in found[1] and "-c " not in found[1]:
                checked.wrong(place, f"installs {wanted!r} unpinned; add ==version")
            elif not pinned and name == "ray":
                checked.wrong(place, f"installs {wanted!r} unpinned; all nodes need one ==version")
            version = wanted.partition("==")[2]
            if name == "ray" and version and ray and version != ray:
                checked.wrong(
                    place,
                    f"installs ray {version}, the cluster's is {ray}; nodes must have the same",
                )


def _requirements(words: str) -> list[str]:
    """What `pip install WORDS` is asked for, without its options."""
    try:
        parts = shlex.split(words)
    except ValueError:
        parts = words.split()
    found, skip = [], False
    for part in parts:
        if skip:
            skip = False
        elif part.startswith("-"):
            skip = part in WITH_VALUE
        else:
            found.append(part)
    return found
