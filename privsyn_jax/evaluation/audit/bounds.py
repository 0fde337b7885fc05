"""Scores of canaries that were in and of canaries that were out, to lower bounds on epsilon.

The bounds are jax_privacy's, used where they hold. jax_privacy 2.0.0 corrects a search over thresholds by the number of
thresholds on the hull of the curve, which itself depends on the scores, and its split takes fixed numbers of canaries
of both kinds, which ties their coins to each other. So here the guesses of one run follow from the scores alone, and a
threshold between repeated runs is given by the caller or chosen on half of the scores, which then do not count. Its
`epsilon_from_gdp` takes the absolute value of a negative distance between two upper bounds, which says nothing, for a
distance: that one bound is computed here.

Neighbouring relation: add or remove one record (canary).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dp_accounting
import numpy as np
from scipy.stats import beta, norm

from privsyn_jax.types import UserError

_TRIED_SHARES = np.geomspace(0.002, 0.6, 16)  # of repeated runs, said to have the canary: thresholds to choose among

METHODS = ("approximate", "gaussian")
# Of the canaries of one run, guessed: few and sure where much noise hides them, many where little does.
SHARES = {"approximate": (0.02, 0.1, 0.4, 0.9), "gaussian": (0.02, 0.08, 0.4)}
_FEWEST = 20  # canaries


def one_run_bound(
    scores: np.ndarray, is_in: np.ndarray, *, delta: float, confidence: float = 0.95, method: str = "approximate"
) -> float:
    """Lower bound on epsilon from one run that many canaries took part in. 0 where nothing is found.

    Every canary was put in by a fair coin of its own. The scores may depend on each other in any way. Of the canaries,
    the shares SHARES with the scores farthest from the median are guessed, in above it and out below it; which they are
    does not depend on the coins, so all canaries count. The bound is the largest over the shares, each at its part of
    1 - confidence.

    Args:
      scores: float [m], m at least 20, higher = more likely in.
      is_in: bool [m], the coins.
      delta: in (0, 1).
      confidence: of the bound.
      method: what is refuted.
        "approximate": (epsilon, delta)-differential privacy: valid for every mechanism.
        "gaussian": that all trade-offs are at least those of a Gaussian mechanism that is (epsilon, delta)-DP: valid
          for compositions of Gaussian releases without amplification, and far tighter.

    Raises:
      ValueError: shapes, scores that are not numbers, or probabilities out of range.
      UserError: jax_privacy is not installed.

    Source: Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run"; Mahloujifar, Melis and
    Chaudhuri 2024, "Auditing f-Differential Privacy in One Run".
    """
    scores, is_in = _checked(scores), np.asarray(is_in, bool)
    if scores.shape != is_in.shape or len(scores) < _FEWEST:
        raise ValueError(f"scores {scores.shape} and is_in {is_in.shape} must share one shape [m], m >= {_FEWEST}")
    _check_probabilities(delta, confidence, method)
    centred = scores - np.median(scores)
    order, is_right = np.argsort(-np.abs(centred), kind="stable"), (centred >= 0) == is_in
    significance, found = (1 - confidence) / len(SHARES[method]), [0.0]
    for share in SHARES[method]:
        guessed = is_right[order[: max(1, round(share * len(scores)))]]
        # The auditor counts at the threshold 1: right guesses, wrong ones, and canaries that are left open.
        rest = np.zeros(len(scores) - len(guessed))
        right = np.concatenate([np.ones(np.sum(guessed)), rest[1:]])
        wrong = np.concatenate([np.ones(np.sum(~guessed)), rest[:1]])
        if guessed.any():
            auditor, strategy = _auditor(right, wrong, 1.0)
            take = auditor.epsilon_one_run if method == "approximate" else auditor.epsilon_one_run_fdp
            found.append(float(take(significance, delta, threshold_strategy=strategy)))
    return max(found)


def repeated_bound(
    in_scores: np.ndarray,
    out_scores: np.ndarray,
    *,
    delta: float,
    confidence: float = 0.95,
    method: str = "approximate",
    threshold: float | None = None,
) -> float:
    """Lower bound on epsilon from independent runs with and without one canary. 0 where nothing is found.

    Args:
      in_scores, out_scores: float [runs with], [runs without]; higher = more likely in. In no particular order.
      delta, confidence: see `one_run_bound`.
      method: "approximate" bounds both error rates after Clopper and Pearson, at half of 1 - confidence each, and
        epsilon >= log((true positive rate - delta) / false positive rate). "gaussian" turns the same two rates into
        the trade-off of a Gaussian mechanism; see `one_run_bound` for when that is valid.
      threshold: fixed beforehand; None chooses it on the first half of either's runs, and takes the bound from the
        second.

    Raises:
      ValueError: scores that are not numbers, none of one kind, or probabilities out of range.
      UserError: jax_privacy is not installed.

    Source: Jagielski, Ullman and Oprea 2020, "Auditing Differentially Private Machine Learning"; Nasr et al. 2023,
    "Tight Auditing of Differentially Private Machine Learning".
    """
    members, others = _checked(in_scores), _checked(out_scores)
    _check_probabilities(delta, confidence, method)
    if not (len(members) and len(others)):
        raise ValueError(f"{len(members)} runs with and {len(others)} without the canary: both are needed")

    def evidence(members: np.ndarray, others: np.ndarray, at: float) -> float:
        """Epsilon, or the distance between the two Gaussians in standard deviations, from below."""
        significance = 1 - confidence
        if method == "approximate":
            auditor, strategy = _auditor(members, others, at)
            return float(auditor.epsilon_clopper_pearson(significance, delta, threshold_strategy=strategy))
        misses = _upper(int(np.sum(members < at)), len(members), significance / 2)
        alarms = _upper(int(np.sum(others >= at)), len(others), significance / 2)
        return max(0.0, float(norm.isf(alarms) + norm.isf(misses)))

    if threshold is None:
        half, other_half = len(members) // 2, len(others) // 2
        threshold = _best(members[:half], others[:other_half], evidence)
        members, others = members[half:], others[other_half:]
    found = evidence(members, others, threshold)
    if method == "approximate" or found == 0:
        return found
    return float(dp_accounting.get_epsilon_gaussian(1 / found, delta))


def _best(members: np.ndarray, others: np.ndarray, evidence: Callable[..., float]) -> float:
    """The threshold with the most evidence among those that give some share of the scores to the canary."""
    if not (len(members) and len(others)):
        return 0.0
    candidates = np.unique(np.quantile(np.concatenate([members, others]), 1 - _TRIED_SHARES))
    found = [evidence(members, others, float(at)) for at in candidates]
    return float(candidates[int(np.argmax(found))])


def _upper(count: int, trials: int, significance: float) -> float:
    """Clopper and Pearson's bound from above on a rate."""
    return float(beta.isf(significance, count + 1, trials - count)) if count < trials else 1.0


def _auditor(in_scores: np.ndarray, out_scores: np.ndarray, threshold: float) -> tuple[Any, Any]:
    try:
        from jax_privacy import auditing
    except ImportError:
        raise UserError("an audit needs jax_privacy: install it with pip install 'privsyn_jax[audit]'") from None
    return auditing.CanaryScoreAuditor(in_scores, out_scores), auditing.Explicit(threshold)


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise ValueError(f"scores of shape {scores.shape} must be one row of finite numbers")
    return scores


def _check_probabilities(delta: float, confidence: float, method: str) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta {delta} must lie in (0, 1)")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie in (0.5, 1)")
    if method not in METHODS:
        raise ValueError(f"method {method!r} must be one of {', '.join(METHODS)}")
