"""Grids and the discretizer: one cell for every value, codes there and back, bins that follow released counts only."""

import dataclasses
import datetime
import inspect
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.data.schema_check import check_schema
from privsyn_jax.data.validate import conform
from privsyn_jax.modalities.tables import fit_transform
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.transforms import discretize
from privsyn_jax.transforms.discretize import Discretizer, bin_mass, encode_cells, fit_public, fit_purchased
from privsyn_jax.transforms.grid import make_grid, numeric_bounds, to_numbers
from privsyn_jax.types import Column, Schema, UserError

quick = settings(deadline=None, max_examples=200)

CANONICAL = {  # (kind, nullable) -> dtype, see types.Records
    ("numeric", False): "float64",
    ("numeric", True): "float64",
    ("integer", False): "int64",
    ("integer", True): "Int64",
    ("datetime", False): "datetime64[us]",
    ("datetime", True): "datetime64[us]",
    ("categorical", False): "object",
    ("categorical", True): "object",
    ("ordinal", False): "object",
    ("boolean", False): "bool",
    ("boolean", True): "boolean",
}

SCHEMA = Schema(
    columns=(
        Column("gain", "numeric", lower=-100, upper=1000, nullable=True),
        Column("age", "integer", lower=-3, upper=90),
        Column("children", "integer", lower=0, upper=9, nullable=True),
        Column("born", "datetime", lower="1950-01-01", upper="2010-12-31"),
        Column("seen", "datetime", lower="2020-01-01T00:00:00", upper="2020-12-31T23:59:59", nullable=True),
        Column("sex", "categorical", categories=("f", "m")),
        Column("grade", "ordinal", categories=(1, 2, 3), nullable=True),
        Column("smoker", "boolean", categories=("no", "yes"), nullable=True),
        Column("member", "boolean", categories=(False, True)),
        Column("person", "id"),
    ),
    num_records=2000,
)


class FixedNoise:
    """Stands for HostNoise: gives out prepared arrays."""

    def __init__(self, draws):
        self._draws = iter(draws)

    def normal(self, shape, *, stddev):
        del stddev
        draw = np.asarray(next(self._draws), float)
        assert draw.shape == tuple(shape)
        return draw


def one_column(column):
    """Schema of a column and a companion: a schema has at least two."""
    return Schema((column, Column("other", "boolean")), num_records=1000)


# ---- strategies: columns and values within their bounds


@st.composite
def float_columns(draw):
    lower = draw(st.floats(-1e300, 1e300))
    steps = draw(st.one_of(st.integers(1, 20), st.none()))
    if steps is None:
        upper = draw(st.floats(lower, 1e300).filter(lambda value: value > lower))
    else:  # a range of a few floating-point numbers
        upper = lower
        for _ in range(steps):
            upper = float(np.nextafter(upper, np.inf))
    masses = tuple(draw(st.lists(st.floats(lower, upper), max_size=3)))
    return Column("x", "numeric", lower=lower, upper=upper, point_masses=masses, nullable=draw(st.booleans()))


@st.composite
def integer_columns(draw):
    span = draw(st.one_of(st.integers(1, 40), st.integers(1, 2**53)))
    lower = draw(st.integers(-(2**53), 2**53 - span))
    masses = tuple(draw(st.lists(st.integers(lower, lower + span), max_size=3)))
    nullable = draw(st.booleans())
    return Column("x", "integer", lower=lower, upper=lower + span, point_masses=masses, nullable=nullable)


@st.composite
def datetime_columns(draw):
    """Bounds as ISO text that the format can write; from a day up to millennia."""
    unit, text_format = draw(
        st.sampled_from(
            [
                ("days", None),
                ("days", "%d/%m/%Y"),
                ("seconds", None),
                ("seconds", "%Y-%m-%d %H:%M:%S"),
                ("microseconds", "%Y-%m-%dT%H:%M:%S.%f"),
                ("microseconds", None),
            ]
        )
    )
    lowest = datetime.datetime(1000, 1, 1) if unit != "microseconds" else datetime.datetime(1700, 1, 1)
    highest = datetime.datetime(9999, 12, 30) if unit != "microseconds" else datetime.datetime(2250, 1, 1)
    lower = draw(st.datetimes(lowest, highest))
    if unit == "days":
        lower = lower.replace(hour=0, minute=0, second=0, microsecond=0)
    elif unit == "seconds":
        lower = lower.replace(microsecond=0)
    most = int((highest + datetime.timedelta(days=1) - lower) / datetime.timedelta(**{unit: 1}))
    length = draw(st.one_of(st.integers(1, 30), st.integers(1, max(1, most))))
    upper = lower + datetime.timedelta(**{unit: min(length, most)})
    texts = [moment.date().isoformat() if unit == "days" else moment.isoformat() for moment in (lower, upper)]
    return Column("x", "datetime", *texts, nullable=draw(st.booleans()), datetime_format=text_format)


@st.composite
def label_columns(draw):
    kind = draw(st.sampled_from(["categorical", "ordinal", "boolean"]))
    nullable = draw(st.booleans())
    if kind == "boolean":
        return Column("x", kind, categories=draw(st.sampled_from([None, ("no", "yes"), ("0", "1")])), nullable=nullable)
    value = st.one_of(st.text(max_size=3), st.integers(2, 99), st.floats(-1.9, 1.9).filter(lambda x: x % 1 != 0))
    categories = tuple(draw(st.lists(value, min_size=1, max_size=6, unique_by=str)))
    return Column("x", kind, categories=categories, nullable=nullable)


number_columns = st.one_of(float_columns(), integer_columns(), datetime_columns())
any_columns = st.one_of(number_columns, label_columns())


@st.composite
def values_of(draw, column):
    """A few values within bounds: the bounds, the point masses, zero and others."""
    if column.kind == "datetime":
        lower, upper = (datetime.datetime.fromisoformat(bound) for bound in (column.lower, column.upper))
        inside = st.datetimes(lower, upper)
        return pd.Series([lower, upper, *draw(st.lists(inside, max_size=10))]).astype("datetime64[us]")
    inside = (st.floats if column.kind == "numeric" else st.integers)(column.lower, column.upper)
    fixed = [column.lower, column.upper, *column.point_masses, *([0] if column.lower <= 0 <= column.upper else [])]
    numbers = fixed + draw(st.lists(inside, max_size=10))
    return pd.Series(numbers, dtype="float64" if column.kind == "numeric" else "int64")


def spikes(column):
    """What must have a cell of its own."""
    lower, upper = numeric_bounds(column)
    zero = {0.0} if lower <= 0 <= upper and column.kind != "datetime" else set()
    return {lower, upper, *map(float, column.point_masses)} | zero


# ---- grids


@quick
@given(st.data(), number_columns, st.integers(1, 40))
def test_a_value_within_bounds_lies_in_one_cell_and_encodes_to_it(data, column, num_cells):
    grid = make_grid(column, num_cells)
    values = data.draw(values_of(column))
    numbers, cells = to_numbers(values, column), grid.encode(values)
    points = set(grid.lower[grid.lower == grid.upper])
    for number, cell in zip(numbers, cells, strict=True):
        is_point = (grid.lower == number) & (grid.upper == number)
        is_inside = (grid.lower <= number) & (number < grid.upper) & (number not in points)
        assert np.flatnonzero(is_point | is_inside).tolist() == [cell]


@quick
@given(number_columns, st.integers(1, 40))
def test_cells_cover_the_bounds_and_spikes_are_cells_of_their_own(column, num_cells):
    check_schema(one_column(column))
    grid, (lower, upper) = make_grid(column, num_cells), numeric_bounds(column)
    assert grid.lower[0] == lower
    assert grid.num_value_cells <= num_cells + 2 * len(spikes(column)) + 1
    if grid.whole:
        assert grid.upper[-1] == upper + 1
        np.testing.assert_array_equal(grid.upper[:-1], grid.lower[1:])
        assert (grid.lower % 1 == 0).all() and (grid.lower[1:] > grid.lower[:-1]).all()
        if upper - lower + 1 <= num_cells:
            np.testing.assert_array_equal(grid.lower, np.arange(int(lower), int(upper) + 1))
        widths = {low: high - low for low, high in zip(grid.lower, grid.upper, strict=True)}
        assert all(widths[spike] in (1, 0) for spike in spikes(column))  # 0 where 2**53 + 1 is no float64
    else:
        assert grid.lower[-1] == grid.upper[-1] == upper
        is_point = grid.lower == grid.upper
        assert set(grid.lower[is_point]) == spikes(column)
        starts, ends = grid.lower[~is_point], grid.upper[~is_point]
        assert (ends[:-1] <= starts[1:]).all()  # no overlap; that nothing is left out, the test above shows


@quick
@given(any_columns, st.integers(1, 40), st.integers(0, 2**32))
def test_decoding_then_encoding_gives_every_cell_back(column, num_cells, seed):
    check_schema(one_column(column))
    grid = make_grid(column, num_cells)
    cells = np.repeat(np.arange(grid.size), 20)
    values = grid.draw(cells, np.random.default_rng(seed))
    np.testing.assert_array_equal(grid.encode(values), cells)
    assert str(values.dtype) == CANONICAL.get((column.kind, column.nullable), "object")
    assert values.isna().sum() == (20 if column.nullable else 0)
    if grid.is_numeric:
        bounds = [column.lower, column.upper]
        if column.kind == "datetime":
            bounds = [np.datetime64(datetime.datetime.fromisoformat(bound), "us") for bound in bounds]
        present = values.dropna()
        assert (present >= bounds[0]).all() and (present <= bounds[1]).all()


def test_dates_without_a_time_are_whole_days_and_with_one_whole_seconds():
    days = make_grid(Column("d", "datetime", "2020-01-01", "2020-01-10"), 100)
    assert days.size == 10
    moments = days.draw(np.arange(10), np.random.default_rng(0))
    assert moments.tolist() == pd.date_range("2020-01-01", "2020-01-10").tolist()
    bounds = ("1969-12-31T00:00:00", "1970-01-01T23:59:59.999999")  # as proposed for a column with a time
    seconds = make_grid(Column("d", "datetime", *bounds), 10)
    moments = seconds.draw(np.repeat(np.arange(seconds.size), 50), np.random.default_rng(0))
    assert (moments.dt.microsecond == 0).all() and moments.dt.second.nunique() > 10


def test_edges_in_the_schema_are_the_cells():
    numeric = make_grid(Column("x", "numeric", 0, 10, edges=(0, 1, 5, 10)), 64)
    assert list(zip(numeric.lower, numeric.upper, strict=True)) == [(0, 1), (1, 5), (5, 10), (10, 10)]
    integer = make_grid(Column("x", "integer", 0, 10, edges=(0, 1.5, 5, 10), point_masses=(7,)), 64)
    assert list(zip(integer.lower, integer.upper, strict=True)) == [(0, 2), (2, 5), (5, 7), (7, 8), (8, 11)]


def test_a_column_without_bounds_is_refused():
    with pytest.raises(UserError, match=r"column 'x' has no public bounds"):
        make_grid(Column("x", "numeric", lower=0), 8)


# ---- discretizer


def private_frame(num_rows=2000, seed=0):
    """Conforms to SCHEMA; `gain` is zero for 92 % of the rows."""
    rng = np.random.default_rng(seed)

    def some_missing(values, dtype):
        return pd.Series(np.where(rng.random(num_rows) < 0.1, None, values), dtype=dtype)

    days = pd.to_timedelta(rng.integers(0, 22_000, num_rows), unit="D")
    seconds = pd.to_timedelta(rng.integers(0, 366 * 86_400, num_rows), unit="s")
    seen = pd.Series(pd.Timestamp("2020-01-01") + seconds)
    return pd.DataFrame(
        {
            "gain": np.where(rng.random(num_rows) < 0.92, 0.0, rng.uniform(-100, 1000, num_rows)),
            "age": rng.integers(-3, 91, num_rows),
            "children": some_missing(rng.integers(0, 10, num_rows), "Int64"),
            "born": pd.Series(pd.Timestamp("1950-01-01") + days).astype("datetime64[us]"),
            "seen": seen.mask(rng.random(num_rows) < 0.1).astype("datetime64[us]"),
            "sex": pd.Series(rng.choice(["f", "m"], num_rows), dtype=object),
            "grade": some_missing(rng.integers(1, 4, num_rows), object),
            "smoker": some_missing(rng.random(num_rows) < 0.3, "boolean"),
            "member": rng.random(num_rows) < 0.5,
            "person": np.arange(num_rows),
        }
    )


@pytest.fixture(scope="module")
def purchased():
    frame = private_frame()
    transform, event = fit_purchased(SCHEMA, frame, num_bins=16, num_cells=64, noise_multiplier=2.0, noise=HostNoise(3))
    assert event == {"kind": "gaussian", "noise_multiplier": 2.0, "count": 1}
    return transform, frame


@pytest.mark.parametrize("way", ["public", "purchased"])
def test_codes_survive_decoding_and_the_frame_conforms(way, purchased):
    transform = purchased[0] if way == "purchased" else fit_public(SCHEMA, num_bins=16)
    rng = np.random.default_rng(1)
    codes = np.stack([rng.integers(0, size, 3000) for size in transform.cardinalities], axis=1).astype(np.int32)
    decoded = transform.decode(codes, rng)
    encoded = transform.encode(decoded)
    np.testing.assert_array_equal(encoded, codes)
    assert encoded.dtype == np.int32
    assert tuple(decoded.columns) == SCHEMA.names
    for column in SCHEMA.modelled:
        assert str(decoded[column.name].dtype) == CANONICAL.get((column.kind, column.nullable), "object")
    assert decoded["person"].tolist() == list(range(1, 3001))
    conforming, clamped = conform(decoded, SCHEMA, out_of_bounds="error", source="it")
    pd.testing.assert_frame_equal(conforming, decoded)
    assert not clamped


def test_a_spike_stays_a_spike(purchased):
    transform, frame = purchased
    decoded = transform.decode(transform.encode(frame), np.random.default_rng(0))
    share, wanted = (decoded["gain"] == 0).mean(), (frame["gain"] == 0).mean()
    cells_of_zero = transform.bin_of_cell[0] == transform.encode(frame[:1].assign(gain=0.0))[0, 0]
    assert transform.cell_weights[0][cells_of_zero].max() == 1.0  # no other value is drawn from this bin
    # Records in cells just below zero whose noisy counts came out as nothing may join it: here under 1 %.
    assert 0 <= share - wanted < 0.01


def test_bins_aim_at_equal_shares_and_weights_follow_counts():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.beta(1, 4, 20_000), "other": rng.random(20_000) < 0.5})
    schema = one_column(Column("x", "numeric", lower=0, upper=1))
    transform, _ = fit_purchased(schema, frame, num_bins=8, num_cells=200, noise_multiplier=0.0, noise=HostNoise(0))
    codes = transform.encode(frame)
    shares = np.bincount(codes[:, 0]) / len(frame)
    assert len(shares) == pytest.approx(8, abs=1)
    assert shares[:-1].min() >= 1 / 8 and shares.max() < 1 / 8 + 0.03  # overshoot: less than one cell
    decoded = transform.decode(codes, rng)["x"]
    standard_error = 0.5 / np.sqrt(len(frame))
    for value in np.quantile(frame["x"], np.linspace(0.02, 0.98, 25)):
        assert abs((decoded <= value).mean() - (frame["x"] <= value).mean()) < 5 * standard_error


@quick
@given(st.lists(st.sampled_from([0, 0, 1, 3, 10, 200]), min_size=30, max_size=30).filter(any), st.integers(2, 12))
def test_heavy_cells_stand_alone_and_light_neighbours_join(wanted, num_bins):
    schema = one_column(Column("x", "integer", lower=1, upper=30, nullable=True))
    frame = pd.DataFrame({"x": pd.array([1] * 100, "Int64"), "other": [True] * 100})
    wanted = np.array([*wanted, 7.0])
    total = wanted.sum()
    other = np.array([0.0, total])
    noise = FixedNoise([wanted - np.array([100] + [0] * 30), other - [0, 100]])
    transform, _ = fit_purchased(schema, frame, num_bins=num_bins, num_cells=30, noise_multiplier=1.0, noise=noise)
    bins, target = transform.bin_of_cell[0], bin_mass(wanted, np.sqrt(2), num_bins)  # of two columns
    assert bins[0] == 0 and np.isin(np.diff(bins), (0, 1)).all() and bins[-1] > bins[-2]  # in order; missing apart
    assert transform.one_way is not None
    np.testing.assert_allclose(transform.one_way.counts[0], np.bincount(bins, wanted))
    for code in range(bins.max()):
        members = wanted[bins == code]
        if members.max() >= target:
            assert np.count_nonzero(members) == 1  # others in its bin are never drawn
        else:
            assert members.sum() < 2 * target
            followed_by_heavy = code + 1 == bins.max() or wanted[bins == code + 1].max() >= target
            assert members.sum() >= target or followed_by_heavy
        weights = transform.cell_weights[0][bins == code]
        np.testing.assert_allclose(weights, members / members.sum() if members.sum() else 1 / len(members))


@quick
@given(
    st.lists(st.integers(0, 1000), min_size=2, max_size=60).filter(any).map(np.array),
    st.floats(0, 1000),
    st.integers(2, 64),
)
def test_bins_hold_an_even_share_of_what_is_spread_and_stand_out_of_the_noise(counts, stddev, num_bins):
    mass, even = bin_mass(counts, stddev, num_bins), counts.sum() / num_bins
    spread = counts[counts < even].sum()
    assert spread / num_bins <= mass <= even
    assert mass in (spread / num_bins, even) or mass == 8 * stddev
    if 8 * stddev >= even:
        assert mass == even


@pytest.mark.parametrize(("noise_multiplier", "fewest", "most"), [(0.0, 16, 20), (20.0, 9, 15), (200.0, 2, 4)])
def test_a_point_mass_leaves_the_other_values_bins(noise_multiplier, fewest, most):
    rng = np.random.default_rng(0)
    gain = np.where(rng.random(40_000) < 0.9, 0.0, rng.uniform(0, 1, 40_000))
    schema = one_column(Column("x", "numeric", lower=0, upper=1, point_masses=(0.0,)))
    frame = pd.DataFrame({"x": gain, "other": rng.random(40_000) < 0.5})
    transform, _ = fit_purchased(
        schema, frame, num_bins=16, num_cells=200, noise_multiplier=noise_multiplier, noise=HostNoise(0)
    )
    assert fewest <= transform.cardinalities[0] - 1 <= most  # bins beside the point mass


def test_the_transform_depends_on_records_through_released_counts_only():
    first, second = private_frame(seed=1), private_frame(seed=2)
    grids = tuple(make_grid(column, 64) for column in SCHEMA.modelled)

    def counts(frame):
        cells = encode_cells(grids, frame)
        return [np.bincount(cells[:, j], minlength=grid.size).astype(float) for j, grid in enumerate(grids)]

    base = [np.random.default_rng(0).normal(0, 5, grid.size).round() for grid in grids]
    released = [count + noise for count, noise in zip(counts(first), base, strict=True)]
    other = [value - count for value, count in zip(released, counts(second), strict=True)]
    transforms = [
        fit_purchased(SCHEMA, frame, num_bins=16, num_cells=64, noise_multiplier=1.0, noise=FixedNoise(draws))[0]
        for frame, draws in ((first, base), (second, other))
    ]
    assert transforms[0].to_dict() == transforms[1].to_dict()
    for one, two in zip(transforms[0].one_way, transforms[1].one_way, strict=True):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)


def test_released_counts_are_counts_and_their_noise_is_stated(purchased):
    transform, frame = purchased
    codes = transform.encode(frame)
    counts, stddev = transform.one_way
    totals = [values.sum() for values in counts]
    np.testing.assert_allclose(totals, totals[0])
    for j, size in enumerate(transform.cardinalities):
        assert counts[j].shape == stddev[j].shape == (size,) and counts[j].min() >= 0
        cells = np.bincount(transform.bin_of_cell[j])
        np.testing.assert_allclose(stddev[j], 2.0 * np.sqrt(9 * cells))  # sensitivity sqrt(9 columns)
        assert np.abs(counts[j] - np.bincount(codes[:, j], minlength=size)).max() < 8 * stddev[j].max()


def test_a_transform_survives_json(purchased):
    transform, frame = purchased
    again = Discretizer.from_dict(json.loads(json.dumps(transform.to_dict(), allow_nan=False)))
    codes = transform.encode(frame)
    np.testing.assert_array_equal(again.encode(frame), codes)
    left, right = (which.decode(codes, np.random.default_rng(5)) for which in (transform, again))
    pd.testing.assert_frame_equal(left, right)
    assert again.schema == transform.schema and again.cardinalities == transform.cardinalities


def test_public_bins_read_no_record():
    assert list(inspect.signature(fit_public).parameters) == ["schema", "num_bins", "most_categories"]
    transform = fit_public(SCHEMA, num_bins=4)
    assert transform.one_way is None
    given = Column("gain", "numeric", lower=-100, upper=1000, edges=(-100, 10, 1000))
    edged = dataclasses.replace(SCHEMA, columns=(given, *SCHEMA.columns[1:]))
    assert fit_public(edged, num_bins=4).cardinalities[0] == 3


def test_given_edges_are_not_merged():
    frame = private_frame()
    given = Column("gain", "numeric", lower=-100, upper=1000, edges=(-100, 10, 20, 30, 1000))
    schema = dataclasses.replace(SCHEMA, columns=(given, *SCHEMA.columns[1:]))
    transform, _ = fit_purchased(schema, frame, num_bins=2, num_cells=64, noise_multiplier=1.0, noise=HostNoise(0))
    assert transform.bin_of_cell[0].tolist() == [0, 1, 2, 3, 4]


def test_bought_categories_fill_the_schema_and_rare_values_become_missing():
    values = ["often"] * 900 + ["less"] * 500 + ["once", "twice", "twice"]
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object), "other": [True] * len(values)})
    schema = one_column(Column("x", "categorical"))
    assert discretize.unknown_columns(schema) == ["x"]
    bought, events = discretize.buy_categories(schema, frame, noise_multiplier=3.0, delta=1e-6, noise=HostNoise(0))
    assert bought["x"].categories == ("less", "often") and bought["x"].nullable
    assert bought["other"] == schema["other"] and discretize.unknown_columns(bought) == []
    assert [event["kind"] for event in events] == ["gaussian", "approximate"]
    codes = fit_public(bought, num_bins=4).encode(frame)[:, 0]
    assert codes.tolist() == [1] * 900 + [0] * 500 + [2] * 3


def test_categories_too_rare_to_buy_are_an_error_after_their_charge():
    frame = pd.DataFrame({"x": pd.Series([f"v{i % 50}" for i in range(100)], dtype=object), "other": [True] * 100})
    schema = dataclasses.replace(one_column(Column("x", "categorical")), num_records=100)
    settings = settings_from_dict({"training": {"expected_batch_size": 10, "num_steps": 5}})
    ledger = Ledger()
    with pytest.raises(UserError, match=r"no value of column 'x' is frequent enough"):
        fit_transform(Private(frame), schema, make_plan(settings, schema), settings, ledger, HostNoise(0))
    assert [entry.name for entry in ledger.entries] == ["categories held by one record", "categories"]
