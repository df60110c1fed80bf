"""Domains that are on every machine with the project installed: no download, nothing committed.

They come from Python itself and from the packages that the project needs, so each differs in kind:
programs, headers, prose, law, Markdown, tables. Which documents there are depends on the installed
versions; on one machine the choice is always the same.
"""

import ast
import importlib.metadata
import importlib.util
import json
import sysconfig
import unicodedata
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

from gristmill.core import io
from gristmill.core.errors import BadInputError

SCHEME = "embedded:"
MAX_BYTES = 2_500_000
"""Text of a domain, at most: documents are taken in the order of their hashes until it is full."""
LONGEST, SHORTEST = 80_000, 200
"""Bytes of a document; a longer one would fill a validation split by itself."""
LINES_PER_DOCUMENT = 40
DOCUMENTED = ("numpy", "pyarrow", "matplotlib", "fsspec", "jinja2")
"""Packages with long docstrings that the project needs, so that they are there."""


def is_embedded(uri: str) -> bool:
    """Whether a URI names a domain of this module, such as `embedded:python`."""
    return uri.startswith(SCHEME)


def names() -> tuple[str, ...]:
    """The domains there are on this machine."""
    here = [name for name in SOURCES if name != "dictionary" or importlib.util.find_spec("timm")]
    return tuple(sorted(here))


def sources() -> tuple[str, ...]:
    """All of them as `name=URI` words."""
    return tuple(f"{name}={SCHEME}{name}" for name in names())


def write(uri: str, folder: str) -> str:
    """Write a domain's documents as a file of JSON lines, unless it is there; its URI.

    Raises:
        BadInputError: No such domain on this machine.
    """
    name = uri.removeprefix(SCHEME)
    if name not in names():
        raise BadInputError(f"no embedded domain {name!r} here; there are: {', '.join(names())}")
    target = io.join(folder, name + ".jsonl")
    if not io.exists(target):
        lines = (json.dumps({"text": text}) + "\n" for text in documents(name))
        io.write_bytes(target, "".join(lines).encode())
    return target


def documents(name: str, max_bytes: int = MAX_BYTES) -> list[str]:
    """A domain's documents, in the order of their hashes, as many as fit."""
    found = {}
    for text in SOURCES[name]():
        if SHORTEST <= (size := len(text.encode("utf-8", "replace"))) <= LONGEST:
            found[_hash(text)] = (size, text)
    chosen, filled = [], 0
    for _, (size, text) in sorted(found.items()):
        if filled + size <= max_bytes:
            chosen.append(text)
            filled += size
    return chosen


def _python() -> Iterator[str]:
    """Programs of the standard library; its tests and tables of characters are left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data", "idlelib"}
    for path in sorted(root.rglob("*.py")):
        if not skip & set(path.relative_to(root).parts):
            yield from _text(path)


def _cpp() -> Iterator[str]:
    """C++ and C headers of Arrow and NumPy."""
    for folder in (_package("pyarrow") / "include", _package("numpy") / "_core" / "include"):
        for path in sorted(folder.rglob("*.h")):
            yield from _text(path)


def _stubs() -> Iterator[str]:
    """Type declarations of NumPy and Matplotlib."""
    for package in ("numpy", "matplotlib"):
        for path in sorted(_package(package).rglob("*.pyi")):
            if "tests" not in path.parts:
                yield from _text(path)


def _docstrings() -> Iterator[str]:
    """Technical prose: the language reference in pydoc, and long docstrings of packages."""
    from pydoc_data.topics import topics

    yield from (text for _, text in sorted(topics.items()))
    roots = [_package(name) for name in DOCUMENTED]
    files = [(path, path.relative_to(root.parent)) for root in roots for path in root.rglob("*.py")]
    files = [(path, name) for path, name in files if "tests" not in name.parts]
    read = 0
    # In the order of a hash, so that no package fills the domain by itself.
    for path, _ in sorted(files, key=lambda file: _hash(str(file[1]))):
        for source in _text(path):
            for text in _docstrings_in(source):
                yield text
                read += len(text)
        if read > 1.2 * MAX_BYTES:  # parsing programs is slow, and more would not fit
            return


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def _docstrings_in(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            text = ast.get_docstring(node)
            if text and len(text) >= 2 * SHORTEST:
                yield text


def _licences() -> Iterator[str]:
    """Licence texts of all installed packages."""
    words = ("LICEN", "COPYING", "NOTICE", "AUTHORS")
    yield from _of_distributions(lambda name: name.upper().startswith(words))


def _readmes() -> Iterator[str]:
    """Descriptions of all installed packages, mostly Markdown, without the header fields."""
    for text in _of_distributions(lambda name: name == "METADATA"):
        yield text.partition("\n\n")[2]


def _of_distributions(wanted: Callable[[str], bool]) -> Iterator[str]:
    found = set()
    for package in importlib.metadata.distributions():
        for file in package.files or ():
            if ".dist-info" in str(file) and wanted(file.name):
                found.add(Path(str(package.locate_file(file))))
    for path in sorted(found):
        yield from _text(path)


def _characters() -> Iterator[str]:
    """Names of Unicode characters, in lines such as `U+00E9 LATIN SMALL LETTER E WITH ACUTE`."""
    lines = []
    for code in range(0x20, 0x20000):
        name = unicodedata.name(chr(code), "")
        if name and "IDEOGRAPH" not in name and not name.startswith("HANGUL SYLLABLE"):
            lines.append(f"U+{code:04X} {name}")
    yield from _grouped(lines)


def _font_metrics() -> Iterator[str]:
    """Tables of glyph widths and kerning, of the fonts in Matplotlib."""
    folder = _package("matplotlib") / "mpl-data" / "fonts" / "afm"
    for path in sorted(folder.glob("*.afm")):
        for text in _text(path):
            yield from _grouped(text.splitlines(), 4 * LINES_PER_DOCUMENT)


def _dictionary() -> Iterator[str]:
    """Definitions of WordNet's synsets of things, from timm's list."""
    folder = _package("timm") / "data" / "_info"
    files = ("imagenet_synset_to_lemma.txt", "imagenet_synset_to_definition.txt")
    lemmas, meanings = (
        dict(line.split("\t", 1) for line in (folder / name).read_text("utf-8").splitlines())
        for name in files
    )
    lines = [f"{lemmas[key]}: {meanings[key]}" for key in sorted(meanings) if key in lemmas]
    yield from _grouped(lines)


def _grouped(lines: list[str], count: int = LINES_PER_DOCUMENT) -> Iterator[str]:
    for start in range(0, len(lines), count):
        yield "\n".join(lines[start : start + count]) + "\n"


def _package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise BadInputError(f"the package {name} is not installed, and its texts with it")
    return Path(next(iter(spec.submodule_search_locations)))


def _text(path: Path) -> Iterator[str]:
    """A file's text; nothing for one that is not UTF-8 or cannot be read."""
    try:
        yield path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return


SOURCES: dict[str, Callable[[], Iterator[str]]] = {
    "characters": _characters,
    "cpp_headers": _cpp,
    "dictionary": _dictionary,
    "docstrings": _docstrings,
    "font_metrics": _font_metrics,
    "licences": _licences,
    "python": _python,
    "readmes": _readmes,
    "type_stubs": _stubs,
}
