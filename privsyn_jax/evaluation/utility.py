"""Downstream models: train on synthetic or real records, test on real held-out ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation import features, scores
from privsyn_jax.evaluation.encode import Encoded, Levels, Tables
from privsyn_jax.evaluation.rows import Rows

_MAX_ITER = 2000  # logistic regression on z-scores converges in about a hundred


def _fit_logistic_regression(features_nxf, labels, seed):
    """L2-penalised (C = 1) multinomial logistic regression; deterministic, so `seed` is not used."""
    del seed
    return LogisticRegression(max_iter=_MAX_ITER).fit(features_nxf, labels)


def _fit_boosting(features_nxf, labels, seed):
    """Histogram gradient boosting with scikit-learn's defaults."""
    # Early stopping holds out a stratified tenth, which a class with a single record does not allow.
    can_hold_out = np.unique(labels, return_counts=True)[1].min() >= 2
    options: dict[str, Any] = {} if can_hold_out else {"early_stopping": False}
    return HistGradientBoostingClassifier(random_state=seed, **options).fit(features_nxf, labels)


def _fit_ridge(features_nxf, labels, seed):
    """Linear regression with scikit-learn's default L2 penalty; deterministic."""
    del seed
    return Ridge().fit(features_nxf, labels)


def _fit_boosting_regressor(features_nxf, labels, seed):
    """Histogram gradient boosting for a numeric target, defaults."""
    return HistGradientBoostingRegressor(random_state=seed).fit(features_nxf, labels)


CLASSIFIERS: dict[str, Callable] = {
    "logistic_regression": _fit_logistic_regression,
    "boosting": _fit_boosting,
}
REGRESSORS: dict[str, Callable] = {"ridge": _fit_ridge, "boosting": _fit_boosting_regressor}


class _Labelled(NamedTuple):
    """Records whose target is known: n encoded rows and their labels [n] (class codes, or numbers)."""

    table: Encoded
    labels: np.ndarray


# One thread: on a shared machine OpenMP's and BLAS's spinning threads cost up to ten times what they save.
@threadpool_limits.wrap(limits=1)
def utility_rows(
    all_levels: Sequence[Levels], tables: Tables[Encoded], *, target: str | None, seed: int
) -> tuple[Rows, dict[str, Any]]:
    """Scores of models that predict the target on the real test table.

    The value comes from a model trained on the synthetic table, the reference from one trained on the
    real table. Two classes: the last category is the positive one. A numeric target is regressed, with
    errors in its own unit. Records without a valid target are left out, and `skipped` says how many.

    Args:
      all_levels: one per column.
      tables: train, test, synthetic, encoded with all_levels.
      target: its column, or None for no utility.
      seed: random state of the boosting's hold-out split.

    Returns:
      (rows, ROC curves {model: {"synthetic" | "reference": {"fpr": [...], "tpr": [...]}}}, for two classes).
    """
    rows = Rows("utility", seed)
    index = next((i for i, levels in enumerate(all_levels) if levels.column.name == target), None)
    if index is None:
        absent = "the schema names no target" if target is None else f"there is no column {target} to predict"
        rows.skip("utility", absent)
    elif len(all_levels) < 2:
        rows.skip("utility", f"there is no column to predict {target} from")
    elif all_levels[index].column.kind == "datetime":
        rows.skip("utility", f"the target {target} is a datetime, which no downstream model here predicts")
    else:
        labelled = Tables(*(_labelled(all_levels[index], table, index) for table in tables))
        if _enough_labels(rows, tables, labelled, target):
            if all_levels[index].is_numeric:
                _add_regression(rows, all_levels, labelled, target)
            else:
                num_classes = len(all_levels[index].categories)
                return rows, _add_classification(rows, all_levels, labelled, target, num_classes)
    return rows, {}


def _labelled(levels, table, index):
    """The records of `table` with a valid target: a category of the schema, or a finite number."""
    if levels.is_numeric:
        lower, upper = levels.bounds
        labels = table.scaled[:, index] * (upper - lower if upper > lower else 1.0) + lower
        is_valid = np.isfinite(labels)
    else:
        labels = table.codes[:, index]
        is_valid = labels < len(levels.categories)
    return _Labelled(Encoded(table.codes[is_valid], table.scaled[is_valid]), labels[is_valid])


def _enough_labels(rows, tables, labelled, target):
    """Notes records without a valid target; whether every table has one with it."""
    enough = True
    for described, table, kept in zip(("real", "real held-out", "synthetic"), tables, labelled, strict=True):
        num_left_out = len(table.codes) - len(kept.labels)
        if not len(kept.labels):
            rows.skip("utility", f"no {described} record has a valid target {target}")
            enough = False
        elif num_left_out:
            rows.skip("utility", f"{num_left_out} {described} records without a valid {target} are left out")
    return enough


def _add_classification(rows, all_levels, labelled, target, num_classes):
    """Majority-class baseline and every classifier; returns ROC curves."""
    train, test, synthetic = labelled
    majority = ((test.labels == np.bincount(source.labels).argmax()).mean() for source in (synthetic, train))
    rows.add("majority_accuracy", *majority, higher_is_better=True)
    for described, source in (("synthetic", synthetic), ("real", train)):
        if len(np.unique(source.labels)) < 2:
            rows.skip("utility", f"the {described} target {target} holds one class only, nothing to learn")
            return {}
    curves = {}
    for name, fit in CLASSIFIERS.items():
        scored, curve = {}, {}
        for role, source in (("synthetic", synthetic), ("reference", train)):
            model, test_features = _trained(rows, name, fit, all_levels, source, test.table, target)
            probabilities = np.zeros((len(test.labels), num_classes))
            probabilities[:, model.classes_] = model.predict_proba(test_features)
            scored[role] = scores.classification_scores(test.labels, probabilities, num_classes)
            if num_classes == 2 and len(np.unique(test.labels)) == 2:
                curve[role] = scores.thinned_roc_curve(test.labels, probabilities[:, 1])
        if curve:
            curves[name] = curve
        undefined = f"the real held-out target {target} holds one class only"
        for metric, value in scored["synthetic"].items():
            reference = scored["reference"][metric]
            rows.add(f"{name}_{metric}", value, reference, higher_is_better=True, undefined=undefined)
    return curves


def _add_regression(rows, all_levels, labelled, target):
    """Baseline that predicts the training mean, and every regressor."""
    train, test, synthetic = labelled
    means = (np.full(len(test.labels), source.labels.mean()) for source in (synthetic, train))
    baseline = (scores.regression_scores(test.labels, mean)["rmse"] for mean in means)
    rows.add("mean_prediction_rmse", *baseline)
    for name, fit in REGRESSORS.items():
        scored = []
        for source in (synthetic, train):
            model, test_features = _trained(rows, name, fit, all_levels, source, test.table, target)
            scored.append(scores.regression_scores(test.labels, model.predict(test_features)))
        undefined = f"the real held-out target {target} is constant"
        for metric in ("rmse", "r2"):
            values = (score[metric] for score in scored)
            rows.add(f"{name}_{metric}", *values, higher_is_better=metric == "r2", undefined=undefined)


def _trained(rows, name, fit, all_levels, source, test_table, target):
    """(model fitted on `source`, features of `test_table`), standardised by the statistics of `source`."""
    statistics = features.standardisation(source.table)
    matrix, test_matrix = (
        features.feature_matrix(all_levels, table, statistics, exclude=target) for table in (source.table, test_table)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = fit(matrix, source.labels, rows.seed)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        rows.skip(name, f"not fully converged on {len(source.labels)} records, so its scores are approximate")
    return model, test_matrix
