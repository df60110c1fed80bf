"""`cluster notices`: pass a cloud's word that it will take this machine on to Ray.

Ray's autoscaler does not ask for it. Once told, Ray starts nothing new on the node, and Ray Train
lets its ranks know, which then save where they stand. Each provider tells by its metadata service:

- EC2: `spot/instance-action` appears two minutes before (User Guide, "Spot Instance interruption
  notices"); the service wants a token of its own (IMDSv2).
- Compute Engine: `instance/preempted` turns TRUE, 30 seconds before ("Spot VMs").
- Azure: an event of type Preempt for this machine, at least 30 seconds before ("Scheduled Events").
- Kubernetes is not asked: whoever empties a node deletes its pods, and their preStop hook, which is
  this command, runs before its processes are told to end ("Container Lifecycle Hooks").
"""

import datetime
import email.utils
import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gristmill.core.action import Action
from gristmill.core.errors import BadInputError, RunError

GRACE_SECONDS = 30
"""What Google Cloud gives, which says no time; and the least of the others."""
LINK_LOCAL = "http://169.254.169.254"
SERVICES = {"aws": LINK_LOCAL, "gcp": "http://metadata.google.internal", "azure": LINK_LOCAL}
TIMEOUT_SECONDS = 3.0
DRAIN_SECONDS = 25
"""How long Ray may take to hear of it; with a pod's grace it must fit what Kubernetes grants."""
AGAIN_SECONDS = 2.0
"""After Ray did not take a notice."""
ERRORS_TOLD = 12
"""Every so many failed questions in a row one is logged."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HeedNotices(Action):
    """Wait for the provider's notice about this machine, tell Ray, and end."""

    source: Literal["aws", "gcp", "azure", "kubernetes"]
    """Whose machine this is. kubernetes: the pod is ending; tell Ray, then wait if it works."""
    every: float = 5.0
    """Seconds between questions."""
    service: str = ""
    """The metadata service. Empty: the provider's."""
    node: str = ""
    """Id of the Ray node, in hex. Empty: the one on this machine."""
    grace: int = 90
    """Seconds that a pod is left; its terminationGracePeriodSeconds must be longer."""

    def act(self) -> int:
        """Ask until there is a notice; tell Ray of it."""
        if self.every <= 0:
            raise BadInputError(f"every must be over 0, not {self.every}")
        if self.grace < 1:
            raise BadInputError(f"grace must be 1 or more, not {self.grace}")
        if self.source == "kubernetes":
            return self._end_pod()
        base, failed = self.service or SERVICES[self.source], 0
        while True:
            try:
                seconds = ASK[self.source](base)
                failed = 0
            except (OSError, ValueError) as error:  # the service is restarting, or is not there
                seconds = None
                if failed % ERRORS_TOLD == 0:
                    logger.warning("no answer of the metadata service: %s", error)
                failed += 1
            if seconds is not None:
                insist(self.node, seconds)
                logger.warning("this machine will be taken away in %d s; Ray knows", seconds)
                return 0
            time.sleep(self.every)

    def _end_pod(self) -> int:
        """Kubernetes tells the pod's processes to end when this has returned."""
        try:
            if release(self.node):
                return 0  # nothing runs there: a scale-down, and its GPUs are not held for it
        except RunError as error:
            logger.warning("%s; taken for a node that works", error)
        end = time.monotonic() + self.grace
        insist(self.node, self.grace)
        time.sleep(max(end - time.monotonic(), 0))
        return 0


def insist(node: str, seconds: int) -> None:
    """Drain a node, asking a busy Ray again as long as there is time.

    Raises:
        RunError: Ray has not taken it to the end.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            drain(node, max(int(end - time.monotonic()), 1))
            return
        except RunError as error:
            if time.monotonic() + AGAIN_SECONDS >= end:
                raise
            logger.warning("%s; asking again", error)
            time.sleep(AGAIN_SECONDS)


def release(node: str) -> bool:
    """Whether Ray let an idle node (empty: this one) go; it keeps one that works or holds data."""
    return _drain(node, "IDLE_TERMINATION", "its pod ends", None).returncode == 0


def drain(node: str, seconds: int) -> None:
    """Tell Ray that a node (empty: this one) will be gone in so many seconds.

    Raises:
        RunError: Ray did not take it.
    """
    done = _drain(node, "PREEMPTION", "the provider takes this machine away", seconds)
    if done.returncode:
        raise RunError(f"Ray did not take the notice: {done.stderr.strip()[-500:]}")


def _drain(
    node: str, reason: str, message: str, seconds: int | None
) -> "subprocess.CompletedProcess[str]":
    words = [
        str(Path(sys.executable).parent / "ray"), "drain-node",
        "--reason", f"DRAIN_NODE_REASON_{reason}", "--reason-message", message,
        *(["--deadline-remaining-seconds", str(seconds)] if seconds is not None else []),
        *(["--node-id", node] if node else []),
    ]  # fmt: skip
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=DRAIN_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RunError(f"Ray did not take the notice in {DRAIN_SECONDS} s") from error


def ask_aws(base: str) -> int | None:
    """Seconds until EC2 takes this machine; None without a notice."""
    lasting = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _get(f"{base}/latest/api/token", lasting, method="PUT")
    head = {"X-aws-ec2-metadata-token": token or ""}
    text = _get(f"{base}/latest/meta-data/spot/instance-action", head)
    if text is None:
        return None
    told = json.loads(text)
    if told["action"] not in ("terminate", "stop", "hibernate"):
        return None
    return _until(datetime.datetime.fromisoformat(told["time"].replace("Z", "+00:00")))


def ask_gcp(base: str) -> int | None:
    """Seconds until Compute Engine takes this machine; None without a notice."""
    head = {"Metadata-Flavor": "Google"}
    told = _get(f"{base}/computeMetadata/v1/instance/preempted", head)
    return GRACE_SECONDS if (told or "").strip() == "TRUE" else None


def ask_azure(base: str) -> int | None:
    """Seconds until Azure takes this machine; None without a notice."""
    head = {"Metadata": "true"}
    text = _get(f"{base}/metadata/scheduledevents?api-version=2020-07-01", head)
    events = json.loads(text or "{}").get("Events", [])
    taken = [event for event in events if event.get("EventType") == "Preempt"]
    if not taken:
        return None
    where = f"{base}/metadata/instance/compute/name?api-version=2021-02-01&format=text"
    name = (_get(where, head) or "").strip()
    for event in taken:  # events of a scale set are told to all its machines
        if name in event.get("Resources", []):
            begins = event.get("NotBefore", "")
            return _until(email.utils.parsedate_to_datetime(begins)) if begins else GRACE_SECONDS
    return None


ASK = {"aws": ask_aws, "gcp": ask_gcp, "azure": ask_azure}


def _until(when: datetime.datetime) -> int:
    return max(int((when - datetime.datetime.now(datetime.timezone.utc)).total_seconds()), 0)


def _get(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The answer; None for 404, which says that there is nothing to tell."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
