import numpy as np
import pyarrow as pa
import pytest
from plain_facts import repeated_rows

from gristmill.core.arrays import to_column
from gristmill.core.errors import BadInputError
from gristmill.filters import semantic_duplicates
from gristmill.filters.semantic_duplicates import SemanticDuplicates, close_to_an_earlier, unit


def made_features(rows, size, *, seed=0):
    """Families of vectors, near and not so near."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(rows // 5, size))
    spread = rng.choice([0.05, 0.3, 1.0], rows)[:, None]
    return centres[rng.integers(0, len(centres), rows)] + spread * rng.normal(size=(rows, size))


def plainly(features, centroids, epsilon):
    """Rows close to an earlier row of their cluster, and how near the nearest call was."""
    rows = features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cluster = (rows @ centroids.astype(np.float64).T).argmax(1)
    gone, doubt = set(), 1.0
    for i in range(len(rows)):
        before = rows[:i][cluster[:i] == cluster[i]]
        if len(before):
            cosine = before @ rows[i]
            doubt = min(doubt, np.abs(cosine - (1 - epsilon)).min())
            if cosine.max() >= 1 - epsilon:
                gone.add(i)
    return gone, doubt


@pytest.fixture
def centroids(tmp_path):
    made = np.random.default_rng(9).normal(size=(7, 24)).astype(np.float32)
    np.save(tmp_path / "centroids.npy", made)
    return tmp_path, made


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.5])
def test_same_rows_as_a_double_loop(centroids, dtype, epsilon):
    folder, made = centroids
    features = made_features(400, 24).astype(dtype)
    table = pa.table({"l14_img": to_column(features)})
    gone, doubt = plainly(features, made, epsilon)
    assert doubt > 1e-6 and 20 < len(gone) < 390
    for uri in (folder, folder / "centroids.npy"):
        chosen = SemanticDuplicates(centroids=str(uri), epsilon=epsilon)
        chosen.setup()
        assert repeated_rows(chosen, table) == gone


def test_rows_without_a_direction_have_no_key(centroids):
    features = made_features(10, 24).astype(np.float16)
    features[2] = 0
    features[4, 3] = np.nan
    features[6, 0] = np.inf
    column = pa.concat_arrays([to_column(features), pa.nulls(1, to_column(features).type)])
    keyed = SemanticDuplicates(centroids=str(centroids[0])).keyed(pa.table({"l14_img": column}))
    assert keyed.rows.tolist() == [0, 1, 3, 5, 7, 8, 9]
    assert keyed.payload.dtype == np.float16  # as stored: half of what the engine must move


def test_blocks_change_nothing(monkeypatch):
    rows = unit(made_features(500, 16, seed=3))
    whole = close_to_an_earlier(rows, 0.9)
    assert 0 < whole.sum() < 500
    monkeypatch.setattr(semantic_duplicates, "LATER_AT_ONCE", 9)
    monkeypatch.setattr(semantic_duplicates, "EARLIER_AT_ONCE", 13)
    assert np.array_equal(close_to_an_earlier(rows, 0.9), whole)
    assert close_to_an_earlier(rows[:0], 0.9).shape == (0,)


def test_the_best_row_stays(centroids):
    rows = np.repeat(made_features(5, 24)[:1], 4, axis=0).astype(np.float32)
    table = pa.table({"l14_img": to_column(rows), "score": [0.1, float("nan"), 0.4, 0.2]})
    chosen = SemanticDuplicates(centroids=str(centroids[0]), best_by="score")
    assert repeated_rows(chosen, table) == {0, 1, 3}


def test_inputs_pin_the_centroids(centroids):
    folder, _ = centroids
    pinned = SemanticDuplicates(centroids=str(folder)).inputs()["centroids"]
    other = SemanticDuplicates(centroids=str(folder / "centroids.npy")).inputs()["centroids"]
    assert len(pinned["sha256"]) == 64 and pinned["sha256"] == other["sha256"]


def test_wrong_settings_are_named(centroids, tmp_path):
    with pytest.raises(BadInputError, match="epsilon must lie in"):
        SemanticDuplicates(centroids="x", epsilon=1.0)
    with pytest.raises(BadInputError, match="needs --centroids"):
        SemanticDuplicates().setup()
    with pytest.raises(BadInputError, match="no file at"):
        SemanticDuplicates(centroids=str(tmp_path / "nowhere.npy")).setup()
    table = pa.table({"l14_img": to_column(np.ones((2, 5), np.float16))})
    with pytest.raises(BadInputError, match="5 numbers a row and the references 24"):
        SemanticDuplicates(centroids=str(centroids[0])).keyed(table)
