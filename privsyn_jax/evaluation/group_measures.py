"""Measures of fairness from decisions, probabilities and groups; NumPy, once per model."""

from __future__ import annotations

import numpy as np

NUM_CALIBRATION_BINS = 10


def class_rates(classes: np.ndarray, groups: np.ndarray, num_groups: int, num_classes: int) -> np.ndarray:
    """Share of each class within each group, float [g, k]; NaN for a group without records.

    Args:
      classes: int [n], 0..k-1.
      groups: int [n], 0..g-1, or negative for records that are in no group.
      num_groups: g.
      num_classes: k.
    """
    is_in = groups >= 0
    counts = np.bincount(groups[is_in] * num_classes + classes[is_in], minlength=num_groups * num_classes)
    counts = counts.reshape(num_groups, num_classes).astype(float)
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def widest_gap(rates: np.ndarray) -> float:
    """Largest difference between two groups in the share of one class, of rates [g, k]; NaN with fewer than two groups.

    Between 0, no difference, and 1. Of two classes, both give the same difference.
    """
    defined = rates[np.isfinite(rates).all(axis=1)]
    return float(np.ptp(defined, axis=0).max()) if len(defined) >= 2 else np.nan


def demographic_parity_difference(
    decisions: np.ndarray, groups: np.ndarray, num_groups: int, num_classes: int
) -> float:
    """Largest difference between groups in the share of records that are given one class; in [0, 1], lower is better.

    Arguments as of `class_rates`.

    Source: Calders et al. 2009, "Building Classifiers with Independency Constraints"; as a maximum over groups, Agarwal
    et al. 2018, "A Reductions Approach to Fair Classification".
    """
    return widest_gap(class_rates(decisions, groups, num_groups, num_classes))


def equalized_odds_difference(
    labels: np.ndarray,
    decisions: np.ndarray,
    groups: np.ndarray,
    num_groups: int,
    num_classes: int,
    *,
    least_records: int = 1,
) -> float:
    """Largest difference between groups in the rate of a decision among records of the same class.

    Of two classes: the larger of the gap in true positive rates and the gap in false positive rates. In [0, 1], lower
    is better; NaN where no class is found in two groups.

    Args:
      labels: int [n], the real classes.
      decisions: int [n], the predicted classes.
      groups: int [n], see `class_rates`.
      num_groups: g.
      num_classes: k.
      least_records: a group with fewer records of a class is left out of that class's gap.

    Source: Hardt et al. 2016, "Equality of Opportunity in Supervised Learning".
    """
    gaps = []
    for label in range(num_classes):
        of_label = labels == label
        counts = np.bincount(groups[of_label & (groups >= 0)], minlength=num_groups)
        rates = class_rates(decisions[of_label], groups[of_label], num_groups, num_classes)
        gaps.append(widest_gap(np.where(counts[:, None] >= least_records, rates, np.nan)))
    return float(np.nanmax(gaps)) if np.isfinite(gaps).any() else np.nan


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error, in [0, 1], lower is better; NaN without records.

    The probabilities of a class fall into NUM_CALIBRATION_BINS even bins; the error is the mean over records of the
    distance between the mean probability in their bin and the share of the class there. Of two classes that of class
    1; of more, the mean over classes.

    Args:
      labels: int [n].
      probabilities: float [n, k].

    Source: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; by class, Kull et al.
    2019, "Beyond Temperature Scaling".
    """
    if not len(labels):
        return np.nan
    num_classes = probabilities.shape[1]
    judged = (1,) if num_classes == 2 else range(num_classes)
    return float(np.mean([_binary_error(labels == k, probabilities[:, k].astype(float)) for k in judged]))


def _binary_error(is_class, probability):
    bins = np.minimum((probability * NUM_CALIBRATION_BINS).astype(int), NUM_CALIBRATION_BINS - 1)
    surplus = np.bincount(bins, probability - is_class, NUM_CALIBRATION_BINS)  # sums over the records of each bin
    return np.abs(surplus).sum() / len(bins)
