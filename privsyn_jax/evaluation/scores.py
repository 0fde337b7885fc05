"""Scores of a classifier or regressor from its predictions on held-out records; NumPy, once per model."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import roc_curve

MAX_CURVE_POINTS = 200


def classification_scores(labels: np.ndarray, probabilities: np.ndarray, num_classes: int) -> dict[str, float]:
    """Accuracy, balanced accuracy, F1 and AUC; higher is better for all.

    Args:
      labels: int [n] in 0..num_classes-1.
      probabilities: float [n, num_classes], one row per record; the prediction is the largest.
      num_classes: two makes class 1 the positive one; otherwise F1 and AUC (one against the rest) are
        means over the classes that occur in `labels`.

    Returns:
      {"accuracy", "balanced_accuracy", "f1", "auc"}, each in [0, 1]. Balanced accuracy is the mean recall
      of the classes that occur; F1 is 0 where nothing is predicted positive; AUC is NaN if the labels
      hold one class only.
    """
    predictions = probabilities.argmax(axis=1)
    confusion = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    hits, actual, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = np.flatnonzero(actual)
    f1 = 2 * hits / np.maximum(actual + predicted, 1)
    if len(occurs) < 2:
        auc = np.nan
    elif num_classes == 2:
        auc = rank_auc(labels == 1, probabilities[:, 1])
    else:
        auc = np.mean([rank_auc(labels == k, probabilities[:, k]) for k in occurs])
    return {
        "accuracy": float(hits.sum() / len(labels)),
        "balanced_accuracy": float(np.mean(hits[occurs] / actual[occurs])),
        "f1": float(f1[1] if num_classes == 2 else f1[occurs].mean()),
        "auc": float(auc),
    }


def rank_auc(is_positive: np.ndarray, positive_score: np.ndarray) -> float:
    """Area under the ROC curve, in [0, 1]: the chance that a positive record outranks a negative one, ties half.

    Args:
      is_positive: bool [n], some of each.
      positive_score: float [n], higher where a record is held positive.

    Source: Mann and Whitney 1947, by the sum of ranks.
    """
    num_positive = int(is_positive.sum())
    rank_sum = float(rankdata(positive_score)[is_positive].sum()) - num_positive * (num_positive + 1) / 2
    return rank_sum / (num_positive * (len(is_positive) - num_positive))


def regression_scores(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """{"rmse": >= 0 in the target's unit, lower is better; "r2": <= 1, higher is better, NaN if constant}."""
    squared_error = np.square(labels - predictions).mean()
    variance = np.var(labels)
    r2 = 1.0 - squared_error / variance if variance > 0 else np.nan
    return {"rmse": float(np.sqrt(squared_error)), "r2": float(r2)}


def thinned_roc_curve(labels: np.ndarray, positive_probability: np.ndarray) -> dict[str, list[float]]:
    """{"fpr": [...], "tpr": [...]} with at most MAX_CURVE_POINTS points, both ends included."""
    fpr, tpr, _ = roc_curve(labels, positive_probability)
    kept = np.unique(np.linspace(0, len(fpr) - 1, MAX_CURVE_POINTS).round().astype(int))
    return {"fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist()}
