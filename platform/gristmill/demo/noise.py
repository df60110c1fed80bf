"""A realistic noisy pool out of clean drawings, with the truth about every row kept apart.

Most web captions are foreign, about something else, or no captions at all. The kinds and their
shares stand in `SHARES`; the row's files do not tell its kind, only truth/truth.parquet does.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.demo.bundle import Drawing, load_drawings, write_tar
from gristmill.demo.canvas import Shape, encode_again, paste, square
from gristmill.pools.uid import pair_uid

HERE = Path(__file__).parent
ROWS_PER_SHARD = 500
SHARES = {
    "clean": 0.34,
    "translated": 0.22,
    "mismatched": 0.18,
    "spam": 0.12,
    "tiny": 0.06,
    "aspect": 0.05,
    "duplicate": 0.03,
}
UNTITLED = 0.5
"""Share of true captions that only say what kind of thing is drawn."""
SHAPES: dict[str, Shape] = {"tiny": "tiny", "aspect": "wide"}
PROMPTS = ("a drawing of a {c}", "clip art picture of a {c}", "picture of a {c}")
CLASSES = (
    "flag",
    "playing card",
    "pictogram",
    "fruit",
    "musical instrument",
    "dessert",
    "road sign",
    "map",
    "vehicle",
    "mammal",
    "colored light",
    "tool",
)
EVAL_PER_CLASS = 24
"""At most this many a class, so that flags do not decide the accuracy alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One pair of the pool with the truth about it."""

    image: bytes
    text: str
    width: int
    height: int
    kind: str
    drawing: Drawing

    def members(self, url: str) -> dict[str, bytes]:
        """The files of the pair as img2dataset writes them."""
        size = {"original_width": self.width, "original_height": self.height}
        record = {"url": url, **size}
        return {
            "jpg": self.image,
            "txt": self.text.encode(),
            "json": json.dumps(record).encode(),
        }


class Captions:
    """Captions of every kind, all drawn from one seeded stream."""

    def __init__(self, drawings: Sequence[Drawing], rng: random.Random) -> None:
        foreign = json.loads((HERE / "foreign.json").read_text("utf-8"))
        self._templates: dict[str, list[str]] = foreign["templates"]
        self._nouns: dict[str, dict[str, str]] = foreign["nouns"]
        self._spam: list[str] = json.loads((HERE / "spam.json").read_text("utf-8"))
        self._drawings = drawings
        self._rng = rng

    def of(self, kind: str, drawing: Drawing) -> str:
        """A caption for a drawing in a row of this kind."""
        if kind == "translated":
            return self._translated(drawing)
        if kind == "mismatched":
            return self.true(self._other(drawing))
        if kind == "spam":
            numbers = {"n": self._rng.randint(1000, 9999), "d": self._rng.randint(2, 60)}
            form = self._rng.choice(self._spam)
            return form.format(noun=self._other(drawing).noun, **numbers)
        return self.true(drawing)

    def true(self, drawing: Drawing) -> str:
        """What the drawing shows, often without its title, as alt texts are."""
        titled = self._rng.random() >= UNTITLED
        return drawing.caption if titled else drawing.short_caption

    def _translated(self, drawing: Drawing) -> str:
        language = self._rng.choice(sorted(self._templates))
        template = self._rng.choice(self._templates[language])
        return template.format(noun=self._nouns[drawing.noun][language])

    def _other(self, drawing: Drawing) -> Drawing:
        """A drawing of another noun, so that its caption is wrong beyond doubt."""
        while True:
            other = self._rng.choice(self._drawings)
            if other.noun != drawing.noun:
                return other


def cycle(drawings: Sequence[Drawing], rng: random.Random) -> Iterator[Drawing]:
    """Drawings in random order, each once before any comes again."""
    while True:
        yield from rng.sample(drawings, len(drawings))


def kinds_of(rows: int) -> list[str]:
    """A kind per row, duplicates last; clean takes the rows that rounding leaves."""
    counts = {kind: int(share * rows) for kind, share in SHARES.items()}
    counts["clean"] += rows - sum(counts.values())
    return [kind for kind, count in counts.items() for _ in range(count)]


def duplicate(original: Row, rng: random.Random) -> Row:
    """A second copy of a pair: the same bytes, or the same picture encoded once more."""
    image = original.image
    if rng.random() < 0.5:
        image = encode_again(image, quality=rng.randint(70, 79))
    return replace(original, image=image, kind="duplicate")


def make_rows(drawings: Sequence[Drawing], *, seed: int, rows: int) -> list[Row]:
    """The pool's rows in random order, every random choice taken from the seed."""
    rng = random.Random(f"gristmill-demo-{seed}")
    captions = Captions(drawings, rng)
    turns = {kind: cycle(drawings, rng) for kind in SHARES}
    made: list[Row] = []
    for kind in kinds_of(rows):
        if kind == "duplicate":
            clean = [row for row in made if row.kind == "clean"]
            made.append(duplicate(rng.choice(clean), rng))
        else:
            drawing = next(turns[kind])
            made.append(new_row(drawing, kind, captions.of(kind, drawing), rng))
    rng.shuffle(made)
    return made


def new_row(drawing: Drawing, kind: str, text: str, rng: random.Random) -> Row:
    """A drawing on a canvas of its own, with its caption."""
    picture = paste(drawing.image, SHAPES.get(kind, "plain"), rng)
    return Row(
        image=picture.encode(quality=rng.randint(80, 92)),
        text=text,
        width=picture.original_width,
        height=picture.original_height,
        kind=kind,
        drawing=drawing,
    )


def write_raw_pool(out_dir: Path, *, seed: int, rows: int) -> None:
    """Write raw/NNNNN.tar as img2dataset would, and truth/truth.parquet beside it.

    Args:
        out_dir: Gets the two folders; a filter is given raw/ only.
        seed: Same seed and rows, same bytes.
        rows: Pairs in the pool; each drawing stands in several, on another canvas each time.
    """
    made = make_rows(load_drawings("pool"), seed=seed, rows=rows)
    truth = []
    for shard, start in enumerate(range(0, rows, ROWS_PER_SHARD)):
        samples = []
        for number, row in enumerate(made[start : start + ROWS_PER_SHARD]):
            url = f"openclipart://{row.drawing.key}#{start + number}"
            samples.append((f"{shard:05d}{number:04d}", row.members(url)))
            uid = pair_uid(hashlib.sha256(row.image).hexdigest(), row.text, url)
            truth.append({"uid": uid, "kind": row.kind, "category": row.drawing.category})
        write_tar(out_dir / "raw" / f"{shard:05d}.tar", samples)
    (out_dir / "truth").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(truth), out_dir / "truth" / "truth.parquet")


def write_clean_split(out_dir: Path, *, seed: int, views: int = 4) -> None:
    """Write the scorer's training shards: every drawing of its split on `views` canvases."""
    rng = random.Random(f"gristmill-demo-scorer-{seed}")
    drawings = load_drawings("scorer")
    captions = Captions(drawings, rng)
    rows = [new_row(d, "clean", captions.true(d), rng) for _ in range(views) for d in drawings]
    rng.shuffle(rows)
    for shard, start in enumerate(range(0, len(rows), ROWS_PER_SHARD)):
        samples = []
        for number, row in enumerate(rows[start : start + ROWS_PER_SHARD]):
            url = f"openclipart://{row.drawing.key}#{start + number}"
            members = row.members(url)
            uid = pair_uid(hashlib.sha256(row.image).hexdigest(), row.text, url)
            members["json"] = json.dumps({"uid": uid, **json.loads(members["json"])}).encode()
            samples.append((f"{shard:05d}{number:04d}", members))
        write_tar(out_dir / f"{shard:05d}.tar", samples)


def write_eval(out_dir: Path) -> None:
    """Write both tasks made of held-out drawings: zero-shot classification and retrieval.

    wds_demo_drawings_test has the layout of DataComp's and CLIP_benchmark's classification sets;
    wds_demo_retrieval_test holds every held-out drawing whose caption no other one has.
    """
    drawings = load_drawings("eval")
    labelled: list[tuple[str, dict[str, bytes]]] = []
    for label, noun in enumerate(CLASSES):
        members = [drawing for drawing in drawings if drawing.noun == noun][:EVAL_PER_CLASS]
        labelled += [
            (d.key, {"webp": square(d.image), "cls": str(label).encode()}) for d in members
        ]
    folder = out_dir / "wds_demo_drawings_test"
    write_tar(folder / "test" / "0.tar", labelled)
    (folder / "test" / "nshards.txt").write_text("1\n")
    (folder / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(PROMPTS) + "\n")
    times = Counter(drawing.caption for drawing in drawings)
    pairs = [
        (d.key, {"webp": square(d.image), "txt": d.caption.encode()})
        for d in drawings
        if times[d.caption] == 1
    ]
    folder = out_dir / "wds_demo_retrieval_test"
    write_tar(folder / "test" / "0.tar", pairs)
    (folder / "test" / "nshards.txt").write_text("1\n")
