"""String columns of a batch, checked once so that no filter trips over their bytes."""

from typing import TYPE_CHECKING

from gristmill.core.errors import BadInputError, CorruptDataError

if TYPE_CHECKING:
    import pyarrow as pa


def strings(batch: "pa.Table", name: str) -> "pa.ChunkedArray":
    """A column as large strings (offsets of 64 bits, so chunks may be joined).

    Raises:
        BadInputError: The column holds something else.
        CorruptDataError: A value is not UTF-8.
    """
    import pyarrow as pa

    column = batch[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise BadInputError(f"column {name} is {column.type}, not a string; name a string column")
    column = column.cast(pa.large_string())
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise CorruptDataError(f"column {name} holds text that is not UTF-8: {error}") from error
    return column
