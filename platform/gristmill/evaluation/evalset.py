"""An evaluation set on disk, in the layout of DataComp and CLIP_benchmark.

wds_{task}_test/classnames.txt                        one class a line, in label order
                zeroshot_classification_templates.txt one prompt a line, {c} is the class
                test/nshards.txt, test/0.tar, 1.tar ... members {key}.webp|jpg|png and
                {key}.cls (a label) or {key}.txt (captions, one a line)
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_EXTENSIONS = ("webp", "jpg", "jpeg", "png")
CLASSNAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
PLACEHOLDER = "{c}"
CONTENT = "content_sha256"
"""Among the digests of a source: what its words and sizes are, however they are stored."""
MAX_TEXT_BYTES = 1 << 20
"""Labels and captions beyond this are not what they say they are."""


@dataclass(frozen=True)
class EvalSample:
    """One test sample, still encoded."""

    key: str
    where: str
    """File and key, for errors."""
    members: dict[str, bytes]
    """Bytes by extension."""

    @property
    def image_bytes(self) -> bytes:
        """The encoded picture.

        Raises:
            CorruptDataError: There is none.
        """
        for extension in IMAGE_EXTENSIONS:
            if extension in self.members:
                return self.members[extension]
        raise CorruptDataError(f"{self.where}: no picture ({', '.join(sorted(self.members))})")

    def image(self) -> "Image":
        """The picture, decoded within bounds."""
        from gristmill.pools.image import decode_rgb

        return decode_rgb(self.image_bytes, where=self.where)

    def label(self, num_classes: int) -> int:
        """The class, in [0, num_classes).

        Raises:
            CorruptDataError: No label, or not a number.
            BadInputError: Out of range.
        """
        text = self._text("cls").strip()
        if not (text.isascii() and text.lstrip("-").isdigit()):
            raise CorruptDataError(f"{self.where}: label {text[:40]!r} is not a whole number")
        if not 0 <= int(text) < num_classes:
            raise BadInputError(
                f"{self.where}: label {text} is not in 0..{num_classes - 1}, "
                f"the lines of {CLASSNAMES}"
            )
        return int(text)

    def captions(self) -> list[str]:
        """The captions, one a line; empty lines do not count.

        Raises:
            CorruptDataError: There is none.
        """
        found = [line.strip() for line in self._text("txt").splitlines() if line.strip()]
        if not found:
            raise CorruptDataError(f"{self.where}: no caption")
        return found

    def _text(self, extension: str) -> str:
        if extension not in self.members:
            raise CorruptDataError(f"{self.where}: no .{extension} beside the picture")
        data = self.members[extension]
        if len(data) > MAX_TEXT_BYTES:
            raise CorruptDataError(f"{self.where}: .{extension} of {len(data)} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise CorruptDataError(f"{self.where}: .{extension} is not UTF-8: {error}") from error


@dataclass
class EvalSource:
    """Samples with what a task needs to know about them."""

    samples: Iterable[EvalSample]
    """Read once, in order."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 by file; complete once the samples are read."""
    classnames: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)


def open_evalset(folder: str, *, test_size: int, classes: bool) -> EvalSource:
    """An evaluation set from its folder.

    Args:
        folder: `wds_{task}_test`.
        test_size: Samples it must hold; 0 takes any number above none.
        classes: Whether it has class names and templates.
    """
    digests: dict[str, str] = {}
    source = EvalSource(_samples(folder, digests, test_size), digests)
    if classes:
        source.classnames = _lines(folder, CLASSNAMES, digests)
        source.templates = _lines(folder, TEMPLATES, digests)
        for number, line in enumerate(source.templates, 1):
            if PLACEHOLDER not in line:
                raise BadInputError(
                    f"{io.redact(folder)}/{TEMPLATES}, line {number}: {line!r} has no {PLACEHOLDER}"
                )
    return source


def is_set_file(name: str) -> bool:
    """Whether a digest's name is that of a file in a set's folder."""
    return name in (CLASSNAMES, TEMPLATES) or name.startswith("test/")


def pinned(source: EvalSource, digest: str) -> EvalSource:
    """A source that refuses, after its last sample, to be another set than the one expected.

    The digest covers class names, templates, and each sample's key, picture size and every other
    member (labels, captions), in order. It leaves out bytes of pictures and tars: sets that are
    encoded where they are used differ in them with the version of libwebp, and so may pixels of
    lossy WebP, whose step from YUV to RGB no standard fixes.

    Args:
        source: As opened.
        digest: 64 hex digits; empty expects nothing, and costs nothing.
    """
    if digest:
        source.samples = _digested(source, source.samples, digest)
    return source


def _digested(
    source: EvalSource, samples: Iterable[EvalSample], digest: str
) -> Iterator[EvalSample]:
    whole = hashlib.sha256(json.dumps([source.classnames, source.templates]).encode())
    for sample in samples:
        words = {
            extension: hashlib.sha256(data).hexdigest()
            for extension, data in sample.members.items()
            if extension not in IMAGE_EXTENSIONS
        }
        line = [sample.key, sample.image().size, sorted(words.items())]
        whole.update(json.dumps(line).encode())
        yield sample
    source.digests[CONTENT] = whole.hexdigest()
    if source.digests[CONTENT] != digest:
        raise BadInputError(
            f"the evaluation set is not the task's own: its content digest is "
            f"{source.digests[CONTENT]}, the task states {digest}; get the set again"
        )


def shard_uris(folder: str) -> list[str]:
    """The tars of a set, in order.

    Raises:
        BadInputError: nshards.txt is missing, is no number, or does not fit the tars there.
    """
    base = io.join(folder, "test")
    listing = io.join(base, "nshards.txt")
    text = io.read_bytes(listing)[:64].decode("utf-8", "replace").strip()
    if not text.isdigit() or not text.isascii():
        raise BadInputError(f"{io.redact(listing)} says {text!r}, not a number of tars")
    wanted = [io.join(base, f"{number}.tar") for number in range(int(text))]
    found = set(io.list_files(base, ".tar"))
    missing = [uri for uri in wanted if uri not in found]
    if missing or len(found) != len(wanted):
        raise BadInputError(
            f"{io.redact(listing)} says {text} tars and {len(found)} are there"
            + (f"; {io.redact(missing[0])} is missing" if missing else "")
        )
    return wanted


def _lines(folder: str, name: str, digests: dict[str, str]) -> list[str]:
    uri = io.join(folder, name)
    data = io.read_bytes(uri)
    digests[name] = hashlib.sha256(data).hexdigest()
    try:
        lines = [line.strip() for line in data.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"{io.redact(uri)} is not UTF-8: {error}") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        raise BadInputError(f"{io.redact(uri)} is empty or has an empty line")
    return lines


def _samples(folder: str, digests: dict[str, str], test_size: int) -> Iterator[EvalSample]:
    from gristmill.pools.tar import TarReader

    count = 0
    for uri in shard_uris(folder):
        with TarReader(uri) as tar:
            digests[f"test/{uri.rsplit('/', 1)[-1]}"] = hashlib.sha256(tar.data).hexdigest()
            for sample in tar.samples():
                members = {ext: tar.read(member) for ext, member in sample.members.items()}
                yield EvalSample(sample.key, f"{io.redact(uri)}, sample {sample.key}", members)
                count += 1
    if not count:
        raise BadInputError(f"{io.redact(folder)} holds no samples")
    if test_size and count != test_size:
        raise BadInputError(f"{io.redact(folder)} holds {count} samples, not {test_size}")
