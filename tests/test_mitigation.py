"""Equal outcomes over groups: properties on any table, and what the mitigation may not touch."""

import inspect
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.synthesis import mitigation
from privsyn_jax.synthesis.mitigation import equalize, reweight
from privsyn_jax.types import Column, Schema, UserError

SCHEMA = Schema(
    columns=(
        Column("id", "id"),
        Column("sex", "categorical", categories=("f", "m"), nullable=True),
        Column("age", "integer", 0, 99),
        Column("hired", "boolean", nullable=True),
        Column("grade", "ordinal", categories=(1, 2, 3)),
        Column("wage", "numeric", 0, 100),
        Column("day", "datetime", "2020-01-01", "2021-01-01"),
    ),
    num_records=1000,
    target="hired",
    sensitive=("sex",),
)


def table(num_rows, seed, rates=(0.2, 0.6)):
    rng = np.random.default_rng(seed)
    is_male = rng.random(num_rows) < 0.4
    hired = rng.random(num_rows) < np.where(is_male, rates[1], rates[0])
    return pd.DataFrame(
        {
            "id": np.arange(num_rows),
            "sex": np.where(is_male, "m", "f").astype(object),
            "age": rng.integers(0, 100, num_rows),
            "hired": pd.array(hired, dtype="boolean"),
            "grade": np.array([1, 2, 3], object)[rng.integers(0, 3, num_rows)],
            "wage": rng.uniform(0, 100, num_rows),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 366, num_rows), "D"),
        }
    )


def sampler(num_rows, conditions):
    """A generator that keeps its conditions, by drawing until it has enough."""
    pool = table(200 * num_rows + 2000, 77)
    for name, wanted in conditions.items():
        if isinstance(wanted, dict):
            pool = pool[(pool[name] >= wanted["min"]) & (pool[name] <= wanted["max"])]
        else:
            pool = pool[pool[name] == wanted]
    return pool.iloc[:num_rows].reset_index(drop=True)


def group_rates(frame, column="sex", outcome="hired"):
    return frame.groupby(column)[outcome].mean().astype(float)


@pytest.mark.parametrize("sample", [None, sampler])
def test_every_group_has_the_rate_of_the_whole_table_up_to_one_record(sample):
    before = table(2000, 0)
    after, report = equalize(SCHEMA, before, sensitive="sex", seed=0, sample=sample)
    target = float(before["hired"].mean())
    sizes = before["sex"].value_counts()
    assert abs(group_rates(before)["m"] - group_rates(before)["f"]) > 0.3
    for group, rate in group_rates(after).items():
        assert abs(rate - target) < 1 / sizes[group]
    pd.testing.assert_series_equal(after["sex"].value_counts(), sizes)
    pd.testing.assert_series_equal(after.dtypes, before.dtypes)
    np.testing.assert_array_equal(after["id"], np.arange(1, 2001))
    assert report["target_rates"][1] == pytest.approx(target)
    added = report["rows_drawn"] + report["rows_repeated"]
    assert added == report["rows_dropped"] > 100 and (report["rows_drawn"] > 0) == (sample is not None)
    assert report["left_out"] == report["notes"] == []
    json.dumps(report, allow_nan=False)


def test_what_is_not_dropped_stays_and_what_is_repeated_was_there():
    before = table(500, 1)
    after, report = equalize(SCHEMA, before, sensitive="sex", seed=0)
    others = [name for name in before.columns if name != "id"]
    left, right = (pd.MultiIndex.from_frame(frame[others].astype(str)) for frame in (before, after))
    assert set(right) <= set(left)
    assert len(set(left) - set(right)) == report["rows_dropped"]
    again, _ = equalize(SCHEMA, before, sensitive="sex", seed=0)
    other, _ = equalize(SCHEMA, before, sensitive="sex", seed=1)
    pd.testing.assert_frame_equal(after, again)
    assert not after.equals(other)


def test_drawn_records_are_new_ones_of_the_missing_kind():
    before = table(500, 1)
    after, report = equalize(SCHEMA, before, sensitive="sex", seed=0, sample=sampler)
    old = set(before["wage"])
    new = after[[wage not in old for wage in after["wage"]]]
    assert len(new) == report["rows_drawn"]
    # Women were hired too rarely and men too often: that is what is drawn.
    assert set(zip(new["sex"], new["hired"], strict=True)) == {("f", True), ("m", False)}


@st.composite
def any_table(draw):
    """Small tables with missing values, empty cells and groups of any size."""
    size = draw(st.integers(1, 40))
    sexes = draw(st.lists(st.sampled_from(["f", "m", None, "unknown"]), min_size=size, max_size=size))
    grades = draw(st.lists(st.sampled_from([1, 2, 3, None]), min_size=size, max_size=size))
    return pd.DataFrame({"sex": pd.Series(sexes, dtype=object), "grade": pd.Series(grades, dtype=object)})


@settings(deadline=None, max_examples=150)
@given(any_table())
def test_any_table_is_equalised_up_to_rounding_or_refused(frame):
    is_assigned = frame["sex"].isin(["f", "m"]) & frame["grade"].notna()
    if not is_assigned.any():
        with pytest.raises(UserError, match="no synthetic record has both"):
            equalize(SCHEMA, frame, sensitive="sex", outcome="grade", seed=0)
        return
    after, report = equalize(SCHEMA, frame, sensitive="sex", outcome="grade", seed=0)
    json.dumps(report, allow_nan=False)
    assert len(after) == len(frame) and report["rows_unassigned"] == (~is_assigned).sum()
    assert sum(map(sum, report["after"]["counts"])) == is_assigned.sum()
    for group, before_counts, counts in zip(
        report["groups"], report["before"]["counts"], report["after"]["counts"], strict=True
    ):
        assert sum(counts) == sum(before_counts)
        if group in report["left_out"]:
            assert counts == before_counts
        else:
            assert all(abs(n - sum(counts) * p) < 1 for n, p in zip(counts, report["target_rates"], strict=True))
    weights, weighted = reweight(SCHEMA, frame, sensitive="sex", outcome="grade")
    assert np.all(weights > 0) and np.all(weights[~is_assigned] == 1)
    for group, rates in zip(weighted["groups"], weighted["after"]["rates"], strict=True):
        if rates is not None and group not in weighted["left_out"]:
            assert rates == pytest.approx(weighted["target_rates"])
            chosen = (is_assigned & (frame["sex"] == group)).to_numpy()
            shares = [
                weights[chosen & (frame["grade"] == g).to_numpy()].sum() / weights[chosen].sum() for g in (1, 2, 3)
            ]
            assert shares == pytest.approx(weighted["target_rates"])


def test_weights_are_one_where_outcomes_are_equal_already_and_cost_precision_elsewhere():
    balanced = pd.DataFrame({"sex": ["f", "f", "m", "m"] * 5, "hired": pd.array([True, False] * 10, "boolean")})
    weights, report = reweight(SCHEMA, balanced, sensitive="sex")
    np.testing.assert_allclose(weights, 1.0)
    assert report["effective_rows"] == pytest.approx(20)
    weights, report = reweight(SCHEMA, table(2000, 0), sensitive="sex")
    assert weights.mean() == pytest.approx(1) and report["effective_rows"] < 1950


def test_groups_of_two_columns_and_of_public_bins():
    after, report = equalize(SCHEMA, table(4000, 3), sensitive=("sex", "age"), seed=0, sample=sampler)
    assert report["groups"][0] == "f, 0 to 24" and len(report["groups"]) == 8
    rates = [rate[1] for rate in report["after"]["rates"]]
    assert max(rates) - min(rates) < 2 / min(sum(counts) for counts in report["after"]["counts"])
    by_age = after.groupby(after["age"] // 25)["hired"].mean()
    assert float(by_age.max() - by_age.min()) < 0.01


def test_a_numeric_outcome_is_equalised_by_public_bins():
    before = table(2000, 4)
    before.loc[before["sex"] == "m", "wage"] /= 2
    _, report = equalize(SCHEMA, before, sensitive="sex", outcome="wage", seed=0)
    female, male = report["before"]["rates"]
    assert female[3] > 0.2 and male[3] < 0.01  # men earn nothing in the top bin
    assert report["left_out"] == ["m"]
    _, report = equalize(SCHEMA, before, sensitive="sex", outcome="wage", seed=0, sample=sampler)
    female, male = report["after"]["rates"]
    assert report["left_out"] == [] and np.abs(np.subtract(female, male)).max() < 0.002


def test_a_sampler_that_cannot_is_noted_and_one_that_errs_is_refused():
    def cannot(num_rows, conditions):
        raise UserError("only 3 of 4096 drawn rows meet the condition: widen it")

    _, report = equalize(SCHEMA, table(500, 1), sensitive="sex", seed=0, sample=cannot)
    assert report["rows_drawn"] == 0 < report["rows_repeated"]
    assert len(report["notes"]) == 2 and "repeated instead of drawn" in report["notes"][0]
    with pytest.raises(UserError, match="not all meet"):
        equalize(SCHEMA, table(500, 1), sensitive="sex", seed=0, sample=lambda num_rows, conditions: table(num_rows, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sensitive": "race"}, "no column 'race'"),
        ({"sensitive": "hired"}, "give different columns"),
        ({"sensitive": ()}, "at least one"),
        ({"sensitive": "day"}, "of kind datetime"),
        ({"sensitive": "id"}, "of kind id"),
    ],
)
def test_columns_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        equalize(SCHEMA, table(50, 0), seed=0, **arguments)


def test_there_is_no_argument_for_real_records_and_the_table_given_stays_as_it_is():
    for function in (equalize, reweight):
        assert set(inspect.signature(function).parameters) <= {
            "schema",
            "table",
            "sensitive",
            "seed",
            "outcome",
            "sample",
        }
    assert "evaluation" not in "".join(line for line in inspect.getsource(mitigation).splitlines() if "import" in line)
    frame = table(300, 5)
    copy = frame.copy()
    equalize(SCHEMA, frame, sensitive="sex", seed=0)
    pd.testing.assert_frame_equal(frame, copy)
