"""Reconstruction: do synthetic records come nearer to training records than to held-out ones?"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from privsyn_jax.evaluation.attacks.candidates import prepare
from privsyn_jax.evaluation.attacks.mixed import mixed_rows, nearest_rows
from privsyn_jax.evaluation.attacks.scores import (
    LEVEL,
    AttackResult,
    Interval,
    concluded,
    guarded_auc_interval,
    membership_result,
    true_positive_rate_interval,
    untied,
)
from privsyn_jax.types import Schema

WEAK = (
    "a weak baseline: it asks only whether a synthetic record lies near, so that passing it is no evidence of privacy"
)
_SHARE = 0.01  # quantile of the held-out distances that counts as near
_LEAST = 100  # controls without which there is no such quantile


def distance_to_closest_record(
    schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int
) -> AttackResult:
    """Membership by the mixed distance to the nearest synthetic record: the nearer, the rather a member.

    Args:
      schema: public facts.
      train: records trained on: the members.
      test: held-out records; half of them are controls, the same as for the other attacks.
      synthetic: records released.
      seed: draws the candidates.

    Raises:
      UserError: see `candidates.prepare`.
    """
    members, controls = _distances(schema, train, test, synthetic, seed)
    return membership_result("distance_to_closest_record", -members, -controls, seed=seed, notes=(WEAK,))


def reconstruction(
    schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int
) -> AttackResult:
    """How near a synthetic record comes to training records and to as many held-out ones, by the mixed distance.

    Args and raises as `distance_to_closest_record`; metrics as `nearness_result`.
    """
    members, controls = _distances(schema, train, test, synthetic, seed)
    return nearness_result("reconstruction", members, controls, seed=seed)


def nearness_result(
    name: str, members: np.ndarray, controls: np.ndarray, *, seed: int, notes: Sequence[str] = ()
) -> AttackResult:
    """Compares the distances to the nearest released record of training and of held-out records.

    Metrics, higher means that training records come nearer:
      auc: chance that a training record is nearer than a held-out one, a tie counting half; baseline 0.5.
      mean_distance_gap: mean distance of held-out less that of training records, Welch's interval; baseline 0.
      share_nearer_than_1_percent: share of training records nearer than the 1 % quantile of the held-out distances,
        with an interval that knows that the quantile is estimated; baseline 0.01. Needs 100 held-out records.

    Args:
      name: of the attack.
      members: finite distances [m], m at least 2.
      controls: finite distances [c], c at least 2.
      seed: breaks ties.
      notes: sentences for the reader.
    """
    estimates = {
        "auc": functools.partial(guarded_auc_interval, -members, -controls),
        "mean_distance_gap": functools.partial(mean_gap_interval, controls, members),
    }
    baseline, notes = {"auc": 0.5, "mean_distance_gap": 0.0}, list(notes)
    metric = "share_nearer_than_1_percent"
    if len(controls) >= _LEAST:
        estimates[metric] = functools.partial(
            true_positive_rate_interval, *untied(-members, -controls, seed=seed), _SHARE
        )
        baseline[metric] = _SHARE
    else:
        notes.append(f"{metric} is absent: it needs {_LEAST} held-out records, and there are {len(controls)}")
    return concluded(
        name, estimates, baseline, num_members=len(members), num_controls=len(controls), notes=tuple(notes)
    )


def mean_gap_interval(first: np.ndarray, second: np.ndarray, level: float = LEVEL) -> Interval:
    """Difference of two means of independent values [n], [m] (at least 2 of each), with Welch's interval."""
    variances = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
    value, spread = float(first.mean() - second.mean()), float(np.sqrt(sum(variances)))
    if spread == 0:
        return Interval(value, min(value, 0.0), max(value, 0.0))  # constant values: nothing is known of their spread
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / (len(first) - 1) + variances[1] ** 2 / (len(second) - 1))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * spread
    return Interval(value, value - half, value + half)


def _distances(schema, train, test, synthetic, seed) -> list[np.ndarray]:
    """Of members and of controls to the nearest synthetic record, float64."""
    tables = prepare(schema, train, test, synthetic, seed=seed)
    known = mixed_rows(tables.all_levels, tables.synthetic)
    queries = (mixed_rows(tables.all_levels, table) for table in (tables.members, tables.controls))
    return [nearest_rows(rows, known).distance[:, 0].astype(np.float64) for rows in queries]
