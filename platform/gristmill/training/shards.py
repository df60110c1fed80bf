"""Which tars to train on: from `--data` to a checked list of shards with their weights.

Accepts what DataComp's own `get_input_shards` does (train.py): folders of tars, folders of such
folders, single tars, several of these joined by `::`. Unlike it, only files that are there are
listed, and a dense set that lacks shards is refused instead of shrinking the data unseen.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.run import CONFIG, DONE
from gristmill.training.origin import manifests, parent, refuse_unfinished

META = "meta.json"
IMAGE_MEMBERS = ("jpg", "png", "jpeg", "webp")
"""Member endings that open_clip takes as the image."""
TEXT_MEMBER = "txt"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar."""

    uri: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """One part of `--data`: a folder or a tar, with its shards."""

    uri: str
    shards: tuple[Shard, ...]
    weight: float | None
    """How often one of its shards is drawn, relative to one shard of another source."""
    meta_sha256: str = ""
    """Over all meta.json below it; empty when there is none."""
    manifests: tuple[str, ...] = ()
    """SHA-256 of the DONE of each run that wrote the shards, if these list every one of them."""

    @property
    def num_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    def identity(self) -> dict[str, Any]:
        """What pins this source in a manifest, however `--data` spells it.

        Always the names and sizes of shards. When runs of ours wrote them, also the hash of the
        runs' DONE, which lists the SHA-256 of every shard; other tars are not hashed.
        """
        base = _common_folder([shard.uri for shard in self.shards])
        listing = sorted((s.uri.removeprefix(base), s.num_bytes) for s in self.shards)
        digest = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
        return {
            "shards": len(self.shards),
            "bytes": self.num_bytes,
            "listing_sha256": digest,
            "meta_sha256": self.meta_sha256,
            "reshard_manifest_sha256": " ".join(self.manifests),
            "pinned_by": "reshard manifest" if self.manifests else "names and sizes",
            "weight": self.weight,
        }


def _common_folder(uris: list[str]) -> str:
    """The deepest folder that holds all files, with a slash at its end."""
    prefix = os.path.commonprefix([uri.rpartition("/")[0] + "/" for uri in uris])
    return prefix.rpartition("/")[0] + "/"


def resolve(data: str, data_weights: str = "") -> list[Source]:
    """List the shards of `--data`, and refuse what cannot be trained on.

    Args:
        data: Folders or tars, joined by `::`; any URI that fsspec reads.
        data_weights: One number a part, joined by `::`; empty draws every shard alike.

    Raises:
        BadInputError: A part has no shards, lacks shards that its meta.json counts, holds an empty
            tar, or belongs to an unfinished run; or the weights do not match the parts.
    """
    parts = data.split("::")
    weights = parse_weights(data_weights, parts)
    return [_source(part, weight) for part, weight in zip(parts, weights, strict=True)]


def parse_weights(data_weights: str, parts: list[str]) -> list[float] | list[None]:
    """The numbers of `--data-weights`, one a part.

    Raises:
        BadInputError: Not one number above or equal to 0 a part, or all of them 0.
    """
    if not data_weights:
        return [None] * len(parts)
    try:
        weights = [float(word) for word in data_weights.split("::")]
    except ValueError as error:
        raise BadInputError(
            f"data weights {data_weights!r} are not numbers joined by ::, such as 1::2"
        ) from error
    if len(weights) != len(parts):
        raise BadInputError(
            f"{len(weights)} data weights ({data_weights}) for {len(parts)} parts of --data; "
            "give one weight a part"
        )
    if not all(0 <= w < float("inf") for w in weights) or sum(weights) <= 0:
        raise BadInputError(f"data weights must be 0 or more and not all 0, not {data_weights}")
    return weights


def _source(part: str, weight: float | None) -> Source:
    uri = io.absolute(part)
    named = uri.endswith(".tar")
    found = _named_tars(uri) if named else _listed(uri)
    refuse_unfinished(found.folders)
    shards = found.shards
    if not shards:
        raise BadInputError(f"no .tar shards at {io.redact(uri)}; give a folder of WebDataset tars")
    empty = [s for s in shards if s.num_bytes == 0]
    if empty:
        raise BadInputError(
            f"{len(empty)} of {len(shards)} shards are empty files, such as "
            f"{io.redact(empty[0].uri)}; write them again"
        )
    digest = hashlib.sha256()
    for meta in found.metas:
        if not named:  # who names tars may well mean only some of them
            _check_dense(meta, shards)
        digest.update(io.read_bytes(meta))
    return Source(
        uri=io.redact(uri),
        shards=tuple(shards),
        weight=weight,
        meta_sha256=digest.hexdigest() if found.metas else "",
        manifests=manifests(found.folders, {s.uri: s.num_bytes for s in shards}),
    )


@dataclass(kw_only=True)
class _Found:
    """What lies at a part of `--data`."""

    shards: list[Shard] = field(default_factory=list)
    metas: list[str] = field(default_factory=list)
    """URIs of meta.json files, sorted."""
    folders: set[str] = field(default_factory=set)
    """Folders that may be runs: above the shards, beside them, and between."""


def _named_tars(uri: str) -> _Found:
    import braceexpand

    names = list(braceexpand.braceexpand(uri))
    missing = [name for name in names if not io.exists(name)]
    if missing:
        raise BadInputError(f"no shard at {io.redact(missing[0])} ({len(missing)} are missing)")
    beside = {parent(name) for name in names} - {""}
    metas = [meta for folder in sorted(beside) if io.exists(meta := io.join(folder, META))]
    return _Found(
        shards=[Shard(uri=name, num_bytes=io.size_bytes(name)) for name in names],
        metas=metas,
        folders=(beside | {parent(folder) for folder in beside}) - {""},
    )


def _listed(uri: str) -> _Found:
    """All tars and meta.json files below a folder, sorted by path; hidden ones are left out."""
    fs, path = io.filesystem(uri)
    fs.invalidate_cache(path)
    base = path.rstrip("/")
    files: dict[str, Any] = fs.find(path, detail=True) if fs.isdir(path) else {}
    found = _Found(folders={uri, parent(uri)} - {""})
    for name in sorted(files):
        relative = name[len(base) :].lstrip("/")
        if any(piece.startswith(".") for piece in relative.split("/")):
            continue
        last = relative.split("/")[-1]
        if relative.endswith(".tar"):
            size = int(files[name].get("size") or 0)
            found.shards.append(Shard(uri=io.join(uri, relative), num_bytes=size))
        elif last == META:
            found.metas.append(io.join(uri, relative))
        elif last in (CONFIG, DONE):
            found.folders.add(parent(io.join(uri, relative)))
    return found


def _check_dense(meta: str, shards: list[Shard]) -> None:
    """Refuse a resharded folder whose tars are not exactly those that meta.json counts."""
    facts = io.read_json(meta)
    if not isinstance(facts, dict) or "output_shard_count" not in facts:
        return
    folder = meta.removesuffix(META)
    here = {s.uri.removeprefix(folder) for s in shards if s.uri.startswith(folder)}
    here = {name for name in here if "/" not in name}
    count = int(facts["output_shard_count"])
    pattern = str(facts.get("output_shard_format", "{:08d}.tar"))
    wanted = {pattern.format(i) for i in range(count)}
    if here != wanted:
        missing, extra = sorted(wanted - here), sorted(here - wanted)
        what = f"{missing[0]} is missing" if missing else f"{extra[0]} should not be there"
        raise BadInputError(
            f"{io.redact(folder)} should hold {count} shards by its {META}, has {len(here)} "
            f"({what}); copy or reshard it again"
        )
