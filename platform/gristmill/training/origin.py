"""Where shards come from: is the run that wrote them finished, and what does its manifest say?"""

import hashlib
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.run import CONFIG, DONE


def parent(uri: str) -> str:
    """The folder of a file or folder; empty at the top of a file system or bucket."""
    head = uri.rstrip("/").rpartition("/")[0]
    return "" if head.endswith(":/") else head


def refuse_unfinished(folders: set[str]) -> None:
    """Refuse data of a run that has not ended: its shards may be few, or change.

    Raises:
        BadInputError: One of the folders is a run without DONE; the message names it.
    """
    for folder in sorted(folders):
        unfinished = io.exists(io.join(folder, CONFIG)) and not io.exists(io.join(folder, DONE))
        if unfinished and not _is_foreign(io.join(folder, CONFIG)):
            raise BadInputError(
                f"{io.redact(folder)} is an unfinished run (no {DONE}); let it finish first: "
                "the same command resumes it"
            )


def _is_foreign(config: str) -> bool:
    """Whether a config.json is another program's; a run's has a hash from its first moment on."""
    try:
        facts = io.read_json(config)
    except CorruptDataError:
        return False
    return bool(facts) and "hash" not in facts


def manifests(folders: set[str], sizes: dict[str, int]) -> tuple[str, ...]:
    """SHA-256 of each DONE that together list all of these shards with theirs, else nothing.

    Args:
        folders: Where a DONE may lie.
        sizes: Shard URI -> bytes.

    Raises:
        BadInputError: A shard has another size than its run's DONE says.
    """
    found, left = [], set(sizes)
    for folder in sorted(folders):
        inside = [uri for uri in sizes if uri.startswith(folder + "/")]
        if not inside or not io.exists(io.join(folder, DONE)):
            continue
        raw = io.read_bytes(io.join(folder, DONE))
        outputs = _outputs(io.read_json(io.join(folder, DONE)))
        listed = [uri for uri in inside if uri[len(folder) + 1 :] in outputs]
        for uri in listed:
            _check_size(uri, sizes[uri], outputs[uri[len(folder) + 1 :]])
        if listed:
            found.append(hashlib.sha256(raw).hexdigest())
            left -= set(listed)
    return () if left else tuple(sorted(found))


def _outputs(manifest: Any) -> dict[str, Any]:
    outputs = manifest.get("outputs") if isinstance(manifest, dict) else None
    return outputs if isinstance(outputs, dict) else {}


def _check_size(uri: str, num_bytes: int, listed: Any) -> None:
    wanted = listed.get("bytes") if isinstance(listed, dict) else None
    if isinstance(wanted, int) and wanted != num_bytes:
        raise BadInputError(
            f"{io.redact(uri)} has {num_bytes:,} bytes, its run's {DONE} says {wanted:,}; "
            "copy or reshard it again"
        )
