"""Downstream models in JAX against scikit-learn's, and what seeds, resamples and padding must not change."""

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score

from privsyn_jax.evaluation import boosting, downstream, features
from privsyn_jax.evaluation.downstream import Problem, num_steps, resamples
from privsyn_jax.evaluation.encode import Tables, encode_table, make_levels
from privsyn_jax.evaluation.utility import utility_of
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.types import Column


def problem(num_classes, *, num_records=500, num_seeds=2, seed=0, rng_seed=0):
    """Standard normal features and a one-hot block, labels by a linear rule with noise."""
    rng = np.random.default_rng(rng_seed)
    coefficients = rng.normal(size=(8, max(num_classes, 1)))

    def draw(n):
        one_hot = np.eye(4)[rng.integers(0, 4, n)]
        matrix = np.concatenate([rng.normal(size=(n, 4)), one_hot], axis=1).astype(np.float32)
        outputs = matrix @ coefficients + 0.5 * rng.normal(size=(n, max(num_classes, 1)))
        return matrix, outputs.argmax(axis=1).astype(np.int32) if num_classes else 50 + 10 * outputs[:, 0]

    (matrix, labels), (judged, truth) = draw(num_records), draw(400)
    drawn = resamples(num_records, num_seeds, seed=seed)
    return Problem(matrix, labels, judged, drawn, num_classes, seed, num_steps(num_records)), truth


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logistic_regression_is_scikit_learns_on_every_resample(num_classes):
    given, _ = problem(num_classes)
    found = downstream.logistic_regression(given)
    assert found.shape == (3, 400, num_classes)
    for predicted, rows in zip(found, given.resamples, strict=True):
        oracle = LogisticRegression(max_iter=5000, tol=1e-8).fit(given.features[rows], given.labels[rows])
        np.testing.assert_allclose(predicted, oracle.predict_proba(given.judged), atol=2e-3)
    assert np.abs(found[0] - found[1]).max() > 0.01  # a resample is another model


def test_ridge_is_scikit_learns_on_every_resample():
    given, _ = problem(0)
    for predicted, rows in zip(downstream.ridge(given), given.resamples, strict=True):
        oracle = Ridge().fit(given.features[rows], given.labels[rows]).predict(given.judged)
        np.testing.assert_allclose(predicted, oracle, rtol=1e-3)


def test_the_net_learns_what_a_linear_model_cannot():
    rng = np.random.default_rng(1)
    matrix, judged = (rng.uniform(-1, 1, (n, 2)).astype(np.float32) for n in (2000, 1000))
    labels, truth = ((m[:, 0] * m[:, 1] > 0).astype(np.int32) for m in (matrix, judged))
    given = Problem(matrix, labels, judged, resamples(2000, 2, seed=0), 2, 0, num_steps(2000))
    for found in downstream.mlp(given):
        assert roc_auc_score(truth, found[:, 1]) > 0.97
    assert roc_auc_score(truth, downstream.logistic_regression(given)[0][:, 1]) < 0.6


def test_the_net_predicts_numbers_in_their_unit():
    given, truth = problem(0, num_records=2000)
    linear = r2_score(truth, downstream.ridge(given)[0])  # the rule is linear: nothing does better but by chance
    assert linear > 0.7 and all(
        linear - 0.05 < r2_score(truth, found) < linear + 0.05 for found in downstream.mlp(given)
    )


@pytest.mark.parametrize("model", [downstream.logistic_regression, downstream.mlp, boosting.classifier])
def test_a_model_is_the_same_alone_as_among_others(model):
    """Nothing passes between the models of one program: the first one does not depend on how many there are."""
    given, _ = problem(2)
    alone = model(given._replace(resamples=given.resamples[:1]))
    np.testing.assert_allclose(model(given)[0], alone[0], atol=1e-3)


@pytest.mark.parametrize("model", [downstream.logistic_regression, downstream.mlp])
def test_the_same_seed_repeats_and_another_one_does_not(model):
    given, _ = problem(3)
    found = model(given)
    np.testing.assert_array_equal(found, model(given))
    np.testing.assert_allclose(found.sum(axis=2), 1.0, atol=1e-5)
    other = model(given._replace(resamples=resamples(500, 2, seed=9), seed=9))
    assert np.abs(found[1:] - other[1:]).max() > 1e-3


def test_the_first_model_sees_every_record_once_and_the_others_resamples():
    drawn = resamples(1000, 3, seed=0)
    np.testing.assert_array_equal(drawn[0], np.arange(1000))
    for rows in drawn[1:]:
        distinct = len(np.unique(rows)) / 1000
        assert abs(distinct - (1 - np.exp(-1))) < 5 * np.sqrt(0.1 / 1000)  # 63 % of the records, sd below 1 %
    assert (drawn[1] != drawn[2]).any()
    orders = downstream.orders(resamples(100, 2, seed=0), num_steps=7, batch_size=32, seed=0)
    first_epoch = orders[0].ravel()[:100]
    assert sorted(first_epoch) == list(range(100))


@pytest.mark.parametrize("model", [downstream.logistic_regression, downstream.mlp, boosting.classifier])
def test_a_class_that_is_absent_from_a_resample_gets_no_probability(model):
    given, _ = problem(2, num_records=30)
    given = given._replace(num_classes=3)  # nobody is of the third one
    of_one_class = np.full(30, np.flatnonzero(given.labels == 1)[0], np.int32)
    found = model(given._replace(resamples=np.stack([given.resamples[0], of_one_class])))
    assert np.isfinite(found).all() and np.all(found[:, :, 2] == 0)
    assert np.all(found[1, :, 1] == 1) and np.all(found[0, :, 0] + found[0, :, 1] > 0.999)


@pytest.mark.parametrize("num_records", [1, 2, 10])
def test_degenerate_records_give_finite_predictions(num_records):
    matrix = np.zeros((num_records, 0), np.float32)
    labels = np.arange(num_records) % 2
    given = Problem(
        matrix, labels.astype(np.int32), np.zeros((5, 0), np.float32), resamples(num_records, 2, seed=0), 2, 0, 5
    )
    for model in (downstream.logistic_regression, downstream.mlp):
        assert np.isfinite(model(given)).all()
    constant = given._replace(num_classes=0, labels=np.full(num_records, 7.0))
    for model in (downstream.ridge, downstream.mlp):
        np.testing.assert_allclose(model(constant), 7.0, atol=1e-4)


def test_the_number_of_steps_follows_the_real_table_within_limits():
    assert [num_steps(n) for n in (10, 10_000, 10**6)] == [200, 390, 1500]


def test_many_features_of_a_large_scale_do_not_break_single_precision():
    rng = np.random.default_rng(0)
    matrix = np.concatenate([np.eye(30)[rng.integers(0, 30, 3000)], rng.normal(size=(3000, 3)) * 30], axis=1)
    labels = (matrix[:, -1] + rng.logistic(size=3000) > 0).astype(np.int32)
    given = Problem(
        matrix.astype(np.float32), labels, matrix[:500].astype(np.float32), resamples(3000, 2, seed=0), 2, 0, 5
    )
    assert roc_auc_score(labels[:500], downstream.logistic_regression(given)[0][:, 1]) > 0.95


@pytest.mark.slow
def test_scores_on_adult_are_the_known_ones(adult_dir):
    from privsyn_jax.data import adult
    from privsyn_jax.settings import DataSettings

    settings = DataSettings(name="adult", dir=str(adult_dir))
    schema = adult.read_schema(settings)
    frames = [
        pd.DataFrame(adult.read_rows(settings.dir, name), columns=list(schema.names)).astype(
            {column.name: float for column in schema.columns if column.kind == "integer"}
        )
        for name in ("adult.data", "adult.test")
    ]
    all_levels = [make_levels(column, [frame[column.name] for frame in frames]) for column in schema.modelled]
    train, test = (encode_table(all_levels, frame) for frame in frames)
    started = time.process_time()
    found = utility_of(all_levels, Tables(train, test, train), target="income", seed=0, settings=EvaluationSettings())
    assert time.process_time() - started < 120
    reference = {row["metric"]: row["reference"] for row in found.rows.metrics}
    assert reference["logistic_regression_auc"] == pytest.approx(0.905, abs=0.002)
    assert reference["boosting_auc"] == pytest.approx(0.927, abs=0.002)
    assert reference["mlp_auc"] > 0.905


def test_the_number_of_features_is_known_beforehand():
    columns = (Column("x", "numeric", 0, 1, nullable=True), Column("c", "categorical", categories=("a", "b", "z")))
    frame = pd.DataFrame({"x": [0.1, np.nan], "c": np.array(["a", "b"], object)})
    all_levels = [make_levels(column, [frame[column.name]]) for column in columns]
    table = encode_table(all_levels, frame)
    for exclude in ("x", "c", "other"):
        matrix = features.feature_matrix(all_levels, table, features.standardisation(table), exclude=exclude)
        assert matrix.shape[1] == features.num_features(all_levels, exclude=exclude)
