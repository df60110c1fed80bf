"""Bad tables: each is answered with the row, the column and what to do."""

import logging
from pathlib import Path

import numpy as np
import pytest
from mix_world import write

from gristmill.core.errors import BadInputError
from gristmill.mixing.tables import aligned, matched, read_losses, read_mixtures, read_table

REGMIX = Path(__file__).parents[3] / "shared" / "data" / "regmix"


def table(tmp_path, header, rows, name="t.csv"):
    return write(tmp_path / name, header, rows)


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        (["row", "a"], [[1, 1]], "no column 'index'; its columns are row, a"),
        (["index;a;b"], [["1;0.5;0.5"]], "separated by ';': write commas"),
        (["index", "a", "a"], [[1, 0.5, 0.5]], "the column 'a' more than once"),
        (["index"], [[1]], "no column of a domain"),
        (["index", "a", ""], [[1, 0.5, 0.5]], "a column has no name"),
        (["index", "a"], [], "has no rows"),
        (["index", "a", "b"], [[1, 0.5]], "line 2 has 2 cells for 3 columns"),
        (["index", "a"], [["", 1]], "line 2: the index is empty"),
        (["index", "a"], [[3, 1], [4, 1], [3, 1]], "the index 3 more than once"),
        (["index", "a", "b"], [[7, 1, ""]], "row 7, domain 'b' is empty"),
        (["index", "a", "b"], [[7, 1, "x"]], "row 7, domain 'b' is 'x', not a number"),
        (["index", "a", "b"], [[7, 1.5, -0.5]], "domain 'b' in row 7 is -0.5"),
        (["index", "a", "b"], [[7, 0.5, 0.5], [8, 0.5, 0.47]], "row 8 sum to 0.97, not 1"),
        (["index", "a", "b"], [[7, 0.0, 0.0]], "row 7 sum to 0, not 1"),
        (["index", "a", "b"], [[7, 0.5, 0.504]], r"sum to 1.004, not 1 \(tolerance 0.001"),
    ],
)
def test_bad_mixtures(tmp_path, header, rows, said):
    with pytest.raises(BadInputError, match=said):
        read_mixtures(table(tmp_path, header, rows))


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-inf"])
def test_a_loss_that_is_not_finite_names_row_and_target(tmp_path, value):
    given = table(tmp_path, ["index", "x/loss", "y/loss"], [[1, 2.0, 3.0], [22, 2.0, value]])
    with pytest.raises(BadInputError, match=f"row 22, target 'y/loss' is {value}"):
        read_losses(given)


def test_other_files(tmp_path):
    with pytest.raises(BadInputError, match="no file at"):
        read_table(str(tmp_path / "none.csv"), "domain")
    (tmp_path / "b.csv").write_bytes(b"index,\xff\n")
    with pytest.raises(BadInputError, match="not a CSV table in UTF-8"):
        read_table(str(tmp_path / "b.csv"), "domain")
    (tmp_path / "e.csv").write_bytes(b"")
    with pytest.raises(BadInputError, match="is empty"):
        read_table(str(tmp_path / "e.csv"), "domain")


def test_drift_that_rounding_explains_is_mended_and_told(tmp_path, caplog):
    given = table(tmp_path, ["index", "a", "b", "c"], [[1, 0.333, 0.333, 0.333], [2, 0.5, 0.5, 0]])
    with caplog.at_level(logging.WARNING):
        found = read_mixtures(given)
    assert abs(found.values.sum(1) - 1).max() < 1e-15
    assert found.drift == pytest.approx(0.001)
    assert "1 rows drift from 1 by up to 0.001" in caplog.text


def test_fine_weights_may_not_drift(tmp_path):
    with pytest.raises(BadInputError, match="tolerance 1e-06"):
        read_mixtures(table(tmp_path, ["index", "a", "b"], [[1, 0.123456789123, 0.87654]]))


def test_order_of_rows_and_columns_is_canonical(tmp_path):
    a = read_mixtures(table(tmp_path, ["index", "x", "y"], [[2, 0.25, 0.75], [10, 1, 0]], "a.csv"))
    b = read_mixtures(table(tmp_path, ["y", "index", "x"], [[0, 10, 1], [0.75, 2, 0.25]], "b.csv"))
    assert a.index == b.index == ("2", "10") and a.columns == b.columns == ("x", "y")
    np.testing.assert_array_equal(a.values, b.values)
    assert b.given == ("10", "2")


def test_names_in_other_scripts_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "u.csv"
    path.write_bytes("\ufeffindex,книги,网页\nα,0.25,0.75\n".encode())
    found = read_mixtures(str(path))
    assert found.columns == ("книги", "网页") and found.index == ("α",)


def test_rows_that_are_missing_are_named(tmp_path):
    m = read_mixtures(table(tmp_path, ["index", "a"], [[1, 1], [2, 1], [3, 1]], "m.csv"))
    fewer = read_losses(table(tmp_path, ["index", "l"], [[1, 2.0]], "f.csv"))
    more = read_losses(
        table(tmp_path, ["index", "l"], [[1, 2.0], [2, 2.0], [3, 2.0], [9, 2.0]], "g.csv")
    )
    with pytest.raises(BadInputError, match=r"2 rows of .*m.csv lack losses in .*: index 2, 3"):
        matched(m, fewer)
    with pytest.raises(BadInputError, match=r"1 rows of .*g.csv lack a mixture in .*: index 9"):
        matched(m, more)


def test_unknown_and_missing_domains(tmp_path):
    m = read_mixtures(table(tmp_path, ["index", "a", "b"], [[1, 0.5, 0.5]]))
    with pytest.raises(BadInputError, match="unknown domains: b; the fit knows a, c"):
        aligned(m, ("a", "c"), "the fit")
    with pytest.raises(BadInputError, match="lacks the domains c of the fit"):
        aligned(m, ("a", "b", "c"), "the fit")


@pytest.mark.skipif(not REGMIX.exists(), reason="RegMix's tables are not there")
def test_regmix_tables_as_they_are():
    mixtures = read_mixtures(str(REGMIX / "train_mixture_1m.csv"))
    losses = read_losses(str(REGMIX / "train_pile_loss_1m.csv"))
    assert matched(mixtures, losses).shape == (512, 13)
    assert 0.001 < mixtures.drift < 0.0085 and len(mixtures.columns) == 17


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(BadInputError, match="is a folder; give a file"):
        read_table(str(tmp_path), "domain")


def test_a_missing_column_is_named_rather_than_the_sums_it_leaves(tmp_path):
    given = write(tmp_path / "m.csv", ["index", "a", "b"], [[1, 0.5, 0.2], [2, 0.4, 0.1]])
    with pytest.raises(BadInputError, match=r"lacks the domains c of the fit"):
        read_mixtures(given, ("a", "b", "c"), "the fit")
    with pytest.raises(BadInputError, match=r"sum to 0.7.*see that no domain's column is missing"):
        read_mixtures(given)
