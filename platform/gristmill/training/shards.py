"""Which tars to train on: from `--data` to a checked list of shards with their weights.

Accepts what DataComp's own `get_input_shards` does (train.py): folders of tars, folders of such
folders, single tars, several of these joined by `::`. Unlike it, only files that are there are
listed, and a dense set that lacks shards is refused instead of shrinking the data unseen.
"""

import hashlib
import json
import re
import tarfile
from dataclasses import dataclass
from typing import Any

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.run import CONFIG, DONE

META = "meta.json"
IMAGE_MEMBERS = ("jpg", "png", "jpeg", "webp")
"""Member endings that open_clip takes as the image."""
TEXT_MEMBER = "txt"
HEADERS_READ = 64
"""Member names read from the start of a shard to see what it holds."""
SHARDS_SAMPLED = 3


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

    @property
    def num_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    def identity(self) -> dict[str, Any]:
        """What pins this source in a manifest: names and sizes of shards, and meta.json."""
        base = io.absolute(self.uri).rstrip("/") + "/"
        listing = [(s.uri.removeprefix(base), s.num_bytes) for s in self.shards]
        digest = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
        return {
            "shards": len(self.shards),
            "bytes": self.num_bytes,
            "listing_sha256": digest,
            "meta_sha256": self.meta_sha256,
            "weight": self.weight,
        }


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
    if uri.endswith(".tar"):
        shards = _named_tars(uri)
        metas: list[str] = []
    else:
        _refuse_unfinished_run(uri)
        shards, metas = _listed(uri)
    if not shards:
        raise BadInputError(f"no .tar shards at {io.redact(uri)}; give a folder of WebDataset tars")
    empty = [s for s in shards if s.num_bytes == 0]
    if empty:
        raise BadInputError(
            f"{len(empty)} of {len(shards)} shards are empty files, such as "
            f"{io.redact(empty[0].uri)}; write them again"
        )
    digest = hashlib.sha256()
    for meta in metas:
        _check_dense(meta, shards)
        digest.update(io.read_bytes(meta))
    return Source(
        uri=io.redact(uri),
        shards=tuple(shards),
        weight=weight,
        meta_sha256=digest.hexdigest() if metas else "",
    )


def _named_tars(uri: str) -> list[Shard]:
    import braceexpand

    names = list(braceexpand.braceexpand(uri))
    missing = [name for name in names if not io.exists(name)]
    if missing:
        raise BadInputError(f"no shard at {io.redact(missing[0])} ({len(missing)} are missing)")
    return [Shard(uri=name, num_bytes=io.size_bytes(name)) for name in names]


def _refuse_unfinished_run(uri: str) -> None:
    if io.exists(io.join(uri, CONFIG)) and not io.exists(io.join(uri, DONE)):
        raise BadInputError(
            f"{io.redact(uri)} is an unfinished run (no {DONE}); let it finish first"
        )


def _listed(uri: str) -> tuple[list[Shard], list[str]]:
    """All tars and meta.json files below a folder, sorted by path; hidden ones are left out."""
    fs, path = io.filesystem(uri)
    fs.invalidate_cache(path)
    base = path.rstrip("/")
    found: dict[str, Any] = fs.find(path, detail=True) if fs.isdir(path) else {}
    shards, metas = [], []
    for name in sorted(found):
        relative = name[len(base) :].lstrip("/")
        if any(piece.startswith(".") for piece in relative.split("/")):
            continue
        if relative.endswith(".tar"):
            size = int(found[name].get("size") or 0)
            shards.append(Shard(uri=io.join(uri, relative), num_bytes=size))
        elif relative.split("/")[-1] == META:
            metas.append(io.join(uri, relative))
    return shards, metas


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


def check_members(sources: list[Source]) -> None:
    """Look at the first members of a few shards: training needs captions and images.

    This sees in a second what the data loader could only find out after a whole pass; open_clip
    hangs on such data (open_clip#1016).

    Raises:
        BadInputError: No shard looked at has both a caption and an image for one key.
    """
    for source in sources:
        looked = [_members(shard.uri) for shard in source.shards[:SHARDS_SAMPLED]]
        if any(_has_pair(names) for names in looked):
            continue
        names = [name for listing in looked for name in listing]
        if names or len(looked) == len(source.shards):
            raise no_pairs(
                source.uri,
                f"the first shards hold members such as {', '.join(names[:3]) or '(none)'}",
            )


def no_pairs(where: str, found: str) -> BadInputError:
    """The error for data that has nothing to train on."""
    return BadInputError(
        f"no sample in {where} has both caption and image: {found}; a sample needs "
        f"KEY.{TEXT_MEMBER} and one of {', '.join('KEY.' + end for end in IMAGE_MEMBERS)}"
    )


def _members(uri: str) -> list[str]:
    """The first member names of a tar; what a broken one yields before it breaks."""
    names: list[str] = []
    try:
        with io.open_read(uri) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                names.append(member.name)
                if len(names) == HEADERS_READ:
                    break
    except (tarfile.TarError, EOFError):
        pass  # counted when it is read; one broken shard does not stop a training
    return names


def _has_pair(names: list[str]) -> bool:
    endings: dict[str, set[str]] = {}
    for name in names:
        match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)
        if match:
            endings.setdefault(match.group(1), set()).add(match.group(2).lower())
    return any(TEXT_MEMBER in e and e & set(IMAGE_MEMBERS) for e in endings.values())
