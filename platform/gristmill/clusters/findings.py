"""What a check found, and the file it looked at."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    file: str
    """The file."""
    field: str
    """The field in it, as a dotted path, or its line."""
    problem: str
    """What is wrong, with the value, and what to do."""

    def line(self) -> str:
        """The finding as a line for a terminal."""
        return f"{self.file}: {self.field}: {self.problem}"


@dataclass
class Checked:
    """A file under check: what it holds, what was found, and with what it was checked."""

    name: str
    text: str
    findings: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    """What may be meant, and costs money or speed: told, and no failure."""
    means: list[str] = field(default_factory=list)
    """What the file was checked with."""
    left_out: list[str] = field(default_factory=list)
    """Checks that could not be made, and why."""

    def wrong(self, place: str, problem: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(file=self.name, field=place, problem=problem))

    def warn(self, place: str, problem: str) -> None:
        """Note a warning."""
        self.warnings.append(Finding(file=self.name, field=place, problem=problem))

    def line_of(self, position: int) -> str:
        """The line that a position of the text is in."""
        return f"line {self.text.count(chr(10), 0, position) + 1}"


def check_schema(checked: Checked, schema: dict[str, Any], data: Any, place: str = "") -> None:
    """Note each violation of a JSON schema, by its place."""
    import jsonschema

    for error in jsonschema.Draft7Validator(schema).iter_errors(data):
        where = ".".join(map(str, error.absolute_path))
        checked.wrong(f"{place}.{where}".strip(".") or "the file", error.message[:300])


def near(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest of some known words; empty where none is near."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; perhaps {found[0]}" if found else ""


def at(data: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested mappings; `default` where there is none."""
    for key in path.split("."):
        if not isinstance(data, dict) or key not in data:
            return default
        data = data[key]
    return data
