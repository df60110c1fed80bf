import math

import pyarrow as pa
import pytest

from gristmill.core.errors import BadInputError
from gristmill.filters.nsfw import Nsfw


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16()])
def test_nsfw_keeps_low_scores_and_drops_what_nobody_looked_at(kind):
    values = [0.0, 0.25, 0.5, 1.0, None, math.nan, math.inf, -0.0]
    table = pa.table({"nsfw_score": pa.array(values).cast(kind)})
    assert Nsfw(at_most=0.25).judge(table).tolist() == [0, 0, 2, 2, 1, 1, 2, 0]
    assert Nsfw().reasons == ("nsfw_score_missing", "nsfw_score_high")


def test_nsfw_wants_a_number():
    with pytest.raises(BadInputError, match="at_most must be a number, not nan"):
        Nsfw(at_most=math.nan)
