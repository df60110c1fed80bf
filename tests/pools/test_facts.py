import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.execution.session import Execution
from gristmill.pools import facts
from gristmill.pools.facts import ColumnFacts, key_to_value, order_keys
from gristmill.pools.pool import Pool

numbers = st.lists(
    st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=1, max_size=50
)


@given(numbers)
def test_keys_sort_as_numbers_do_and_come_back(values):
    array = np.array(values)
    keys = order_keys(array)
    falling = -np.sort(-array)
    back = [key_to_value(int(k)) for k in np.sort(keys)[::-1]]
    assert np.array_equal(np.array(back), falling, equal_nan=True)


@pytest.mark.ray
@pytest.mark.parametrize("collect", [1 << 20, 0], ids=["collected", "refined to single keys"])
def test_every_rank_is_exact(tmp_path, monkeypatch, collect):
    monkeypatch.setattr(facts, "COLLECT_AT_MOST", collect)
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [
            np.round(rng.normal(0.2, 0.05, 3000), 3),
            [np.nan] * 50,
            [0.0, -0.0, np.inf, -np.inf, 5e-324],
        ]
    )
    rng.shuffle(values)
    (tmp_path / "metadata").mkdir()
    for i, part in enumerate(np.array_split(values, 3)):
        pq.write_table(
            pa.table({"uid": ["0" * 32] * len(part), "s": part}),
            tmp_path / "metadata" / f"{i}.parquet",
            row_group_size=400,
        )
    pieces = Pool(str(tmp_path)).slices(500)
    assert len(pieces) > 3
    falling = -np.sort(-values)
    for rank in (0, 1, 917, len(values) - 51, len(values) - 1):
        found = ColumnFacts(pieces, str(tmp_path / f"w{collect}"), Execution()).value_at_rank(
            "s", rank
        )
        assert found == falling[rank] or (math.isnan(found) and math.isnan(falling[rank]))
