"""What makes a record a document: its text, checked; shared by text pools and corpora."""

from gristmill.core.records import Record, Unreadable

NO_TEXT = Unreadable("no text")
HALF_SURROGATE = Unreadable("half a surrogate pair")
LINE_ROOM = 1 << 20
"""A line may be so much longer than the longest document's escaped text."""


def text_of(record: Record, field: str, max_bytes: int) -> str | Unreadable:
    """A record's text, or why it is no document.

    Args:
        record: What `read_records` gave.
        field: Where the text is.
        max_bytes: Longest document, in bytes of UTF-8.
    """
    if isinstance(record, Unreadable):
        return record
    text = record.get(field)
    if not isinstance(text, str) or not text or text.isspace():
        return NO_TEXT
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        return HALF_SURROGATE
    return Unreadable(f"text over {max_bytes} bytes") if size > max_bytes else text


def line_limit(max_bytes: int) -> int:
    """Most bytes of a line that can hold a document of `max_bytes`.

    In JSON a character of one byte may take six (a unicode escape), and a quotation mark two.
    """
    return 6 * max_bytes + LINE_ROOM
