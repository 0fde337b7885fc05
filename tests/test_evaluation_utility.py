"""Scores against scikit-learn's, and downstream models on tables with a known answer."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics

from privsyn_jax.evaluation import scores
from privsyn_jax.evaluation import utility as utility_module
from privsyn_jax.evaluation.encode import Tables, encode_table, make_levels
from privsyn_jax.evaluation.significance import against_baseline
from privsyn_jax.evaluation.statistics import holm
from privsyn_jax.evaluation.utility import utility_of
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Column, UserError

CATEGORIES = ("low", "middle", "high")


@pytest.mark.parametrize("num_classes", [2, 4])
def test_classification_scores_equal_scikit_learn(num_classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 400)
    probabilities = rng.dirichlet(np.ones(num_classes), 400) + 0.5 * np.eye(num_classes)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predictions = probabilities.argmax(axis=1)
    is_binary = num_classes == 2
    average = "binary" if is_binary else "macro"
    found = scores.classification_scores(labels, probabilities, num_classes)
    auc_input = probabilities[:, 1] if is_binary else probabilities
    assert found == pytest.approx(
        {
            "accuracy": sklearn.metrics.accuracy_score(labels, predictions),
            "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(labels, predictions),
            "f1": sklearn.metrics.f1_score(labels, predictions, average=average),
            "auc": sklearn.metrics.roc_auc_score(labels, auc_input, multi_class="ovr"),
        }
    )


def test_classification_scores_of_classes_that_do_not_occur():
    labels, never_positive = np.array([0, 0, 2]), np.tile([0.9, 0.1, 0.0], (3, 1))
    found = scores.classification_scores(labels, never_positive, 3)
    assert found == pytest.approx({"accuracy": 2 / 3, "balanced_accuracy": 0.5, "f1": 0.4, "auc": 0.5})
    found = scores.classification_scores(np.zeros(3, int), never_positive[:, :2], 2)
    assert found["accuracy"] == 1.0 and found["f1"] == 0.0 and np.isnan(found["auc"])


def test_regression_scores_equal_scikit_learn():
    rng = np.random.default_rng(1)
    labels, predictions = rng.normal(size=50), rng.normal(size=50)
    expected = {
        "rmse": sklearn.metrics.root_mean_squared_error(labels, predictions),
        "r2": sklearn.metrics.r2_score(labels, predictions),
    }
    assert scores.regression_scores(labels, predictions) == pytest.approx(expected)
    assert np.isnan(scores.regression_scores(np.ones(3), np.zeros(3))["r2"])


def test_a_thinned_curve_keeps_its_ends_and_its_area():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 5000)
    probability = labels + rng.normal(size=5000)
    curve = scores.thinned_roc_curve(labels, probability)
    assert len(curve["fpr"]) <= scores.MAX_CURVE_POINTS
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
    area = sklearn.metrics.auc(curve["fpr"], curve["tpr"])
    assert area == pytest.approx(sklearn.metrics.roc_auc_score(labels, probability), abs=2e-3)


COLUMNS = (
    Column("x", "numeric", -5, 5),
    Column("c", "categorical", categories=CATEGORIES),
    Column("size", "numeric", -100, 100),
    Column("grade", "ordinal", categories=CATEGORIES),
    Column("y", "boolean"),
    Column("day", "datetime", "2020-01-01", "2021-01-01"),
)


def table(num_rows, seed, signal=3.0):
    rng = np.random.default_rng(seed)
    x, c = rng.normal(size=num_rows).clip(-5, 5), rng.integers(0, 3, num_rows)
    logit = signal * (x + c - 1) + rng.logistic(size=num_rows)
    return pd.DataFrame(
        {
            "x": x,
            "c": np.array(CATEGORIES, object)[c],
            "size": (10 * logit).clip(-100, 100),
            "grade": np.array(CATEGORIES, object)[np.digitize(logit, [-2, 2])],
            "y": logit > 0,
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 366, num_rows), "D"),
        }
    )


QUICK = EvaluationSettings(num_seeds=0)


def judge(target, synthetic, *, drop=(), test=None, seed=0, settings=QUICK):
    frames = [table(300, 0), table(200, 1) if test is None else test, synthetic]
    columns = [column for column in COLUMNS if column.name not in drop]
    all_levels = [make_levels(column, [frame[column.name] for frame in frames]) for column in columns]
    tables = Tables(*(encode_table(all_levels, frame) for frame in frames))
    return utility_of(all_levels, tables, target=target, seed=seed, settings=settings)


def utility(target, synthetic, *, drop=(), test=None):
    found = judge(target, synthetic, drop=drop, test=test)
    metrics = {row["metric"]: (row["value"], row["reference"]) for row in found.rows.metrics}
    return metrics, found.curves, found.rows.skipped


def test_a_faithful_table_scores_like_the_real_one_and_an_independent_one_does_not():
    drop = ("size", "grade")
    faithful, curves, skipped = utility("y", table(300, 2), drop=drop)
    assert skipped == []
    for metric in ("logistic_regression_auc", "boosting_auc"):
        value, reference = faithful[metric]
        assert reference > 0.85 and abs(value - reference) < 0.05
    assert faithful["majority_accuracy"][0] < 0.7
    area = sklearn.metrics.auc(**dict(zip("xy", curves["boosting"]["synthetic"].values(), strict=True)))
    assert area == pytest.approx(faithful["boosting_auc"][0], abs=0.01)
    independent, _, _ = utility("y", table(300, 2).assign(y=table(300, 3)["y"]), drop=drop)
    assert independent["logistic_regression_auc"][0] < 0.75


def test_a_target_of_three_classes_has_macro_scores_and_no_curve():
    metrics, curves, skipped = utility("grade", table(300, 2), drop=("size", "y"))
    assert skipped == [] and curves == {}
    assert metrics["boosting_auc"][1] > 0.85 and metrics["logistic_regression_f1"][0] > 0.5


def test_a_numeric_target_is_regressed_in_its_own_unit():
    metrics, curves, skipped = utility("size", table(300, 2), drop=("grade", "y"))
    assert skipped == [] and curves == {}
    assert metrics["ridge_r2"][0] > 0.7
    spread = table(200, 1)["size"].std(ddof=0)
    assert metrics["mean_prediction_rmse"][1] == pytest.approx(spread, rel=0.02)
    assert metrics["ridge_rmse"][0] < 0.6 * spread


def test_the_same_seed_gives_the_same_scores():
    assert utility("y", table(300, 2))[0] == utility("y", table(300, 2))[0]


@pytest.mark.parametrize(
    ("target", "synthetic", "reason"),
    [
        (None, table(50, 2), "names no target"),
        ("day", table(50, 2), "is a datetime"),
        ("y", table(50, 2).assign(y=True), "holds one class only"),
        ("grade", table(50, 2).assign(grade=None), "no synthetic record has a valid target"),
        ("size", table(50, 2).assign(size=np.nan), "no synthetic record has a valid target"),
    ],
)
def test_what_cannot_be_scored_is_named(target, synthetic, reason):
    metrics, curves, skipped = utility(target, synthetic)
    assert not set(metrics) - {"majority_accuracy"} and curves == {}
    assert len(skipped) == 1 and reason in skipped[0]


@pytest.mark.parametrize("target", ["y", "grade", "size"])
@pytest.mark.parametrize("num_rows", [1, 2, 10])
def test_a_few_synthetic_rows_give_scores_or_a_reason(target, num_rows):
    metrics, _, skipped = utility(target, table(num_rows, 4))
    assert all(np.isfinite(pair).all() for pair in metrics.values())
    assert any("auc" in metric or "r2" in metric for metric in metrics) or skipped


def test_rows_without_a_valid_target_are_left_out_and_counted():
    synthetic = table(300, 2)
    synthetic.loc[:9, "grade"] = None
    synthetic.loc[10:14, "grade"] = "unheard of"
    metrics, _, skipped = utility("grade", synthetic)
    assert np.isfinite(metrics["boosting_accuracy"]).all()
    assert skipped == ["utility: 15 synthetic records without a valid grade are left out."]


def test_a_held_out_table_with_one_class_has_accuracy_but_no_auc():
    metrics, curves, skipped = utility("y", table(300, 2), test=table(200, 1).assign(y=True))
    assert "boosting_accuracy" in metrics and "boosting_auc" not in metrics and curves == {}
    assert any("boosting_auc" in sentence and "one class" in sentence for sentence in skipped)


def test_a_class_with_one_record_does_not_stop_early_stopping():
    synthetic = pd.concat([table(400, 2)] * 26, ignore_index=True)  # above 10,000 rows boosting stops early
    synthetic["grade"] = np.where(synthetic["x"] > 0, "low", "middle").astype(object)
    synthetic.loc[0, "grade"] = "high"
    metrics, _, _ = utility("grade", synthetic, drop=("size", "y", "day"))
    assert "boosting_auc" in metrics


# --- seeds


SEEDS = EvaluationSettings(num_seeds=4)
DROP = ("size", "grade", "day")


@pytest.fixture(scope="module")
def faithful():
    return judge("y", table(300, 2), drop=DROP, settings=SEEDS)


@pytest.fixture(scope="module")
def independent():
    return judge("y", table(300, 2).assign(y=table(300, 3)["y"]), drop=DROP, settings=SEEDS)


def of(tests, part, **wanted):
    (found,) = [row for row in tests[part] if all(row[field] == value for field, value in wanted.items())]
    return found


def test_every_score_has_its_mean_and_interval_over_seeds(faithful):
    tests = faithful.tests
    assert tests["num_seeds"] == 4 and tests["seed"] == 0
    json.dumps(tests, allow_nan=False)
    for row in tests["scores"]:
        if row["model"] == "boosting":
            assert row["values"] == [] and row["mean"] is None
            continue
        interval = scipy.stats.ttest_1samp(row["values"], 0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        assert row["mean"] == pytest.approx(np.mean(row["values"])) and len(row["values"]) == 4
    for row in faithful.rows.metrics:  # the rows are of models that saw every record, at the run's seed
        if "majority" not in row["metric"]:
            model = next(name for name in utility_module.CLASSIFIERS if row["metric"].startswith(name))
            entry = of(tests, "scores", model=model, trained_on="synthetic", metric=row["metric"][len(model) + 1 :])
            assert entry["value"] == row["value"]


def test_a_difference_to_real_is_found_where_there_is_one_and_only_there(faithful, independent):
    lost = of(independent.tests, "against_real", model="logistic_regression", trained_on="synthetic", metric="auc")
    assert lost["difference"] < -0.1 and lost["high"] < 0 and lost["p_holm"] < 0.05
    kept = of(faithful.tests, "against_real", model="logistic_regression", trained_on="synthetic", metric="auc")
    assert abs(kept["difference"]) < 0.05
    aucs = [row for row in independent.tests["against_real"] if row["metric"] == "auc"]
    assert len(aucs) == 4  # two models, on synthetic records and on both kinds
    assert [row["p_holm"] for row in aucs] == pytest.approx(holm([row["p_value"] for row in aucs]))
    both = of(faithful.tests, "scores", model="mlp", trained_on="real_plus_synthetic", metric="auc")
    assert both["value"] > 0.85


def test_two_tables_are_compared_by_name_on_the_same_seeds(faithful, independent):
    rows = against_baseline(faithful.tests, independent.tests, name="independent")
    auc = next(r for r in rows if (r["model"], r["trained_on"], r["metric"]) == ("mlp", "synthetic", "auc"))
    assert auc["baseline"] == "independent" and auc["difference"] > 0.1 and auc["low"] > 0
    assert all(
        row["difference"] == 0 and row["p_holm"] == 1 for row in against_baseline(*[faithful.tests] * 2, name="x")
    )
    with pytest.raises(UserError, match="has seed 1 and this table has 0"):
        against_baseline(faithful.tests, {**independent.tests, "seed": 1}, name="x")
    with pytest.raises(UserError, match="num_seeds to 2 or more"):
        against_baseline(faithful.tests, judge("y", table(300, 2), drop=DROP).tests, name="x")


def test_without_seeds_there_are_scores_but_no_intervals():
    tests = judge("y", table(300, 2), drop=DROP).tests
    assert tests["against_real"] == [] and {row["trained_on"] for row in tests["scores"]} == {"synthetic", "real"}
    with pytest.raises(UserError, match="num_seeds is 1"):
        settings_from_dict({"evaluation": {"num_seeds": 1}})


def test_boosting_has_seeds_where_asked_for():
    settings = EvaluationSettings(num_seeds=2, boosting_seeds=True)
    tests = judge("size", table(100, 2), drop=("y", "grade", "day"), settings=settings).tests
    assert len(of(tests, "scores", model="boosting", trained_on="synthetic", metric="rmse")["values"]) == 2


def test_a_large_table_is_cut_and_the_cut_is_stated(monkeypatch):
    monkeypatch.setattr(utility_module, "MAX_RECORDS", 120)
    found = judge("y", table(300, 2), drop=DROP)
    assert len(found.predictions.rows) == 120 and len(found.rows.skipped) == 3
    assert "utility: 120 of 300 synthetic records, drawn at random, are used." in found.rows.skipped
    assert found.predictions.probabilities["mlp"]["reference"].shape == (120, 2)
    np.testing.assert_array_equal(found.predictions.labels, table(200, 1)["y"].to_numpy(int)[found.predictions.rows])


def test_the_same_records_in_the_same_order_give_the_same_scores_as_real_ones():
    found = judge("y", table(300, 0), drop=DROP, settings=EvaluationSettings(num_seeds=2))
    assert all(row["value"] == row["reference"] for row in found.rows.metrics)
    same = [row for row in found.tests["against_real"] if row["trained_on"] == "synthetic"]
    assert same and all(row["difference"] == 0 and row["p_value"] == 1 for row in same)
