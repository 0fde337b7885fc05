"""Fairness measures against brute force and scikit-learn, and tables whose bias is known."""

import itertools
import json
import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.evaluation import evaluate, group_measures
from privsyn_jax.evaluation.encode import Tables, encode_table, make_levels
from privsyn_jax.evaluation.fairness import MIN_RECORDS, fairness_of, mitigation_cost
from privsyn_jax.evaluation.utility import utility_of
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.synthesis.groups import NO_GROUP, group_codes, make_groups
from privsyn_jax.types import Column, Schema, UserError

QUICK = EvaluationSettings(num_seeds=0)


# --- measures


@st.composite
def judged(draw):
    """(labels, decisions, groups) of up to 40 records, three groups and two or three classes."""
    num_classes, size = draw(st.integers(2, 3)), draw(st.integers(0, 40))
    classes = st.lists(st.integers(0, num_classes - 1), min_size=size, max_size=size)
    groups = draw(st.lists(st.integers(-1, 2), min_size=size, max_size=size))
    return np.array(draw(classes), int), np.array(draw(classes), int), np.array(groups, int), num_classes


def rate(decisions, wanted, chosen):
    """Share of `wanted` among the chosen records, by counting."""
    found = [decision == wanted for decision, is_in in zip(decisions, chosen, strict=True) if is_in]
    return sum(found) / len(found) if found else None


def brute_gap(rates):
    """Largest difference of any two groups that have a rate."""
    defined = [one for one in rates if one is not None]
    return max(abs(a - b) for a, b in itertools.product(defined, defined)) if len(defined) >= 2 else -1.0


@settings(deadline=None)
@given(judged())
def test_parity_and_odds_are_those_of_counting(given_records):
    labels, decisions, groups, num_classes = given_records
    classes = range(num_classes)
    parity = max(brute_gap([rate(decisions, k, groups == g) for g in range(3)]) for k in classes)
    odds = max(
        brute_gap([rate(decisions, k, (groups == g) & (labels == j)) for g in range(3)])
        for j, k in itertools.product(classes, classes)
    )
    found = group_measures.demographic_parity_difference(decisions, groups, 3, num_classes)
    assert math.isnan(found) if parity < 0 else found == pytest.approx(parity)
    found = group_measures.equalized_odds_difference(labels, decisions, groups, 3, num_classes)
    assert math.isnan(found) if odds < 0 else found == pytest.approx(odds)


def test_two_classes_give_the_gaps_in_true_and_false_positive_rates():
    rng = np.random.default_rng(0)
    labels, decisions, groups = (rng.integers(0, 2, 300) for _ in range(3))
    tpr, fpr = (
        [sklearn.metrics.recall_score(labels[groups == g], decisions[groups == g], pos_label=1) for g in (0, 1)],
        [1 - sklearn.metrics.recall_score(labels[groups == g], decisions[groups == g], pos_label=0) for g in (0, 1)],
    )
    expected = max(abs(np.diff(tpr)[0]), abs(np.diff(fpr)[0]))
    assert group_measures.equalized_odds_difference(labels, decisions, groups, 2, 2) == pytest.approx(expected)
    assert group_measures.equalized_odds_difference(labels, labels, groups, 2, 2) == 0.0


def test_a_class_with_few_records_in_a_group_is_left_out():
    labels, decisions, groups = np.array([0] * 20 + [1] * 12), np.array([0] * 20 + [1] * 11 + [0]), np.zeros(32, int)
    groups[10:20] = groups[-1] = 1  # the second group has one record of class 1, which is missed
    assert group_measures.equalized_odds_difference(labels, decisions, groups, 2, 2) == 1.0
    assert group_measures.equalized_odds_difference(labels, decisions, groups, 2, 2, least_records=10) == 0.0


@pytest.mark.parametrize("num_classes", [2, 3])
def test_calibration_error_is_that_of_a_loop(num_classes):
    rng = np.random.default_rng(num_classes)
    probabilities = rng.dirichlet(np.ones(num_classes), 300)
    labels = rng.integers(0, num_classes, 300)
    errors = []
    for k in [1] if num_classes == 2 else range(num_classes):
        bins = np.minimum(np.floor(probabilities[:, k] * 10), 9)
        errors.append(
            sum(
                np.mean(bins == b) * abs(probabilities[bins == b, k].mean() - np.mean(labels[bins == b] == k))
                for b in np.unique(bins)
            )
        )
    assert group_measures.calibration_error(labels, probabilities) == pytest.approx(np.mean(errors))


def test_honest_probabilities_are_calibrated_and_bold_ones_are_not():
    rng = np.random.default_rng(0)
    honest = rng.random(20_000)
    labels = (rng.random(20_000) < honest).astype(int)
    # Each of ten bins of 2,000 records is off by the standard error of its share, at most 0.011.
    assert group_measures.calibration_error(labels, np.stack([1 - honest, honest], axis=1)) < 0.02
    bold = np.round(honest)
    assert group_measures.calibration_error(labels, np.stack([1 - bold, bold], axis=1)) > 0.2
    assert math.isnan(group_measures.calibration_error(labels[:0], np.zeros((0, 2))))


# --- groups


@pytest.mark.parametrize(
    ("column", "values", "codes", "names"),
    [
        (Column("c", "categorical", categories=("a", "b")), ["b", "a", "z", None], [1, 0, -1, -1], ("a", "b")),
        (Column("c", "boolean", nullable=True), [True, None, False], [1, -1, 0], ("False", "True")),
        (Column("n", "integer", 17, 90), [17, 35, 36, 90, 91, None], [0, 0, 1, 3, -1, -1], ("17 to 35", "36 to 53")),
        (Column("x", "numeric", 0, 1, edges=(0, 0.5, 1)), [0, 0.5, 1, np.nan], [0, 1, 1, -1], ("0 to below 0.5",)),
        (Column("x", "numeric", 5, 5), [5.0, 6.0], [0, -1], ("5 to 5",)),
        (Column("n", "integer", 0, 1), [0, 1], [0, 0], ("0 to 1",)),
    ],
)  # fmt: skip
def test_groups_are_the_schemas(column, values, codes, names):
    groups = make_groups(column)
    kind = float if column.kind in ("numeric", "integer") else object
    np.testing.assert_array_equal(group_codes(groups, pd.Series(values, dtype=kind)), codes)
    assert groups.names[: min(2, len(names))] == names[:2] and NO_GROUP == -1


def test_a_number_without_public_bounds_and_a_date_have_no_groups():
    with pytest.raises(UserError, match="'x' is a number without public bounds"):
        make_groups(Column("x", "numeric", lower=0))
    with pytest.raises(UserError, match="of kind datetime"):
        make_groups(Column("t", "datetime", "2020-01-01", "2021-01-01"))
    found = make_groups(Column("c", "categorical"), [pd.Series(["b", "a", None])])
    assert found.names == ("a", "b") and found.described == "the values found"


# --- tables

SCHEMA = Schema(
    columns=(
        Column("sex", "categorical", categories=("f", "m", "x")),
        Column("age", "integer", 0, 99),
        Column("skill", "numeric", -5, 5),
        Column("hired", "boolean"),
    ),
    num_records=1000,
    target="hired",
    sensitive=("sex", "age"),
)


def table(num_rows, seed, bias=1.5):
    """Men are hired more often at equal skill, by `bias` on the logit."""
    rng = np.random.default_rng(seed)
    is_male = rng.random(num_rows) < 0.5
    skill = rng.normal(size=num_rows).clip(-5, 5)
    logit = 1.5 * skill + bias * (is_male - 0.5) + rng.logistic(size=num_rows)
    return pd.DataFrame(
        {
            "sex": np.where(is_male, "m", "f").astype(object),
            "age": rng.integers(0, 100, num_rows),
            "skill": skill,
            "hired": logit > 0,
        }
    )


TRAIN, TEST = table(1500, 0), table(1500, 1)


class Judged(NamedTuple):
    metrics: list
    fairness: dict
    skipped: list


def judge(schema, train, test, synthetic):
    """Utility and fairness without the rest of an evaluation."""
    columns = [column for column in schema.columns if column.name in synthetic.columns]
    frames = Tables(train, test, synthetic)
    all_levels = [make_levels(column, [frame[column.name] for frame in frames]) for column in columns]
    tables = Tables(*(encode_table(all_levels, frame) for frame in frames))
    utility = utility_of(all_levels, tables, target=schema.target, seed=0, settings=QUICK)
    shared = {"sensitive": schema.sensitive, "target": schema.target, "seed": 0}
    rows, details = fairness_of(all_levels, frames, tables, utility.predictions, **shared)
    return Judged(utility.rows.metrics + rows.metrics, details, utility.rows.skipped + rows.skipped)


def rows_of(evaluation, column):
    return {
        row["metric"]: (row["value"], row["reference"])
        for row in evaluation.metrics
        if row["family"] == "fairness" and row["column"] == column
    }


def test_a_table_with_more_bias_than_real_is_found_to_amplify_it():
    evaluation = evaluate(SCHEMA, TRAIN, TEST, table(1500, 2, bias=5.0), seed=0, settings=QUICK)
    json.dumps(evaluation._asdict(), allow_nan=False)
    found, details = rows_of(evaluation, "sex"), evaluation.fairness["sex"]
    for metric in (
        *("outcome_rate_gap", "logistic_regression_demographic_parity_difference"),
        *("logistic_regression_equalized_odds_difference", "boosting_demographic_parity_difference"),
    ):
        value, reference = found[metric]
        assert value > reference + 0.1
        assert details["amplification"][metric] == pytest.approx(value - reference)
    assert details["groups"] == ["f", "m"] and min(details["num_held_out"]) > 600
    counted = TRAIN.groupby("sex")["hired"].mean()
    assert found["outcome_rate_gap"][1] == pytest.approx(abs(counted["m"] - counted["f"]))
    assert [rates[1] for rates in details["outcome_rates"]["reference"]] == pytest.approx(list(counted))
    assert "fairness of sex: fewer than 50 held-out records, not scored: x (0)." in evaluation.skipped


def test_real_records_as_synthetic_ones_amplify_nothing():
    evaluation = judge(SCHEMA, TRAIN, TEST, TRAIN)
    for column in SCHEMA.sensitive:
        assert all(change == 0 for change in evaluation.fairness[column]["amplification"].values())
        assert rows_of(evaluation, column)["worst_group_total_variation"][0] == 0.0
    assert evaluation.fairness["age"]["made_from"] == "4 even bins between the public bounds"
    assert len(evaluation.fairness["age"]["groups"]) == 4


def test_scores_of_a_group_are_those_of_its_records():
    """Accuracy over all records is the mean of the groups' accuracies by their sizes."""
    evaluation = judge(SCHEMA, TRAIN, TEST, table(1500, 2))
    whole = {row["metric"]: row["value"] for row in evaluation.metrics if row["family"] == "utility"}
    for column in SCHEMA.sensitive:
        details = evaluation.fairness[column]
        for model in ("logistic_regression", "boosting", "mlp"):
            accuracies = details["models"][model]["accuracy"]["synthetic"]
            assert np.average(accuracies, weights=details["num_held_out"]) == pytest.approx(whole[f"{model}_accuracy"])
            gap, _ = rows_of(evaluation, column)[f"{model}_accuracy_gap"]
            assert gap == pytest.approx(max(accuracies) - min(accuracies))


def test_fidelity_within_a_group_sees_what_the_whole_table_hides():
    synthetic = table(1500, 2)
    synthetic["skill"] = np.where(synthetic["sex"] == "f", -3.0, synthetic["skill"])
    evaluation = judge(SCHEMA, TRAIN, TEST, synthetic)
    female, male = evaluation.fairness["sex"]["total_variation"]["synthetic"]
    assert female > 0.3 > 0.15 > male
    assert rows_of(evaluation, "sex")["worst_group_total_variation"][0] == female


def test_a_group_that_the_generator_dropped_counts_as_wholly_wrong():
    synthetic = table(1500, 2).assign(sex="m")
    evaluation = judge(SCHEMA, TRAIN, TEST, synthetic)
    assert evaluation.fairness["sex"]["total_variation"]["synthetic"][0] == 1.0
    assert "outcome_rate_gap" not in rows_of(evaluation, "sex")
    assert any("no synthetic record of f, which counts" in sentence for sentence in evaluation.skipped)
    json.dumps(evaluation._asdict(), allow_nan=False)


@pytest.mark.parametrize(
    ("schema", "synthetic", "reason"),
    [
        ({"target": None}, TRAIN, "no classifier was scored"),
        ({"target": "skill"}, TRAIN, "no classifier was scored"),
        ({"target": "sex"}, TRAIN, "it is the target itself"),
        ({}, TRAIN.drop(columns="sex"), "the synthetic table does not have it"),
        ({}, TRAIN.assign(hired=True), "no classifier was scored"),
        ({}, table(10, 3), "fewer than 50 held-out records"),
    ],
)
def test_what_cannot_be_scored_is_named(schema, synthetic, reason):
    schema = Schema(
        **{**{"columns": SCHEMA.columns, "num_records": 9, "target": "hired", "sensitive": ("sex",)}, **schema}
    )
    evaluation = judge(schema, TRAIN.iloc[:200], TEST.iloc[:300], synthetic)
    json.dumps(evaluation._asdict(), allow_nan=False)
    assert any(reason in sentence for sentence in evaluation.skipped)
    for row in evaluation.metrics:
        assert math.isfinite(row["value"]) and math.isfinite(row["reference"])


def test_records_without_a_group_are_counted_and_small_tables_have_no_groups():
    test = TEST.assign(sex=TEST["sex"].where(TEST.index >= 20))
    evaluation = judge(SCHEMA, TRAIN, test, table(1500, 2))
    assert "fairness of sex: 20 held-out records belong to no group and are left out." in evaluation.skipped
    small = judge(SCHEMA, TRAIN, TEST.iloc[:MIN_RECORDS], TRAIN)
    assert small.fairness == {}
    assert "fairness of sex: fewer than two groups can be scored." in small.skipped


def test_a_mitigation_is_priced_in_the_direction_of_each_metric():
    row = {
        "family": "utility",
        "metric": "a",
        "column": None,
        "value": 0.9,
        "reference": 0.95,
        "higher_is_better": True,
    }
    gap = {**row, "family": "fairness", "metric": "gap", "column": "sex", "higher_is_better": False}
    ignored = {**row, "family": "sanity"}
    (first, second) = mitigation_cost(
        [row, gap, ignored, {**row, "metric": "only before"}], [{**row, "value": 0.8}, {**gap, "value": 0.1}, ignored]
    )
    assert first["change"] == pytest.approx(-0.1) and first["is_better"] is False
    assert second["change"] == pytest.approx(-0.8) and second["is_better"] is True
    assert all(entry["is_better"] is None for entry in mitigation_cost([row, gap], [row, gap]))
