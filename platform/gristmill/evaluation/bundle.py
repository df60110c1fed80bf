"""A submission bundle: a folder of plain files, each with its SHA-256 in MANIFEST.

    submission.json                  who, what, and the hashes of all the rest
    {scale}_scale/samples.npy        the subset
    {scale}_scale/eval_results.jsonl, main_metrics.json, [checkpoint.pt]
    lineage/{filter,reshard,train,evaluate}/{config.json,env.json,DONE}
    MANIFEST                         written last; `sha256sum -c MANIFEST` reads it

`clip submit` makes it in a run folder, so that folder's own files may lie beside it, unlisted.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.core.holding import LOCK
from gristmill.core.journal import EVENTS, LOG_NAME
from gristmill.core.run import CONFIG, DONE, ENV, METRICS, REPORT
from gristmill.evaluation.results import RESULTS

SCHEMA_VERSION = 1
MANIFEST, SUBMISSION = "MANIFEST", "submission.json"
SAMPLES, RECORD, CHECKPOINT = "samples.npy", "main_metrics.json", "checkpoint.pt"
LINEAGE = "lineage"
LINEAGE_FILES = (CONFIG, ENV, DONE)
VERBS = ("filter", "reshard", "train", "evaluate")
OWN_RUN_FILES = frozenset({CONFIG, ENV, METRICS, REPORT, DONE, LOCK, EVENTS})
MAX_JSON_BYTES = 64 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_OWN_NAME = re.compile(
    rf"({SUBMISSION}|{MANIFEST}"
    rf"|[a-z0-9_-]+_scale/({RESULTS}|{SAMPLES}|{RECORD}|{CHECKPOINT})"
    rf"|{LINEAGE}/({'|'.join(VERBS)})/({'|'.join(LINEAGE_FILES)}))"
)
_ASIDE = re.compile(r"(.*/|)\.([^/]+)\.[0-9a-f]{12}\.tmp")
"""A half-written file, as `io.open_write` names it."""
_MANIFEST_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def scale_folder(scale: str) -> str:
    """Where results of a scale lie, as in DataComp's hub repository."""
    return f"{scale}_scale"


def check_name(name: str) -> str:
    """A file's name inside a bundle, if it is plain.

    Raises:
        BadInputError: It is absolute, climbs with `..`, is hidden, or has odd characters.
    """
    if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
        raise BadInputError(f"file name {name!r} is not plain; it could lead out of the bundle")
    return name


def write_manifest(folder: str, hashes: dict[str, str]) -> None:
    """Write MANIFEST in `sha256sum`'s format, names sorted."""
    lines = [f"{hashes[name]}  {check_name(name)}\n" for name in sorted(hashes)]
    io.write_bytes(io.join(folder, MANIFEST), "".join(lines).encode())


def read_manifest(folder: str) -> dict[str, str]:
    """SHA-256 by file name.

    Raises:
        BadInputError: A name is not plain, or stands twice.
        CorruptDataError: Not a manifest.
    """
    uri = io.join(folder, MANIFEST)
    if not io.exists(uri):
        raise BadInputError(f"{io.redact(folder)} has no {MANIFEST}: not a bundle, or unfinished")
    hashes: dict[str, str] = {}
    for number, line in enumerate(_bounded(uri).decode("utf-8", "replace").splitlines(), 1):
        match = _MANIFEST_LINE.fullmatch(line)
        if match is None:
            raise CorruptDataError(f"{MANIFEST}, line {number} is not a hash and a name")
        name = check_name(match.group(2))
        if name in hashes:
            raise BadInputError(f"{MANIFEST} lists {name} twice")
        hashes[name] = match.group(1)
    return hashes


def load_object(uri: str) -> dict[str, Any]:
    """A JSON object from a file that nobody vouches for.

    Raises:
        CorruptDataError: Too large, not JSON, or not an object.
    """
    try:
        value = json.loads(_bounded(uri))
    except (ValueError, RecursionError) as error:  # ValueError: also a number too long
        raise CorruptDataError(f"{io.redact(uri)} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CorruptDataError(f"{io.redact(uri)} is not a JSON object")
    return value


def _bounded(uri: str) -> bytes:
    if io.exists(uri) and io.size_bytes(uri) > MAX_JSON_BYTES:
        raise CorruptDataError(f"{io.redact(uri)} has more than {MAX_JSON_BYTES} bytes")
    return io.read_bytes(uri)


def files_of(folder: str) -> set[str]:
    """Every file of a bundle, hidden ones too, by name inside it; less the run folder's own."""
    fs, path = io.filesystem(folder)
    fs.invalidate_cache(path)
    base = path.rstrip("/")
    found = {str(name)[len(base) :].lstrip("/") for name in fs.find(path)}
    return {name for name in found - OWN_RUN_FILES if not LOG_NAME.fullmatch(name)}


def clear_stale(folder: str) -> None:
    """Remove what an earlier start of a submission left, and nothing else.

    Raises:
        RunError: The folder holds a file that no bundle has; nothing is removed then.
    """
    names = sorted(files_of(folder))
    foreign = [name for name in names if not _is_own(name)]
    if foreign:
        raise RunError(
            f"{io.redact(folder)} holds {foreign[0]}, which is no file of a bundle; "
            "move it away or choose an empty --out"
        )
    for name in names:
        io.remove(io.join(folder, name))


def _is_own(name: str) -> bool:
    aside = _ASIDE.fullmatch(name)
    whole = aside.group(1) + aside.group(2) if aside else name
    return bool(_OWN_NAME.fullmatch(whole)) or whole in OWN_RUN_FILES


def copy_file(source: str, target: str) -> dict[str, Any]:
    """Copy a file in pieces; its SHA-256 and size.

    Raises:
        BadInputError: There is no such file.
    """
    with io.open_read(source) as reader, io.open_write(target) as writer:
        hashing = io.HashingWriter(writer)
        shutil.copyfileobj(reader, hashing, io.CHUNK_BYTES)
    return {"sha256": hashing.sha256, "bytes": hashing.num_bytes}


def put_bytes(data: bytes, target: str) -> dict[str, Any]:
    """Write a small file; its SHA-256 and size."""
    io.write_bytes(target, data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def refuse_links(folder: str, names: Iterable[str]) -> None:
    """Refuse a local file that is, or lies under, a symbolic link: its bytes are elsewhere.

    Raises:
        BadInputError: There is one; names it.
    """
    for name in names:
        path = folder
        for part in name.split("/"):
            path = os.path.join(path, part)
            if os.path.islink(path):
                raise BadInputError(f"{name} is a symbolic link, or lies under one")
