"""A simple membership attack: can it be told from the synthetic texts whether a text was trained on?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts.vectors import Vectors, nearest

MAX_CANDIDATES = 1_000  # of each kind
_LEVEL = 0.95
_FALSE_POSITIVE_RATE = 0.01
_LEAST = 2  # candidates of each kind, so that there is a half to choose a threshold on


class Interval(NamedTuple):
    """An estimate with the ends of its 95 % confidence interval."""

    value: float
    lower: float
    upper: float


def auc_interval(members: np.ndarray, others: np.ndarray) -> Interval:
    """Chance that a member scores above another, a tie counting half, with DeLong's interval.

    Args:
      members: scores [m], m at least 2.
      others: scores [n], n at least 2.

    Returns:
      In [0, 1], ends included; 0.5 for an attack that knows nothing.

    Source: DeLong et al. 1988, "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic
    Curves"; by ranks after Sun and Xu 2014.
    """
    m, n = len(members), len(others)
    ranks = rankdata(np.concatenate([members, others]))
    beaten = (ranks[:m] - rankdata(members)) / n  # share of the others below each member
    losses = 1 - (ranks[m:] - rankdata(others)) / m  # share of the members above each other
    stddev = np.sqrt(beaten.var(ddof=1) / m + losses.var(ddof=1) / n)
    value, half_width = float(beaten.mean()), float(norm.ppf((1 + _LEVEL) / 2) * stddev)
    return Interval(value, max(0.0, value - half_width), min(1.0, value + half_width))


def advantage(members: np.ndarray, others: np.ndarray) -> float:
    """True less false positive rate at the threshold that was best on other candidates, in [-1, 1]; 0 is chance.

    The threshold is chosen on the first half of both and applied to the second, then the other way round; the mean.
    """
    halves = [(members[: len(members) // 2], others[: len(others) // 2])]
    halves.append((members[len(members) // 2 :], others[len(others) // 2 :]))
    found = []
    for chosen_on, applied_to in (halves, halves[::-1]):
        thresholds = np.unique(np.concatenate(chosen_on))
        positive = [_rates_above(scores, thresholds) for scores in chosen_on]
        best = thresholds[np.argmax(positive[0] - positive[1])]
        found.append(np.mean(applied_to[0] >= best) - np.mean(applied_to[1] >= best))
    return float(np.mean(found))


def true_positive_rate(members: np.ndarray, others: np.ndarray, *, false_positive_rate: float) -> float:
    """Share of members above the lowest score that at most this share of the others is above."""
    allowed = int(false_positive_rate * len(others))
    threshold = np.sort(others)[::-1][allowed]
    return float(np.mean(members > threshold))


def membership_rows(vectors: Vectors, *, seed: int) -> Rows:
    """The attack's success on equally many training and held-out texts; the reference is chance.

    The score of a text is its largest cosine similarity (of TF-IDF) to a synthetic text: but for the weights of words,
    who sees the synthetic texts alone can compute it. A stronger attack may succeed where this one fails, so chance
    here is no guarantee; nor is success a leak where held-out texts are of another kind, see `copies.copy_rows`.

    Metrics, lower is better:
      membership_auc, membership_auc_lower, membership_auc_upper: see `auc_interval`.
      membership_advantage: see `advantage`.
      membership_tpr_at_1_percent_fpr: share of training texts found where 1 % of held-out texts are taken for one.

    Args:
      vectors: the three sets.
      seed: draws the candidates, at most MAX_CANDIDATES of each kind.

    Returns:
      Rows.
    """
    rows, rng = Rows("privacy", seed), np.random.default_rng(seed)
    size = min(MAX_CANDIDATES, vectors.train.shape[0], vectors.test.shape[0])
    if size < _LEAST:
        rows.skip("membership_auc", f"it needs {_LEAST} training and {_LEAST} held-out texts")
        return rows
    members, others = (
        nearest(found[rng.permutation(found.shape[0])[:size]], vectors.synthetic).similarity
        for found in (vectors.train, vectors.test)
    )
    auc = auc_interval(members, others)
    for name, value in (("", auc.value), ("_lower", auc.lower), ("_upper", auc.upper)):
        rows.add(f"membership_auc{name}", value, 0.5)
    rows.add("membership_advantage", advantage(members, others), 0.0)
    if size * _FALSE_POSITIVE_RATE < 1:
        rows.skip("membership_tpr_at_1_percent_fpr", "it needs 100 training and 100 held-out texts")
    else:
        found = true_positive_rate(members, others, false_positive_rate=_FALSE_POSITIVE_RATE)
        rows.add("membership_tpr_at_1_percent_fpr", found, _FALSE_POSITIVE_RATE)
    return rows


def _rates_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of scores at least as large as each threshold."""
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)
