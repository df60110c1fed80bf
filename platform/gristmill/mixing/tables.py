"""Tables of mixtures, losses and domain sizes: CSV, read and matched by name, never by position.

RegMix's released tables are accepted as they are: `index` and one column a domain, `index` and one
column a target. A `Table` is canonical (rows by index, columns by name), so the order of a file's
rows and columns changes nothing.
"""

import csv
import io as texts
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.regressors.base import Array

INDEX = "index"
SHOWN = 5
SEPARATORS = (";", "\t", "|")
SUM_TOLERANCE = 1e-6
MOST_DRIFT = 0.01
"""No rounding excuses a sum further from 1 than this."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Numbers with named rows and columns, both sorted."""

    source: str
    """Where it came from, for messages."""
    index: tuple[str, ...]
    """Names of the rows: sorted, by number when all are whole numbers."""
    columns: tuple[str, ...]
    """Names of the columns, sorted."""
    values: Array
    """Shape (rows, columns)."""
    given: tuple[str, ...] = ()
    """The rows' names in the file's order."""
    drift: float = 0.0
    """Largest distance of a row's sum from 1 before it was mended; of mixtures only."""

    def rows(self, index: Sequence[str]) -> Array:
        """The rows of these names, in their order."""
        place = {name: i for i, name in enumerate(self.index)}
        return self.values[[place[name] for name in index]]


def read_table(uri: str, what: str) -> Table:
    """A CSV of an `index` column and columns of numbers.

    Args:
        uri: The file.
        what: What a column is called in messages, such as domain or target.

    Raises:
        BadInputError: No such table; names the row and the column that are wrong.
    """
    where = io.redact(uri)
    header, lines = _lines(uri, where)
    names = _columns(header, where, what)
    if not lines:
        raise BadInputError(f"{where} has no rows")
    given, rows = [], []
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise BadInputError(
                f"{where}, line {number} has {len(line)} cells for {len(header)} columns"
            )
        cells = dict(zip(header, line, strict=True))
        given.append(_index_of(cells[INDEX], where, number))
        rows.append([_number(cells[n], where, given[-1], what, n) for n in names])
    if again := _repeated(given):
        raise BadInputError(f"{where} has the {INDEX} {_some(again)} more than once")
    order = sorted(range(len(given)), key=_row_keys(given).__getitem__)
    return Table(
        source=where,
        index=tuple(given[i] for i in order),
        columns=tuple(names),
        values=np.array(rows, np.float64)[order],
        given=tuple(given),
    )


def _columns(header: Sequence[str], where: str, what: str) -> list[str]:
    """The names beside the index, sorted."""
    if INDEX not in header:
        other = next((mark for mark in SEPARATORS if mark in "".join(header)), "")
        hint = f" It seems to be separated by {other!r}: write commas" if other else ""
        raise BadInputError(
            f"{where} has no column {INDEX!r}; its columns are {_some(header)}. Name the rows in "
            f"it.{hint}"
        )
    if again := _repeated(header):
        raise BadInputError(f"{where} has the column {again[0]!r} more than once")
    names = [name for name in header if name != INDEX]
    if not names:
        raise BadInputError(f"{where} has no column of a {what} beside {INDEX!r}")
    if "" in names:
        raise BadInputError(f"{where}: a column has no name; give each {what} one")
    return sorted(names)


def read_mixtures(
    uri: str, domains: Sequence[str] = (), what: str = "", *, empty: Collection[str] = ()
) -> Table:
    """Mixtures: none negative, each row's sum 1.

    Sums that rounding explains (half a unit of the table's last decimal for each domain, at most
    0.01: RegMix's own tables drift so) are mended and told in the log; others are errors.

    Args:
        uri: The file.
        domains: What its columns must be, where that is known: a column that is missing is named,
            rather than the sums that it leaves.
        what: Who knows these, for messages.
        empty: Domains that may have a column as well.

    Raises:
        BadInputError: A column is unknown or missing, a weight is missing, negative or no number,
            or a row's sum is not 1.
    """
    table = read_table(uri, "domain")
    if domains:
        require_domains(table, domains, what, empty=empty)
    low = np.argwhere(table.values < 0)
    if len(low):
        i, j = low[0]
        raise BadInputError(
            f"{table.source}: the weight of domain {table.columns[j]!r} in row {table.index[i]} "
            f"is {table.values[i, j]:g}; give 0 or more"
        )
    unit = rounding(table.values)
    allowed = max(SUM_TOLERANCE, min(MOST_DRIFT, 0.5 * unit * len(table.columns) + 1e-9))
    sums = np.array([math.fsum(row) for row in table.values])
    off = np.abs(sums - 1)
    if (off > allowed).any():
        i = int(np.argmax(off > allowed))
        count = int((off > allowed).sum())
        raise BadInputError(
            f"{table.source}: the weights of row {table.index[i]} sum to {sums[i]:.6g}, not 1 "
            f"(tolerance {allowed:.2g}; {count} of {len(sums)} rows are off); see that no domain's "
            "column is missing, and divide each row by its sum if that was meant"
        )
    if off.max() > SUM_TOLERANCE:
        logger.warning(
            "%s: sums of %d rows drift from 1 by up to %.2g, as rounding to %g explains; "
            "each row is divided by its sum",
            table.source,
            int((off > SUM_TOLERANCE).sum()),
            off.max(),
            unit,
        )
    return Table(
        source=table.source,
        index=table.index,
        columns=table.columns,
        values=table.values / sums[:, None],
        given=table.given,
        drift=float(off.max()),
    )


def read_losses(uri: str) -> Table:
    """Losses: `index` and a column a target, all finite.

    Raises:
        BadInputError: A loss is missing or not finite; names its row and target.
    """
    return read_table(uri, "target")


def matched(mixtures: Table, losses: Table) -> Array:
    """The losses of each mixture, rows in the mixtures' order.

    Raises:
        BadInputError: A mixture has no losses, or losses no mixture; names the rows.
    """
    for here, there, lack in ((mixtures, losses, "losses"), (losses, mixtures, "a mixture")):
        if missing := sorted(set(here.index) - set(there.index), key=here.index.index):
            raise BadInputError(
                f"{len(missing)} rows of {here.source} lack {lack} in {there.source}: {INDEX} "
                f"{_some(missing)}; add them, or take these rows out"
            )
    return losses.rows(mixtures.index)


def aligned(
    mixtures: Table, domains: Sequence[str], what: str, *, empty: Collection[str] = ()
) -> Array:
    """Weights with columns in the order of `domains`.

    Args:
        mixtures: The table.
        domains: The columns wanted.
        what: Who knows these, for messages.
        empty: Domains that may have a column as well, of zeros.

    Raises:
        BadInputError: A domain is unknown to `what`, one is missing, or an empty one is not.
    """
    require_domains(mixtures, domains, what, empty=empty)
    place = {name: i for i, name in enumerate(mixtures.columns)}
    for name in sorted(set(empty) & set(mixtures.columns)):
        if (held := mixtures.values[:, place[name]] > 0).any():
            rows = [index for index, is_held in zip(mixtures.index, held, strict=True) if is_held]
            raise BadInputError(
                f"{mixtures.source} gives weight to domain {name!r} in the rows {_some(rows)}; no "
                f"mixture that {what} has seen holds it, so nothing is known of it: give it 0, or "
                "fit mixtures that hold it"
            )
    return mixtures.values[:, [place[name] for name in domains]]


def require_domains(
    mixtures: Table, domains: Sequence[str], what: str, *, empty: Collection[str] = ()
) -> None:
    """Refuse a table whose columns are not these domains.

    Raises:
        BadInputError: A domain is unknown to `what`, or one is missing; names it.
    """
    if unknown := sorted(set(mixtures.columns) - set(domains) - set(empty)):
        raise BadInputError(
            f"{mixtures.source} names unknown domains: {_some(unknown)}; {what} knows "
            f"{', '.join(domains)}"
        )
    if missing := sorted(set(domains) - set(mixtures.columns)):
        raise BadInputError(
            f"{mixtures.source} lacks the domains {_some(missing)} of {what}; give them a column, "
            "of zeros if they are not in the mixture"
        )


def without_columns(table: Table, names: Collection[str]) -> Table:
    """The table less some columns."""
    kept = [i for i, name in enumerate(table.columns) if name not in names]
    return replace(
        table, columns=tuple(table.columns[i] for i in kept), values=table.values[:, kept]
    )


def write_table(uri: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV; floats in the shortest form that reads back the same."""
    text = texts.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([repr(float(c)) if isinstance(c, float) else c for c in row])
    io.write_bytes(uri, text.getvalue().encode())


def write_mixtures(uri: str, index: Sequence[str], domains: Sequence[str], weights: Array) -> None:
    """Write mixtures as `read_mixtures` reads them."""
    rows = ([name, *map(float, row)] for name, row in zip(index, weights, strict=True))
    write_table(uri, [INDEX, *domains], rows)


def _lines(uri: str, where: str) -> tuple[list[str], list[list[str]]]:
    try:
        text = io.read_bytes(uri).decode("utf-8-sig")
        lines = [line for line in csv.reader(texts.StringIO(text), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{where} is not a CSV table in UTF-8: {error}") from error
    if not lines:
        raise BadInputError(f"{where} is empty; the first line must name the columns")
    return [name.strip() for name in lines[0]], lines[1:]


def _number(text: str, where: str, row: str, what: str, column: str) -> float:
    place = f"{where}: row {row}, {what} {column!r}"
    if not text.strip():
        raise BadInputError(f"{place} is empty; give a number")
    try:
        value = float(text)
    except ValueError:
        raise BadInputError(f"{place} is {text!r}, not a number") from None
    if not math.isfinite(value):
        raise BadInputError(f"{place} is {text.strip()}; mend it, or take that row out")
    return value


def _index_of(text: str, where: str, number: int) -> str:
    if not text.strip():
        raise BadInputError(f"{where}, line {number}: the {INDEX} is empty; name the row")
    return text.strip()


def _row_keys(given: Sequence[str]) -> list[tuple[int, int, str]]:
    if all(name.isdecimal() for name in given):
        return [(0, int(name), name) for name in given]
    return [(1, 0, name) for name in given]


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def rounding(values: npt.NDArray[np.float64]) -> float:
    """The unit that all values are multiples of: 1, 0.1, ..., 1e-9; 0 for finer ones."""
    for digits in range(10):
        if np.abs(values - np.round(values, digits)).max() < 1e-12:
            return float(10.0**-digits)
    return 0.0
