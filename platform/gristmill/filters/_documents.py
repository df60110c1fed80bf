"""What the filters for documents share: texts of a batch in chunks, and a check of their fields."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.filters._words import chunks
from gristmill.filters.base import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = "text"
MISSING = 1
"""The verdict on a null text: each filter for documents has this reason first."""


def judge_texts(batch: "pa.Table", judge: Callable[[list[str]], Verdict]) -> Verdict:
    """Verdicts on a batch's texts, a few at a time, so that arrays stay small; 1 on nulls."""
    column = batch[TEXT]
    verdict = np.full(batch.num_rows, MISSING, np.int8)
    there = np.flatnonzero(column.is_valid().to_numpy())
    texts = column.drop_null().to_pylist()
    for first, stop in chunks(texts):
        verdict[there[first:stop]] = judge(texts[first:stop])
    return verdict


def require_positive(settings: Any, *names: str) -> None:
    """Check that fields of a filter are above 0.

    Raises:
        BadInputError: One is not; names field and value.
    """
    for name in names:
        value = getattr(settings, name)
        if not value > 0:
            raise BadInputError(f"{name} must be above 0, not {value}")
