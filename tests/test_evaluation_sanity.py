"""Repeated rows, copies and bounds, on tables where the rates are known."""

import numpy as np
import pandas as pd
import pytest

from privsyn_jax.evaluation import sanity
from privsyn_jax.types import Column

COLUMNS = (
    Column("x", "numeric", 0, 1, nullable=True),
    Column("n", "integer", 0, 9),
    Column("c", "categorical", categories=("a", "b")),
    Column("b", "boolean", nullable=True),
    Column("t", "datetime", "2020-01-01", "2020-12-31"),
)


def table(num_rows, seed):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": np.where(rng.random(num_rows) < 0.1, np.nan, rng.random(num_rows)),
            "n": rng.integers(0, 10, num_rows),
            "c": np.array(["a", "b"], object)[rng.integers(0, 2, num_rows)],
            "b": pd.array(rng.random(num_rows) < 0.5, dtype="boolean"),
            "t": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 300, num_rows), "D"),
        }
    )


def rates(train, test, synthetic, columns=COLUMNS):
    rows = sanity.sanity_rows(columns, train, test, synthetic, seed=0).metrics
    return {row["metric"]: (row["value"], row["reference"]) for row in rows if row["column"] is None}


def test_row_ids_are_equal_exactly_for_equal_rows():
    one = table(300, 0)
    small = pd.concat([one, one.iloc[:50]], ignore_index=True)
    small.loc[0, "x"] = np.nan
    small.loc[300, "x"] = np.nan
    ids, other = sanity.row_ids(COLUMNS, [small, one])
    np.testing.assert_array_equal(ids[:50], ids[300:])
    np.testing.assert_array_equal(ids[1:300], other[1:])
    brute_force = small.astype(object).where(small.notna(), "missing").apply(tuple, axis=1).nunique()
    assert len(np.unique(ids)) == brute_force


def test_row_ids_do_not_depend_on_nullable_dtypes():
    one = table(20, 0)
    other = one.astype({"n": "Int64", "b": object})
    ids, other_ids = sanity.row_ids(COLUMNS, [one, other])
    np.testing.assert_array_equal(ids, other_ids)


def test_a_table_that_copies_is_found_and_a_fresh_one_is_not():
    train, test = table(600, 1), table(200, 2)
    copied = rates(train, test, train)
    # A third of the training rows are compared, as many as there are held-out rows.
    assert copied["training_copy_rate"][0] == pytest.approx(1 / 3, abs=0.01)
    assert copied["heldout_copy_rate"][0] < 0.02
    fresh = rates(train, test, table(500, 3))
    assert fresh["training_copy_rate"][0] < 0.02 and fresh["training_copy_rate"][1] < 0.02


def test_common_rows_are_copied_from_train_and_test_at_the_same_rate():
    columns = COLUMNS[1:3]  # 20 different rows: every row is in every table
    found = rates(table(2000, 1), table(1000, 2), table(1500, 3), columns)
    assert found["training_copy_rate"] == found["heldout_copy_rate"] == (1.0, 1.0)


def test_duplicates_are_counted_at_equal_sizes():
    train = table(400, 1)
    repeated = pd.concat([table(100, 2)] * 2, ignore_index=True)
    value, reference = rates(train, table(50, 3), repeated)["duplicate_rate"]
    assert value == 0.5
    assert reference < 0.02


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        (COLUMNS[0], [0.0, 1.0, 1.01, -0.1, np.nan, np.inf], [True, True, False, False, True, False]),
        (COLUMNS[1], [0, 9, 10, 2.5, None], [True, True, False, False, False]),
        (COLUMNS[2], ["a", "z", None], [True, False, False]),
        (COLUMNS[3], [True, None], [True, True]),
        (COLUMNS[4], ["2020-12-31", "2021-01-01", None], [True, False, False]),
        (Column("free", "numeric"), [1e9, -1e9], [True, True]),
        (Column("free", "categorical"), ["anything"], [True]),
    ],
)
def test_within_bounds(column, values, expected):
    values = pd.Series(pd.to_datetime(values) if column.kind == "datetime" else values)
    if column.kind in ("categorical", "boolean"):
        values = values.astype(object)
    np.testing.assert_array_equal(sanity.within_bounds(column, values), expected)
