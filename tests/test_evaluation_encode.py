"""Tables as arrays: every canonical dtype, missing values, unknown categories."""

import numpy as np
import pandas as pd
import pytest

from privsyn_jax.evaluation import encode, features
from privsyn_jax.types import Column


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("numeric", pd.Series([1.5, np.nan, np.inf]), [1.5, np.nan, np.nan]),
        ("integer", pd.Series([3, -2, 0], dtype="int64"), [3, -2, 0]),
        ("integer", pd.Series([3, pd.NA, 0], dtype="Int64"), [3, np.nan, 0]),
        ("numeric", pd.Series([None, 2, 4], dtype=object), [np.nan, 2, 4]),
        ("numeric", pd.Series([1e300, -np.inf, -2e30, np.nan, 9e29]), [1e30, np.nan, -1e30, np.nan, 9e29]),
    ],
)
def test_numbers(kind, values, expected):
    np.testing.assert_array_equal(encode.numbers(Column("x", kind), values), expected)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_are_scaled_by_their_iso_bounds(unit):
    column = Column("when", "datetime", "2020-01-01", "2020-01-05T00:00:00")
    values = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02", None, "2020-01-05"])).dt.as_unit(unit)
    numbers = encode.numbers(column, values)
    scaled = encode.scaled_numeric(numbers, encode.numeric_bounds(column, numbers))
    np.testing.assert_allclose(scaled, [0, 0.25, np.nan, 1])


def test_an_unknown_bound_comes_from_the_training_rows_and_equal_bounds_do_not_divide_by_zero():
    assert encode.numeric_bounds(Column("x", "numeric", lower=-1), np.array([2.0, np.nan, 5.0])) == (-1, 5)
    np.testing.assert_array_equal(encode.scaled_numeric(np.array([7.0, 8.0]), (7.0, 7.0)), [0, 1])


def bins(values):
    values = pd.Series(values)
    return encode.column_codes(encode.make_levels(Column("x", "numeric"), [values, values]), values)


def test_bins_are_those_of_pandas_qcut():
    values = np.random.default_rng(0).gamma(0.5, 10, 5000)
    np.testing.assert_array_equal(bins(values), pd.qcut(values, 20, labels=False))


def test_a_spike_at_the_lowest_value_has_its_own_bin():
    values = np.concatenate([np.zeros(920), np.random.default_rng(0).uniform(1, 2, 80)])
    np.testing.assert_array_equal(bins(values) == 0, values == 0)
    assert bins(values).max() == 2


@pytest.mark.parametrize("dtype", [object, "str", "category"])
def test_category_codes_of_strings(dtype):
    values = pd.Series(["b", "a", None, "z"], dtype=dtype)
    np.testing.assert_array_equal(encode.category_codes(values, ("a", "b")), [1, 0, 3, 2])


@pytest.mark.parametrize("values", [pd.Series([True, False]), pd.Series([True, False], dtype="boolean")])
def test_boolean_codes_whatever_the_file_wrote(values):
    levels = encode.make_levels(Column("x", "boolean", categories=("no", "yes")), [values])
    np.testing.assert_array_equal(encode.column_codes(levels, values), [1, 0])


def test_integer_categories_and_missing_booleans():
    values = pd.Series([2, None, 1], dtype=object)
    np.testing.assert_array_equal(encode.category_codes(values, (1, 2)), [1, 3, 0])
    values = pd.Series([True, pd.NA], dtype="boolean")
    np.testing.assert_array_equal(encode.category_codes(values, (False, True)), [1, 3])


def test_unknown_categories_are_the_union_of_both_tables():
    column = Column("x", "categorical")
    train, synthetic = pd.Series(["b", "a", None], dtype=object), pd.Series(["c"], dtype=object)
    levels = encode.make_levels(column, [train, train, synthetic])
    assert levels.categories == ("a", "b", "c")
    np.testing.assert_array_equal(levels.occurs, [True, True, True, False, True])


def test_equal_values_of_other_types_share_a_code_and_numbers_as_text_do_not():
    values = pd.Series([True, 1, 1.0, "1", np.nan, None, pd.NA, 0], dtype=object)
    np.testing.assert_array_equal(encode.category_codes(values, (1,)), [0, 0, 0, 1, 2, 2, 2, 1])


def test_rare_categories_beyond_the_limit_share_a_level():
    train = pd.Series([f"c{i:03}" for i in range(150)] + ["c149"] * 5, dtype=object)
    levels = encode.make_levels(Column("x", "categorical"), [train, train])
    assert len(levels.categories) == encode.MAX_LEVELS
    assert "c149" in levels.categories
    codes = encode.column_codes(levels, train)
    assert (codes == encode.MAX_LEVELS).sum() == 50


def test_an_all_missing_column_has_one_code():
    column = Column("x", "numeric", 0, 1, nullable=True)
    empty = pd.Series([np.nan, np.nan])
    levels = encode.make_levels(column, [empty, empty])
    np.testing.assert_array_equal(encode.column_codes(levels, pd.Series([np.nan, 0.5])), [2, 0])


def test_tables_encoded_together_are_those_encoded_one_by_one():
    columns = [
        Column("x", "numeric", 0, None, nullable=True),
        Column("n", "integer"),
        Column("when", "datetime", "2020-01-01", "2020-01-09"),
        Column("c", "categorical", categories=("a", "b")),
        Column("free", "categorical"),
        Column("y", "boolean"),
    ]

    def table(num_rows, seed):
        rng = np.random.default_rng(seed)
        return pd.DataFrame(
            {
                "x": np.where(rng.random(num_rows) < 0.2, np.nan, rng.normal(size=num_rows)),
                "n": pd.Series(rng.integers(0, 9, num_rows), dtype="Int64").mask(rng.random(num_rows) < 0.1),
                "when": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 9, num_rows), "D"),
                "c": rng.choice(np.array(["a", "b", "z", None], object), num_rows),
                "free": pd.Series(rng.choice(["p", "q"], num_rows), dtype="category"),
                "y": rng.random(num_rows) < 0.5,
            }
        )

    frames = [table(20_000, 0), table(70, 1), table(100, 2).assign(x=np.inf, free="r")]
    together, tables = encode.encode_tables(columns, frames)
    for i, column in enumerate(columns):
        levels = encode.make_levels(column, [pd.Series(frame[column.name]) for frame in frames])
        assert levels.bounds == together[i].bounds and levels.categories == together[i].categories
        np.testing.assert_array_equal(levels.edges, together[i].edges)
        np.testing.assert_array_equal(levels.occurs, together[i].occurs)
    for frame, encoded in zip(frames, tables, strict=True):
        one = encode.encode_table(together, frame)
        np.testing.assert_array_equal(one.codes, encoded.codes)
        np.testing.assert_array_equal(one.scaled, encoded.scaled)
    values = frames[0]["x"].to_numpy()
    oracle = np.where(np.isnan(values), len(together[0].edges) + 2, np.searchsorted(together[0].edges, values))
    np.testing.assert_array_equal(tables[0].codes[:, 0], oracle)


def test_features_are_one_hot_and_z_scores_with_the_training_statistics():
    columns = [
        Column("x", "numeric", 0, 10),
        Column("c", "categorical", categories=("a", "b", "never")),
        Column("y", "boolean"),
    ]
    train = pd.DataFrame({"x": [0.0, 4.0, np.nan], "c": ["a", "b", "b"], "y": [True, False, True]})
    test = pd.DataFrame({"x": [4.0], "c": [None], "y": [True]})
    all_levels = [
        encode.make_levels(column, [pd.Series(train[column.name]), pd.Series(test[column.name])]) for column in columns
    ]
    encoded, encoded_test = (encode.encode_table(all_levels, table) for table in (train, test))
    statistics = features.standardisation(encoded)
    matrix = features.feature_matrix(all_levels, encoded, statistics, exclude="y")
    # z-score, its missing indicator, then a, b, missing: "never" and "other" occur nowhere.
    np.testing.assert_allclose(matrix, [[-1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 1, 0]], atol=1e-6)
    matrix = features.feature_matrix(all_levels, encoded_test, statistics, exclude="y")
    np.testing.assert_allclose(matrix, [[1, 0, 0, 0, 1]], atol=1e-6)


def test_a_constant_column_is_a_zero_feature():
    column = Column("x", "integer", 0, 3)
    table = pd.DataFrame({"x": [2, 2, 2]})
    all_levels = [encode.make_levels(column, [pd.Series(table["x"])] * 2)]
    encoded = encode.encode_table(all_levels, table)
    matrix = features.feature_matrix(all_levels, encoded, features.standardisation(encoded), exclude="")
    np.testing.assert_allclose(matrix, np.zeros((3, 1)), atol=1e-6)
