"""Sampling under conditions: what is fixed, what is drawn again, what is refused. A stub stands for the generator."""

import datetime

import jax
import numpy as np
import pandas as pd
import pytest

from privsyn_jax.synthesis import sampler
from privsyn_jax.synthesis.sampler import synthesize
from privsyn_jax.transforms.discretize import fit_public
from privsyn_jax.types import Column, Generator, Schema, UserError

SCHEMA = Schema(
    columns=(
        Column("person", "id"),
        Column("sex", "categorical", categories=("f", "m")),
        Column("grade", "ordinal", categories=(1, 2, 3), nullable=True),
        Column("smoker", "boolean", categories=("no", "yes"), nullable=True),
        Column("age", "integer", lower=0, upper=90, nullable=True),
        Column("height", "numeric", lower=0.5, upper=2.5),
        Column("born", "datetime", lower="1950-01-01", upper="2010-12-31", datetime_format="%d/%m/%Y"),
        Column("seen", "datetime", lower="2020-01-01T00:00:00", upper="2020-12-31T23:59:59", nullable=True),
        Column("other_id", "id"),
    ),
    num_records=1000,
)
TRANSFORM = fit_public(SCHEMA, num_bins=12)
KEY = jax.random.key(7)


class Stub:
    """A generator of uniform codes that can fix the first of its columns; remembers what it was asked."""

    def __init__(self):
        self.sizes, self.fixed, self.codes = [], [], []

    def sample(self, params, key, num_samples, conditions):
        del params
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        sizes = np.array(TRANSFORM.cardinalities)
        codes = np.floor(rng.random((num_samples, len(sizes))) * sizes).astype(np.int32)
        for column, code in conditions.items():
            codes[:, column] = code
        self.sizes.append(num_samples)
        self.fixed.append(dict(conditions))
        self.codes.append(codes)
        return codes

    def generator(self):
        def exact(columns):
            return (0,) if 0 in columns else ()

        return Generator(lambda key: {}, None, None, None, self.sample, exact)


def draw(num_samples, conditions, stub=None):
    generator = (stub or Stub()).generator()
    return synthesize(generator, {}, TRANSFORM, num_samples=num_samples, conditions=conditions, key=KEY)


def test_without_conditions_one_draw_gives_the_rows():
    stub = Stub()
    result = draw(300, None, stub)
    assert stub.sizes == [300] and (result.drawn, result.accepted) == (300, 300)
    assert result.exact == result.rejected_on == ()
    assert tuple(result.records.columns) == SCHEMA.names
    assert result.records["person"].tolist() == result.records["other_id"].tolist() == list(range(1, 301))
    pd.testing.assert_frame_equal(result.records, draw(300, {}).records)


@pytest.mark.parametrize(
    ("conditions", "meets"),
    [
        ({"grade": 2}, lambda frame: frame["grade"] == 2),
        ({"grade": "3"}, lambda frame: frame["grade"] == 3),
        ({"grade": [1, 3]}, lambda frame: frame["grade"].isin([1, 3])),
        ({"sex": ["m", "f"]}, lambda frame: frame["sex"].isin(["f", "m"])),
        ({"smoker": "yes"}, lambda frame: frame["smoker"]),
        ({"smoker": False}, lambda frame: ~frame["smoker"]),
        ({"smoker": ["no", True]}, lambda frame: frame["smoker"].notna()),
        ({"age": {"min": 80}}, lambda frame: frame["age"] >= 80),
        ({"age": {"min": 20, "max": 30}}, lambda frame: frame["age"].between(20, 30)),
        ({"age": {"max": "0"}}, lambda frame: frame["age"] == 0),
        ({"age": 90}, lambda frame: frame["age"] == 90),
        ({"age": [5, 90.0, 500]}, lambda frame: frame["age"].isin([5, 90])),
        ({"height": {"min": 2.25}}, lambda frame: frame["height"] >= 2.25),
        ({"born": {"min": "2005-02-01"}}, lambda frame: frame["born"] >= "2005-02-01"),
        ({"born": {"max": "02/01/1960"}}, lambda frame: frame["born"] <= "1960-01-02"),  # as its file writes it
        ({"seen": {"min": datetime.datetime(2020, 12, 1)}}, lambda frame: frame["seen"] >= "2020-12-01"),
        ({"seen": {"max": "2020-01-31T02:00:00+02:00"}}, lambda frame: frame["seen"] <= "2020-01-31"),
        ({"seen": ["2020-01-01", "2020-12-31T23:59:59"]}, lambda frame: frame["seen"].dt.minute.isin([0, 59])),
        ({"grade": 1, "age": {"min": 45}}, lambda frame: (frame["grade"] == 1) & (frame["age"] >= 45)),
    ],
)
def test_conditions_that_are_not_exact_are_met_by_drawing_again(conditions, meets):
    result = draw(200, conditions)
    assert len(result.records) == 200 and meets(result.records).all()
    assert result.exact == () and set(result.rejected_on) == set(conditions)
    assert result.records["person"].tolist() == list(range(1, 201))
    assert result.records.index.tolist() == list(range(200))
    pd.testing.assert_series_equal(result.records.dtypes, draw(10, None).records.dtypes)


def test_what_the_generator_can_fix_is_fixed_and_nothing_is_thrown_away():
    stub = Stub()
    result = draw(150, {"sex": "m"}, stub)
    assert stub.fixed == [{0: 1}] and stub.sizes == [150]
    assert (result.records["sex"] == "m").all()
    assert (result.exact, result.rejected_on, result.drawn, result.accepted) == (("sex",), (), 150, 150)


def test_acceptance_is_counted_over_all_rounds():
    stub = Stub()
    result = draw(3000, {"sex": "f", "grade": 3}, stub)
    assert result.exact == ("sex",) and result.rejected_on == ("grade",)
    assert len(stub.sizes) > 1 and all(fixed == {0: 0} for fixed in stub.fixed)
    assert result.drawn == sum(stub.sizes)
    assert result.accepted == sum((codes[:, 1] == 2).sum() for codes in stub.codes) >= 3000
    assert len({codes[:10].tobytes() for codes in stub.codes}) == len(stub.codes)  # no round repeats another


def test_rejection_keeps_the_distribution_of_the_other_columns():
    ages = draw(20_000, {"grade": 1}).records["age"].to_numpy(float, na_value=-1)
    everyone = draw(20_000, None).records["age"].to_numpy(float, na_value=-1)
    for age in (-1, 0, 45, 90):
        assert abs((ages <= age).mean() - (everyone <= age).mean()) < 5 * np.sqrt(0.5 / 20_000)


def test_a_sample_is_a_function_of_its_key():
    pd.testing.assert_frame_equal(draw(100, {"age": {"min": 50}}).records, draw(100, {"age": {"min": 50}}).records)
    other = synthesize(
        Stub().generator(), {}, TRANSFORM, num_samples=100, conditions={"age": {"min": 50}}, key=jax.random.key(8)
    )
    assert not other.records.equals(draw(100, {"age": {"min": 50}}).records)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"weight": 3}, r"column 'weight', which the generator does not have: use one of sex, grade, smoker"),
        ({"person": 3}, r"column 'person', which the generator does not have"),
        ({"sex": "x"}, r"column 'sex' asks for 'x', which is not a category: use one of f, m"),
        ({"sex": None}, r"column 'sex' asks for None"),
        ({"sex": ["f", "x"]}, r"column 'sex' asks for 'x'"),
        ({"sex": []}, r"column 'sex' asks for \[\], which no record can meet"),
        ({"sex": {"min": 1}}, r"column 'sex' is \{'min': 1\}: give a value, a list"),
        ({"age": {}}, r"column 'age' is \{\}: give"),
        ({"age": {"low": 3}}, r"column 'age' is \{'low': 3\}: give"),
        ({"age": "old"}, r"column 'age' asks for 'old', which is not of kind integer"),
        ({"age": None}, r"column 'age' asks for None"),
        ({"age": {"min": 91}}, r"column 'age' asks for \{'min': 91\}, which no record can meet between 0 and 90"),
        ({"age": {"min": 50, "max": 40}}, r"column 'age' asks for .* which no record can meet"),
        ({"age": [-1, 200]}, r"column 'age' asks for \[-1, 200\], which no record can meet"),
        ({"born": {"max": "1949-12-31"}}, r"column 'born' asks for .* between 1950-01-01 and 2010-12-31"),
        ({"born": "someday"}, r"column 'born' asks for 'someday', which is not of kind datetime"),
    ],
)
def test_impossible_conditions_are_refused_before_drawing(conditions, message):
    stub = Stub()
    with pytest.raises(UserError, match=message) as caught:
        draw(10, conditions, stub)
    assert stub.sizes == []
    assert "\n" not in str(caught.value)


def test_a_condition_that_no_drawn_row_meets_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(sampler, "_MAX_ROUNDS", 3)
    stub = Stub()
    with pytest.raises(UserError, match=r"only 0 of \d+ drawn rows meet the condition on height, 10 were asked"):
        draw(10, {"sex": "f", "height": 1.2345}, stub)
    assert len(stub.sizes) == 3
