"""Downstream models: train on synthetic, on real or on both kinds of records, test on real held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from privsyn_jax.evaluation import boosting, downstream, features, scores
from privsyn_jax.evaluation.downstream import Problem
from privsyn_jax.evaluation.encode import Encoded, Levels, Tables
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.significance import seed_tests
from privsyn_jax.evaluation_settings import EvaluationSettings

MAX_RECORDS = 100_000  # of each table that are trained or tested on
MAX_CELLS = 10_000_000  # records times features

CLASSIFIERS: dict[str, Callable[[Problem], np.ndarray]] = {
    "logistic_regression": downstream.logistic_regression,
    "boosting": boosting.classifier,
    "mlp": downstream.mlp,
}
REGRESSORS: dict[str, Callable[[Problem], np.ndarray]] = {
    "ridge": downstream.ridge,
    "boosting": boosting.regressor,
    "mlp": downstream.mlp,
}
_CURVES = ("logistic_regression", "boosting")  # models whose ROC curves are kept


class Predictions(NamedTuple):
    """What the classifiers say of the real held-out records, for scores by group.

    Attributes:
      rows: int [m], the records of the held-out table that were judged.
      labels: int [m], their classes 0..k-1.
      probabilities: model -> {"synthetic" | "reference": float [m, k]}, by what it was trained on.
    """

    rows: np.ndarray
    labels: np.ndarray
    probabilities: dict[str, dict[str, np.ndarray]]


class Utility(NamedTuple):
    """Scores of downstream models.

    Attributes:
      rows: metric rows, of models trained on every record once.
      curves: ROC curves {model: {"synthetic" | "reference": {"fpr": [...], "tpr": [...]}}}, for two classes.
      tests: means, intervals and tests over seeds, see `significance.seed_tests`; empty without scores.
      predictions: of the classifiers; None for a numeric target or without scores.
    """

    rows: Rows
    curves: dict[str, Any]
    tests: dict[str, Any]
    predictions: Predictions | None


class _Labelled(NamedTuple):
    """Records whose target is known: their rows in the table, encoded, and their labels (class codes, or numbers)."""

    rows: np.ndarray
    table: Encoded
    labels: np.ndarray


def utility_of(
    all_levels: Sequence[Levels],
    tables: Tables[Encoded],
    *,
    target: str | None,
    seed: int,
    settings: EvaluationSettings,
) -> Utility:
    """Scores of models that predict the target on the real test table.

    A row's value comes from a model trained on the synthetic table, the reference from one trained on the real
    table. Two classes: the last category is the positive one. A numeric target is regressed, with errors in its own
    unit. Records without a valid target are left out, and `skipped` says how many; so it does where only a part of a
    large table is used (MAX_RECORDS, MAX_CELLS). `tests` also holds models trained on both tables
    together, if there are seeds.

    Args:
      all_levels: one per column.
      tables: train, test, synthetic, encoded with all_levels.
      target: its column, or None for no utility.
      seed: of weights, order of records, resamples and boosting's hold-out split.
      settings: how many resamples there are for intervals and tests.
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
        most = min(MAX_RECORDS, MAX_CELLS // max(features.num_features(all_levels, exclude=str(target)), 1))
        labelled = Tables(*(_labelled(all_levels[index], table, index, most, seed) for table in tables))
        num_classes = 0 if all_levels[index].is_numeric else len(all_levels[index].categories)
        if _is_learnable(rows, tables, labelled, target, num_classes, most):
            return _scored(rows, all_levels, labelled, str(target), num_classes, settings)
    return Utility(rows, {}, {}, None)


def _labelled(levels, table, index, most, seed):
    """The records of `table` with a valid target: a category of the schema, or a finite number; `most` at most."""
    if levels.is_numeric:
        lower, upper = levels.bounds
        labels = table.scaled[:, index] * (upper - lower if upper > lower else 1.0) + lower
        is_valid = np.isfinite(labels)
    else:
        labels = table.codes[:, index]
        is_valid = labels < len(levels.categories)
    kept = np.flatnonzero(is_valid)
    if len(kept) > most:
        kept = np.sort(np.random.default_rng(seed).choice(kept, most, replace=False))
    return _Labelled(kept, Encoded(table.codes[kept], table.scaled[kept]), labels[kept])


def _is_learnable(rows, tables, labelled, target, num_classes, most):
    """Notes what is left out and adds the baseline; whether both tables have something to learn."""
    enough = True
    for described, table, kept in zip(("real", "real held-out", "synthetic"), tables, labelled, strict=True):
        num_left_out = len(table.codes) - len(kept.labels)
        if not len(kept.labels):
            rows.skip("utility", f"no {described} record has a valid target {target}")
            enough = False
        elif num_left_out and len(kept.labels) == most:
            drawn = f"{most:,} of {len(table.codes):,} {described} records, drawn at random, are used"
            rows.skip("utility", drawn)
        elif num_left_out:
            rows.skip("utility", f"{num_left_out} {described} records without a valid {target} are left out")
    if not enough:
        return False
    train, test, synthetic = labelled
    if num_classes == 0:
        means = (np.full(len(test.labels), source.labels.mean()) for source in (synthetic, train))
        rows.add("mean_prediction_rmse", *(scores.regression_scores(test.labels, mean)["rmse"] for mean in means))
        return True
    majority = ((test.labels == np.bincount(source.labels).argmax()).mean() for source in (synthetic, train))
    rows.add("majority_accuracy", *majority, higher_is_better=True)
    for described, source in (("synthetic", synthetic), ("real", train)):
        if len(np.unique(source.labels)) < 2:
            rows.skip("utility", f"the {described} target {target} holds one class only, nothing to learn")
            return False
    return True


def _scored(rows, all_levels, labelled, target, num_classes, settings):
    """Trains every model on every table and adds its rows."""
    train, test, synthetic = labelled
    both = _Labelled(
        np.zeros(0),
        Encoded(*(np.concatenate(parts) for parts in zip(train.table, synthetic.table, strict=True))),
        np.concatenate([train.labels, synthetic.labels]),
    )
    sources = {"synthetic": synthetic, "real": train}
    if settings.num_seeds:
        sources["real_plus_synthetic"] = both
    steps = downstream.num_steps(len(train.labels))
    problems = {
        name: _problem(rows.seed, all_levels, source, test, target, num_classes, settings.num_seeds, steps)
        for name, source in sources.items()
    }
    curves, scored, probabilities = {}, {}, {}
    for name, predict in (CLASSIFIERS if num_classes else REGRESSORS).items():
        predictions = {}
        for source, problem in problems.items():
            if name == "boosting" and not settings.boosting_seeds:
                problem = problem._replace(resamples=problem.resamples[:1])
            found = predict(problem)
            scored[name, source] = [_scores(test.labels, each, num_classes) for each in found]
            predictions[source] = found[0]
        _add_rows(rows, name, scored[name, "synthetic"][0], scored[name, "real"][0], target, num_classes)
        probabilities[name] = {"synthetic": predictions["synthetic"], "reference": predictions["real"]}
        if name in _CURVES and num_classes == 2 and len(np.unique(test.labels)) == 2:
            curves[name] = {
                role: scores.thinned_roc_curve(test.labels, found[:, 1]) for role, found in probabilities[name].items()
            }
    tests = seed_tests(scored, num_seeds=settings.num_seeds, seed=rows.seed)
    return Utility(rows, curves, tests, Predictions(test.rows, test.labels, probabilities) if num_classes else None)


def _problem(seed, all_levels, source, test, target, num_classes, num_seeds, num_steps):
    """What a model gets: features of `source` and of the test table, standardised by the statistics of `source`."""
    statistics = features.standardisation(source.table)
    matrix, judged = (
        features.feature_matrix(all_levels, table, statistics, exclude=target) for table in (source.table, test.table)
    )
    resampled = downstream.resamples(len(source.labels), num_seeds, seed=seed)
    return Problem(matrix, source.labels, judged, resampled, num_classes, seed, num_steps)


def _scores(labels, predicted, num_classes):
    if num_classes:
        return scores.classification_scores(labels, predicted, num_classes)
    return scores.regression_scores(labels, predicted)


def _add_rows(rows, name, values, references, target, num_classes):
    undefined = f"the real held-out target {target} " + ("holds one class only" if num_classes else "is constant")
    for metric, value in values.items():
        better = metric != "rmse"
        rows.add(f"{name}_{metric}", value, references[metric], higher_is_better=better, undefined=undefined)
