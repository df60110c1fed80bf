"""Make the bundled drawings from Debian's openclipart packages.

Run it by hand when the bundle has to change; nothing calls it at run time:

    apt-get download openclipart-png openclipart-svg
    python platform/gristmill/demo/drawings/make.py openclipart-*.deb

It keeps drawings that carry the public-domain marker and a title of their own, drops near-identical
images, deals whole families of look-alikes into one split each, and writes 64-pixel WebP images
with their captions to drawings-NN.parquet beside itself. The same packages give the same bytes.
"""

import argparse
import hashlib
import html
import io
import json
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).parent
SIDE = 64
WEBP_QUALITY = 75
MAX_PIXELS = 20_000_000
"""Larger pictures are left out: the package holds decompression bombs of 12715 x 16000."""
MAX_PART_BYTES = 430_000
ROW_TEXT_BYTES = 70
"""What a row's words add to a part after compression, roughly."""
DROPPED_FOLDERS = frozenset(
    {"shapes", "special", "computer", "unsorted", "buttons", "logos", "decorations"}
)
BOILERPLATE = re.compile(
    r"clipart by|part of|untitled|drawing|image|iconset|submission|sibmission|symbol_signs|icons?$"
    r"|svg road signs|^road signs$|map symbols|various cliparts|homes clipart|r15 general|^people$"
    r"|^advertising$|^stick man$|^card$|^australian maps$|balloons-aj",
    re.IGNORECASE,
)
FOREIGN_AUTHORS = re.compile(r"archit|_arch_|yves_gu|^sm_\d|people_juliane", re.IGNORECASE)
"""Their titles are Italian or French, or only numbers."""
DROPPED_KEYWORDS = re.compile(
    r"^$|^hash|0x|^\d+$|unsorted|clip.?art|architetto|_|^sign$|^symbol$|^shape$|^object$|^icons?$"
    r"|^[a-z]+(sym|stuff)$|^musicstuff$|subnational|^work$|^theme$"
)
SUITS = {"c": "clubs", "d": "diamonds", "h": "hearts", "s": "spades"}
RANKS = {"a": "ace", "j": "jack", "q": "queen", "k": "king"}
PHRASES = (
    "{title}, a drawing of a {noun}",
    "a drawing of a {noun}: {title}",
    "{title}, clip art picture of a {noun}",
    "picture of a {noun} showing {title}",
)
SHORT_PHRASES = ("a drawing of a {noun}", "clip art picture of a {noun}", "picture of a {noun}")
SPLIT_SHARES = {"scorer": 0.42, "pool": 0.33, "eval": 0.25}


@dataclass(kw_only=True)
class Drawing:
    """One drawing on its way into the bundle."""

    source: str
    """Path inside the package, without its ending."""
    title: str
    keywords: list[str]
    noun: str
    webp: bytes = b""
    small: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """16 x 16 x 3 thumbnail on white, for finding look-alikes."""

    @property
    def category(self) -> str:
        """The folder, at most two levels deep."""
        return "/".join(self.source.split("/")[:-1][:2])


def tag_text(metadata: str, name: str) -> str:
    """Text of the first element of that name, markup removed."""
    match = re.search(rf"<(?:\w+:)?{name}\b[^>]*>(.*?)</(?:\w+:)?{name}>", metadata, re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", match.group(1)) if match else ""
    return " ".join(html.unescape(text).split())


def clean_title(raw: str) -> str:
    """A title as words: no underscores, numbering, ornaments or black-and-white remarks."""
    text = re.sub(r"\(\s*B\s*(and|&)\s*W\s*\)|_bw\b", " ", raw, flags=re.IGNORECASE)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text.replace("_", " ").replace("#", " "))
    text = re.sub(r"[\[(][^\])]*(www|http|@)[^\])]*[\])]", " ", text)
    text = re.sub(r"(\b(v|no\.?)?\d{1,3}[a-z]?|(?<=[a-z])\d+)$", " ", text.strip())
    return " ".join(text.split()).strip(" -.,:;")


def title_from_file(source: str) -> str:
    """A readable title out of a file name, for series that share one boilerplate title."""
    folder, _, stem = source.rpartition("/")
    card = re.fullmatch(r"[a-z]+_([cdhs])_(\w+)", stem)
    if folder.startswith("recreation/games/cards/") and card:
        return f"{RANKS.get(card[2], card[2])} of {SUITS[card[1]]}"
    words = re.sub(r"^aiga|symbol|\d+c?m|bwh|\bbw\b|ganson|svg|contour", " ", stem.lower())
    text = clean_title(re.sub(r"[_\-]+", " ", words))
    return text if re.fullmatch(r"[a-z ]{3,40}", text) and re.search(r"[aeiou]", text) else ""


def read_metadata(svg: Path, source: str, nouns: dict[str, str]) -> Drawing | None:
    """The drawing a metadata block describes; None without the marker or without a title."""
    match = re.search(r"<metadata\b.*?</metadata>", svg.read_text("utf-8", "replace"), re.DOTALL)
    folder, _, stem = source.rpartition("/")
    if not match or "PublicDomain" not in match[0] or FOREIGN_AUTHORS.search(stem):
        return None
    people = r"<(?:\w+:)?(publisher|creator|rights|contributor)\b.*?</(?:\w+:)?\1>"
    work = re.sub(people, " ", match[0], flags=re.DOTALL)
    raw = tag_text(work, "title")
    boilerplate = not raw or BOILERPLATE.search(raw)
    title = title_from_file(source) if boilerplate else clean_title(raw)
    while folder not in nouns and folder:
        folder = folder.rpartition("/")[0]
    found = re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", work, re.DOTALL)
    if len(title) < 3 or not folder or "rollandin" in " ".join([title, *found]).lower():
        return None
    words = [html.unescape(word).strip().lower() for word in found]
    keywords = [word for word in dict.fromkeys(words) if not DROPPED_KEYWORDS.search(word)]
    return Drawing(source=source, title=title, keywords=keywords[:8], noun=nouns[folder])


def caption(drawing: Drawing) -> str:
    """Title, the folder's noun and, for short titles, up to two keywords, as one phrase."""
    choice = hashlib.sha256(drawing.source.encode()).digest()[0]
    noun, title = drawing.noun, drawing.title
    phrase = PHRASES[choice % len(PHRASES)].format(title=title, noun=noun)
    phrase = re.sub(r"\ba (?=[aeiou])", "an ", phrase)
    known = phrase.lower()
    extra = [word for word in drawing.keywords if word.rstrip("s") not in known][:2]
    if extra and len(title.split()) < 4:
        phrase += " with " + " and ".join(extra)
    return phrase


def short_caption(drawing: Drawing) -> str:
    """The folder's noun and at times a keyword, without the title."""
    choice = hashlib.sha256(drawing.source.encode()).digest()[1]
    phrase = SHORT_PHRASES[choice % len(SHORT_PHRASES)].format(noun=drawing.noun)
    phrase = re.sub(r"\ba (?=[aeiou])", "an ", phrase)
    extra = [word for word in drawing.keywords if word.rstrip("s") not in phrase]
    return f"{phrase} with {extra[0]}" if extra and choice < 128 else phrase


def trimmed(image: Image.Image) -> Image.Image:
    """The picture without its white margins; as it was when nothing is left."""
    ink = image.convert("L").point([255 if value < 245 else 0 for value in range(256)])
    box = ink.getbbox()
    return image.crop(box) if box else image


def render(drawing: Drawing, png: Path) -> bool:
    """Fill in the WebP and the thumbnail; False for a picture that is too large or empty."""
    with Image.open(png) as image:
        if image.width * image.height > MAX_PIXELS or min(image.size) < 8:
            return False
        rgba = image.convert("RGBA")
    rgba.thumbnail((SIDE * 8, SIDE * 8), Image.Resampling.BOX)
    flat = Image.new("RGBA", rgba.size, "white")
    flat.alpha_composite(rgba)
    rgb = trimmed(flat.convert("RGB"))
    if max(rgb.size) > 4 * min(rgb.size):
        return False
    scale = SIDE / max(rgb.size)
    size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    rgb = rgb.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(rgb, ((SIDE - rgb.width) // 2, (SIDE - rgb.height) // 2))
    thumbnail = square.resize((16, 16), Image.Resampling.BOX)
    drawing.small = (np.asarray(thumbnail).ravel() / 255).astype(np.float32)
    if drawing.small.std() < 0.02:
        return False
    buffer = io.BytesIO()
    rgb.save(buffer, "WEBP", quality=WEBP_QUALITY, method=6)
    drawing.webp = buffer.getvalue()
    return True


def drop_near_identical(drawings: Sequence[Drawing], threshold: float = 0.06) -> list[Drawing]:
    """Keep one of drawings whose thumbnails differ by less than `threshold` of their ink.

    The package holds many files twice; the copy in the deeper, more telling folder is kept.
    """
    order = sorted(drawings, key=lambda drawing: (-drawing.source.count("/"), drawing.source))
    kept: list[Drawing] = []
    seen = np.ones((len(drawings), 768), np.float32)
    ink = np.zeros(len(drawings), np.float32)
    for drawing in order:
        count, own = len(kept), float(1 - drawing.small.mean())
        apart = np.abs(seen[:count] - drawing.small).mean(axis=1)
        if count and (apart / np.maximum(ink[:count], own)).min() < threshold:
            continue
        seen[count], ink[count] = drawing.small, own
        kept.append(drawing)
    return sorted(kept, key=lambda drawing: drawing.source)


def families(drawings: Sequence[Drawing]) -> list[int]:
    """A family number per drawing: one title in one folder, or nearly the same grey picture."""
    parent = list(range(len(drawings)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    titles: dict[tuple[str, str], int] = {}
    grey = np.stack([d.small.reshape(256, 3).mean(axis=1) for d in drawings])
    ink = 1 - grey.mean(axis=1)
    for index, drawing in enumerate(drawings):
        key = (drawing.noun, drawing.title.lower().rstrip("s"))
        parent[root(index)] = root(titles.setdefault(key, index))
        # Tricolours of different countries are alike in grey, but are not one drawing.
        if drawing.noun in ("flag", "playing card"):
            continue
        apart = np.abs(grey[:index] - grey[index]).mean(axis=1)
        near = apart / np.maximum(ink[:index], ink[index]) < 0.12
        for other in np.flatnonzero(near):
            parent[root(index)] = root(int(other))
    return [root(index) for index in range(len(drawings))]


def deal_splits(drawings: Sequence[Drawing]) -> list[str]:
    """A split per drawing: families stay whole, shares hold within each noun."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, family in enumerate(families(drawings)):
        members[family].append(index)
    splits = [""] * len(drawings)
    dealt: dict[str, Counter[str]] = defaultdict(Counter)
    order = sorted(
        members.values(), key=lambda m: hashlib.sha256(drawings[m[0]].source.encode()).digest()
    )
    for indices in sorted(order, key=len, reverse=True):
        counts = dealt[drawings[indices[0]].noun]
        total = counts.total() + len(indices)
        split = max(SPLIT_SHARES, key=lambda name: SPLIT_SHARES[name] * total - counts[name])
        counts[split] += len(indices)
        for index in indices:
            splits[index] = split
    return splits


def extracted(sources: Sequence[Path], scratch: Path) -> Path:
    """The folder that holds png/ and svg/, unpacking Debian packages when given."""
    for source in sources:
        if source.is_dir():
            return next(path.parent for path in source.rglob("svg") if path.is_dir())
        subprocess.run(["dpkg-deb", "-x", str(source), str(scratch)], check=True)
    return scratch / "usr/share/openclipart"


def candidates(root: Path) -> Iterator[Drawing]:
    """Every usable drawing of the package, in order of its path."""
    nouns = json.loads((HERE / "nouns.json").read_text())
    for svg in sorted((root / "svg").rglob("*.svg")):
        source = svg.relative_to(root / "svg").with_suffix("").as_posix()
        png = root / "png" / f"{source}.png"
        if source.split("/")[0] in DROPPED_FOLDERS or not png.exists():
            continue
        drawing = read_metadata(svg, source, nouns)
        if drawing and render(drawing, png):
            yield drawing


def write_parts(drawings: Sequence[Drawing], out: Path) -> None:
    """Write drawings-NN.parquet, each part below the size the repository allows."""
    for old in out.glob("drawings-*.parquet"):
        old.unlink()
    splits = deal_splits(drawings)
    rows: list[dict[str, object]] = [
        {
            "key": f"{index:05d}",
            "image": drawing.webp,
            "caption": caption(drawing),
            "short_caption": short_caption(drawing),
            "title": drawing.title,
            "keywords": drawing.keywords,
            "noun": drawing.noun,
            "category": drawing.category,
            "source": f"{drawing.source}.png",
            "split": splits[index],
        }
        for index, drawing in enumerate(drawings)
    ]
    parts: list[list[dict[str, object]]] = [[]]
    size = 0
    for row, drawing in zip(rows, drawings, strict=True):
        cost = len(drawing.webp) + ROW_TEXT_BYTES
        if size + cost > MAX_PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += cost
    for number, part in enumerate(parts):
        table = pa.Table.from_pylist(part)
        path = out / f"drawings-{number:02d}.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=19)


def main() -> None:
    """Read the packages named on the command line and write the bundle beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path, help="the two .deb files, or a folder")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None  # sizes are checked from the header, before decoding
    with tempfile.TemporaryDirectory() as scratch:
        found = list(candidates(extracted(arguments.sources, Path(scratch))))
    drawings = drop_near_identical(found)
    print(f"{len(found)} usable drawings, {len(drawings)} after dropping look-alikes")
    write_parts(drawings, arguments.out)


if __name__ == "__main__":
    main()
