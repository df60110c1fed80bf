"""`report.html`: one self-contained page of tables, plots and thumbnails. No script, no network."""

import base64
import io as bytes_io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from gristmill.core import io

PALETTE = ("#3b6ea8", "#c8553d", "#4f8f5b", "#8a6bb1", "#b58a2e", "#5b9aa0", "#a4557a", "#666666")


@dataclass
class Report:
    """Sections in order; `save` renders them."""

    title: str
    subtitle: str = ""
    warnings: list[str] = field(default_factory=list)
    """Shown in a banner at the top, such as that a run is non-comparable."""
    sections: list[dict[str, Any]] = field(default_factory=list)

    def text(self, title: str, *paragraphs: str) -> None:
        """A section of plain paragraphs."""
        self.sections.append({"kind": "text", "title": title, "paragraphs": paragraphs})

    def table(
        self, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], note: str = ""
    ) -> None:
        """A section with a table; numbers are set to the right."""
        cells = [[_cell(value) for value in row] for row in rows]
        self.sections.append(
            {"kind": "table", "title": title, "header": header, "rows": cells, "note": note}
        )

    def plot(self, title: str, draw: Callable[[Any], None], note: str = "") -> None:
        """A section with a picture: `draw` gets matplotlib axes."""
        self.sections.append({"kind": "svg", "title": title, "svg": figure(draw), "note": note})

    def thumbnails(self, title: str, pictures: Sequence[tuple[bytes, str]], note: str = "") -> None:
        """A section of small pictures: (encoded image bytes, caption)."""
        items = [{"src": data_uri(data), "caption": caption} for data, caption in pictures]
        self.sections.append({"kind": "pictures", "title": title, "items": items, "note": note})

    def links(self, title: str, targets: Mapping[str, str]) -> None:
        """A section of links: label -> address relative to the report."""
        self.sections.append({"kind": "links", "title": title, "targets": dict(targets)})

    def html(self) -> str:
        """The page."""
        import jinja2

        source = (resources.files("gristmill.core") / "report.html.j2").read_text("utf-8")
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(source).render(report=self)

    def save(self, uri: str) -> None:
        """Write the page."""
        io.write_bytes(uri, self.html().encode("utf-8", "replace"))


def _cell(value: Any) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {"text": str(value), "number": False}
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return {"text": text, "number": True}


def figure(draw: Callable[[Any], None], size: tuple[float, float] = (6.4, 3.2)) -> str:
    """An SVG picture, deterministic for the same data; `draw` gets matplotlib axes."""
    import cycler
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = {
        "svg.hashsalt": "gristmill",
        "axes.prop_cycle": cycler.cycler(color=PALETTE),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
    }
    with matplotlib.rc_context(settings):
        picture, axes = pyplot.subplots(figsize=size, layout="constrained")
        try:
            draw(axes)
            buffer = bytes_io.StringIO()
            picture.savefig(buffer, format="svg", metadata={"Date": None})
        finally:
            pyplot.close(picture)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def data_uri(data: bytes) -> str:
    """An image's bytes as a data URI; the kind is told from its first bytes."""
    kind = "jpeg"
    if data.startswith(b"\x89PNG"):
        kind = "png"
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "webp"
    elif data.startswith(b"GIF8"):
        kind = "gif"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
