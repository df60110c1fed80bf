"""One cut through a score column: at a threshold, or at a share of the pool.

DataComp's rule for a share f of N rows (its clip_score baseline): the threshold is the score at
index int(f N) of all scores in falling order, so int(f N) + 1 rows and their ties are kept.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.filters.base import PoolFacts, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

MISSING, BEYOND = 1, 2
"""Verdicts: the score is NaN or null; it is on the wrong side of the cut."""


def check(name: str, *, fraction: float | None, threshold: float | None) -> None:
    """Check that there is one cut, and a sound one.

    Raises:
        BadInputError: There is not.
    """
    if (fraction is None) == (threshold is None):
        raise BadInputError(f"give {name} either --fraction or --threshold, one of the two")
    if fraction is not None and not 0 < fraction <= 1:
        raise BadInputError(f"fraction must lie in (0, 1], not {fraction}")
    if threshold is not None and not math.isfinite(threshold):
        raise BadInputError(f"threshold must be a number, not {threshold}")


def threshold_of(facts: PoolFacts, column: str, fraction: float) -> float:
    """The threshold that keeps a share of the whole pool.

    Raises:
        BadInputError: So many scores are NaN or null that the cut falls among them.
    """
    rows = facts.rows_of(column)
    if rows == 0:
        return 0.0
    value = facts.value_at_rank(column, min(int(rows * fraction), rows - 1))
    if math.isnan(value):
        raise BadInputError(
            f"the best {fraction} of {rows} rows includes rows whose {column} is NaN or null; "
            "score the pool again or give a threshold"
        )
    return value


def scores(batch: "pa.Table", column: str) -> npt.NDArray[np.float64]:
    """A score column in double precision, null as NaN."""
    return np.asarray(batch[column].cast("float64").to_numpy())


def keep_from(score: npt.NDArray[np.float64], threshold: float | None) -> Verdict:
    """Keep `score >= threshold`.

    Raises:
        BadInputError: The threshold is not known yet.
    """
    if threshold is None:
        raise BadInputError("a fraction needs the whole pool: call fit first")
    verdict = np.where(score >= threshold, 0, BEYOND).astype(np.int8)
    verdict[np.isnan(score)] = MISSING
    return verdict
