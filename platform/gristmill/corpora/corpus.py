"""The on-disk format of corpora: `corpus.json` and the files it lists, domain by domain.

    OUT/corpus.json                                format, kind, and each domain's files
    OUT/documents/DOMAIN/SPLIT/000000.parquet      kind documents: columns id, text
    OUT/tokens/DOMAIN/SPLIT/000000.bin, .idx       kind tokens: see tokens.py

SPLIT is train or validation. The files of a domain follow each other; their order is the shuffled
order of its documents.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.corpora.domains import SPLITS, require_known

MANIFEST = "corpus.json"
FORMAT = 1
Kind = Literal["documents", "tokens"]
MADE_BY = {"documents": "gristmill corpus ingest", "tokens": "gristmill corpus tokenize"}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of a domain's split (of tokens: a .bin and its .idx)."""

    name: str
    """Path below the corpus; without suffix for tokens."""
    documents: int
    """Documents in it."""
    size: int
    """Bytes of UTF-8 text, or tokens."""
    sha256: str
    """Of the file, or of the .bin."""
    index_sha256: str = ""
    """Of the .idx."""


class Corpus:
    """A corpus as its manifest tells it; opens no data file."""

    def __init__(self, uri: str, kind: Kind) -> None:
        """Read the manifest.

        Raises:
            BadInputError: There is none, or it is of another kind; says which command makes one.
        """
        self.uri, self.kind = io.absolute(uri), kind
        self.manifest, self.sha256 = _manifest(self.uri, kind)
        try:
            self._shards = {
                (name, split): tuple(Shard(**shard) for shard in splits[split])
                for name, splits in sorted(self.manifest["domains"].items())
                for split in SPLITS
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptDataError(
                f"{io.redact(self.uri)}/{MANIFEST} is damaged: {error!r}"
            ) from error

    @property
    def domains(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(sorted({name for name, _ in self._shards}))

    def shards(self, domain: str, split: str = "train") -> tuple[Shard, ...]:
        """The files of a domain's split, in order.

        Raises:
            BadInputError: No such domain.
        """
        require_known([domain], self.domains, io.redact(self.uri))
        assert split in SPLITS, split
        return self._shards[domain, split]

    def size(self, domain: str, split: str = "train") -> int:
        """Bytes of text, or tokens, of a domain's split."""
        return sum(shard.size for shard in self.shards(domain, split))

    def documents(self, domain: str, split: str = "train") -> int:
        """Documents of a domain's split."""
        return sum(shard.documents for shard in self.shards(domain, split))

    def sizes(self, split: str = "train") -> dict[str, int]:
        """`size` of every domain: in proportion, the natural mixture."""
        return {domain: self.size(domain, split) for domain in self.domains}

    def identity(self) -> dict[str, Any]:
        """What pins the corpus: its manifest has the hash of every file."""
        return {"uri": io.redact(self.uri), "sha256": self.sha256, "domains": list(self.domains)}


def manifest_of(kind: Kind, shards: Mapping[tuple[str, str], Sequence[Shard]], **more: Any) -> Any:
    """What `corpus.json` holds; the same for the same data, wherever and however it was made."""
    names = sorted({name for name, _ in shards})
    return {
        "format": FORMAT,
        "kind": kind,
        **more,
        "domains": {
            name: {s: [asdict(shard) for shard in shards.get((name, s), ())] for s in SPLITS}
            for name in names
        },
    }


def _manifest(uri: str, kind: Kind) -> tuple[dict[str, Any], str]:
    where = io.join(uri, MANIFEST)
    if not io.exists(where):
        raise BadInputError(
            f"no corpus at {io.redact(uri)}: it has no {MANIFEST}; make one with {MADE_BY[kind]}"
        )
    data = io.read_json(where)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BadInputError(f"{io.redact(where)} is not of format {FORMAT}")
    if data.get("kind") != kind:
        raise BadInputError(
            f"{io.redact(uri)} is a corpus of {data.get('kind')}, where one of {kind} is wanted; "
            f"make it with {MADE_BY[kind]}"
        )
    return data, hashlib.sha256(io.read_bytes(where)).hexdigest()


def kind_at(uri: str) -> str:
    """Which kind of corpus is at a URI: documents or tokens.

    Raises:
        BadInputError: There is none.
    """
    where = io.join(io.absolute(uri), MANIFEST)
    if not io.exists(where):
        raise BadInputError(
            f"no corpus at {io.redact(uri)}: it has no {MANIFEST}; make one with "
            + " or ".join(MADE_BY.values())
        )
    return str(dict(io.read_json(where)).get("kind"))
