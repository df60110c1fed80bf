"""Machine kinds and GPUs: a table of what the providers publish."""

import difflib
import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gristmill.core.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What one machine of a kind holds."""

    cpus: int
    """Virtual CPUs."""
    memory_gib: int
    """Main memory."""
    gbit: int
    """Network in Gbit/s, the fast one where there is one."""
    gpus: int = 0
    """GPUs."""
    gpu: str = ""
    """Their kind, such as H100-80GB."""
    cards: int = 0
    """Cards of the fast network, on AWS and Azure."""
    gvnics: int = 0
    """Google Cloud: gVNIC interfaces beside the first."""
    rdma: int = 0
    """Google Cloud: RDMA interfaces of the GPUs."""
    disk: str = "pd-balanced"
    """Google Cloud: type of the boot disk."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU."""

    memory_gib: int
    """Its memory."""
    bf16_tflops: float
    """Dense bf16 peak, without sparsity: the denominator of MFU."""


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(files("gristmill.clusters").joinpath("machines.json").read_text()))


def machine(cloud: str, kind: str) -> Machine:
    """A machine kind of a cloud.

    Raises:
        BadInputError: The kind is not in the table.
    """
    known = _table()[cloud]
    if kind not in known:
        raise BadInputError(
            f"no machine kind {kind!r} of {cloud}{_near(kind, known)}; known: {', '.join(known)}; "
            "others go into platform/gristmill/clusters/machines.json"
        )
    return Machine(**known[kind])


def gpu(kind: str) -> Gpu:
    """A GPU kind.

    Raises:
        BadInputError: The kind is not in the table.
    """
    known = _table()["gpus"]
    if kind not in known:
        raise BadInputError(f"no GPU {kind!r}{_near(kind, known)}; known: {', '.join(known)}")
    return Gpu(**known[kind])


def _near(word: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; perhaps {near[0]}" if near else ""
