"""Membership by density: a record that is likelier among synthetic records than among others was trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from privsyn_jax.evaluation.attacks.candidates import Tables, prepare
from privsyn_jax.evaluation.attacks.mixed import Mixed, log_density, nearest_rows, ranked_rows
from privsyn_jax.evaluation.attacks.scores import AttackResult, membership_result
from privsyn_jax.types import Schema

BANDWIDTH = 0.2  # of a column, as a share of its ranks: the best on overfitted copies of Adult among 0.05 to 0.4
_WIDE = 1.0  # a second bandwidth, for records that are far from all others
_NEIGHBOURS = 5  # distances to the reference: one neighbour alone is too noisy an estimate
_SMOOTHING = 1e-3  # mean distance per column below which two rows count as equal
_MAX_FITTED = 5_000  # reference records that the "out" distribution is fitted on


def density_ratio(
    schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int
) -> AttackResult:
    """Density of the synthetic records over that of reference records, at the candidate.

    Both densities are of the nearest-neighbour kind, one over a power of the distance to a neighbour: the nearest
    synthetic record, and the fifth nearest reference record. Numbers are replaced by ranks. Half of the held-out
    records are the reference, the others the controls.

    Args:
      schema: public facts.
      train: records trained on: the members.
      test: held-out records.
      synthetic: records released.
      seed: draws the candidates.

    Raises:
      UserError: see `candidates.prepare`.

    Source: van Breugel et al. 2023, "Membership Inference Attacks against Synthetic Data through Overfitting
    Detection" (DOMIAS); density by Loftsgaarden and Quesenberry 1965.
    """
    members, controls, reference, known = _ranked(prepare(schema, train, test, synthetic, seed=seed))
    scores = [
        log_distance_ratio(
            nearest_rows(rows, known).distance[:, 0], _to_reference(rows, reference), smoothing=_SMOOTHING
        )
        for rows in (members, controls)
    ]
    return membership_result("density_ratio", *scores, seed=seed)


def blind_distances(
    schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int
) -> list[np.ndarray]:
    """Of members and of controls to the reference records, see `blind`; args and raises as `density_ratio`."""
    members, controls, reference, _ = _ranked(prepare(schema, train, test, synthetic, seed=seed))
    return [_to_reference(rows, reference) for rows in (members, controls)]


def _to_reference(rows: Mixed, reference: Mixed) -> np.ndarray:
    return nearest_rows(rows, reference, k=min(_NEIGHBOURS, len(reference.codes))).distance[:, -1]


def log_distance_ratio(to_synthetic: np.ndarray, to_reference: np.ndarray, *, smoothing: float) -> np.ndarray:
    """Logarithm of the ratio of nearest-neighbour densities, per dimension; distances [n], higher: a member."""
    return np.log(to_reference.astype(np.float64) + smoothing) - np.log(to_synthetic.astype(np.float64) + smoothing)


def likelihood_ratio(
    schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int
) -> AttackResult:
    """How far the likelihood of a candidate under the synthetic records exceeds what it is for a non-member like it.

    The target model is a kernel density of the synthetic records (`mixed.log_density` of ranks). The "out" models,
    which have not seen the candidate, are kernel densities of the reference records with a narrow and a wide bandwidth,
    and the distances to the nearest and the fifth nearest reference record. A ridge regression, fitted on the reference
    records themselves (each left out of its own densities), predicts from them the log-likelihood that a non-member has
    under the target model. The score is the log-likelihood less this prediction, in standard deviations of the
    residuals: the offline likelihood ratio, with one variance for all candidates. On Adult it found less than
    `density_ratio` where records are copied as they are, and more where they are copied with changes; on a made
    population it did no better than the distance to the closest record.

    Args and raises as `density_ratio`.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles", section IV-D (offline); a
    regression in place of many out models after Bertran et al. 2023, "Scalable Membership Inference Attacks via
    Quantile Regression".
    """
    members, controls, reference, known = _ranked(prepare(schema, train, test, synthetic, seed=seed))
    fitted = Mixed(*(part[:_MAX_FITTED] for part in reference))
    own = np.arange(len(fitted.codes))
    of_fitted, of_members, of_controls = (
        (log_density(rows, known, BANDWIDTH), _out_features(rows, reference, own=mine))
        for rows, mine in ((fitted, own), (members, None), (controls, None))
    )
    model = Ridge().fit(of_fitted[1], of_fitted[0])
    stddev = np.std(of_fitted[0] - model.predict(of_fitted[1])) or 1.0
    scores = [(target - model.predict(out)) / stddev for target, out in (of_members, of_controls)]
    return membership_result("likelihood_ratio", *scores, seed=seed)


def _ranked(tables: Tables) -> list[Mixed]:
    """Members, controls, reference and synthetic rows, their numbers as ranks among the last two."""
    known = (tables.synthetic, tables.reference)
    return ranked_rows(tables.all_levels, (tables.members, tables.controls, tables.reference, tables.synthetic), known)


def _out_features(rows: Mixed, reference: Mixed, *, own: np.ndarray | None) -> np.ndarray:
    """What the "out" models say of each row, float64 [n, 4]."""
    k = min(_NEIGHBOURS, len(reference.codes) - 1)
    distances = nearest_rows(rows, reference, k=k, own=own).distance.astype(np.float64)
    densities = [log_density(rows, reference, bandwidth, own=own) for bandwidth in (BANDWIDTH, _WIDE)]
    return np.stack([*densities, distances[:, 0], distances[:, -1]], axis=1)
