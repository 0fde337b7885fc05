"""Classifier two-sample test: can logistic regression tell synthetic records from real ones?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.record_vectors import RecordVectors

MIN_ROWS_PER_FEATURE = 5  # real and synthetic together; below it the null expectation is a poor approximation
_NUM_STEPS = 20
_RIDGE = 1e-5  # keeps separable samples finite
_MIN_EIGENVALUE = 1e-7  # of the features' correlation matrix: smaller directions are rounding


class Propensity(NamedTuple):
    """Result of the test.

    Attributes:
      pmse: mean squared distance of the fitted propensities from the share of synthetic records; in [0, 1/4].
      ratio: pmse over its expectation for two independent samples of one law; about 1 for those, with a standard
        deviation of sqrt(2 / num_features). For samples that differ it grows with their size.
      num_features: linearly independent features, without the constant.
    """

    pmse: float
    ratio: float
    num_features: int


def propensity_mse(real: RecordVectors, synthetic: RecordVectors) -> Propensity:
    """Propensity score mean squared error (pMSE) under logistic regression, and its ratio to chance.

    Features are the numbers, their squares and the flags. The fit is by maximum likelihood on all N = 2n records, whose
    optimism the null expectation num_features c (1 - c) / N, c = 1/2, takes into account. (Records drawn from a correct
    model fitted to these very real records have 1 - c times that, the null of the source: a ratio of 1/2.)

    Args:
      real: n records.
      synthetic: n records, encoded the same way.

    Returns:
      Propensity. num_features is 0 and the ratio NaN if nothing varies; the ratio is NaN as well below
      MIN_ROWS_PER_FEATURE records per feature.

    Raises:
      ValueError: the samples differ in size.

    Source: Snoke et al. 2018, "General and specific utility measures for synthetic data".
    """
    num_real, num_synthetic = len(real.numbers), len(synthetic.numbers)
    if num_real != num_synthetic:
        raise ValueError(f"{num_real} real and {num_synthetic} synthetic records: give equally many")
    features = _independent_features(np.concatenate([_features(real), _features(synthetic)]))
    num_rows, num_features = features.shape
    if num_features == 0:
        return Propensity(0.0, float("nan"), 0)
    pmse = float(_fitted_pmse(jnp.asarray(features, jnp.float32)))
    enough = num_rows >= MIN_ROWS_PER_FEATURE * num_features
    ratio = 4 * num_rows * pmse / num_features if enough else float("nan")
    return Propensity(pmse, ratio, num_features)


def _features(records):
    return np.concatenate([records.numbers, np.square(records.numbers), records.flags], axis=1).astype(np.float64)


def _independent_features(features):
    """An orthonormal basis (variance 1) of the features' span without the constant, float64 [N, rank]."""
    centred = features - features.mean(axis=0, keepdims=True)
    stddev = np.sqrt(np.square(centred).mean(axis=0))
    varies = stddev > 1e-9
    standard = centred[:, varies] / stddev[varies][None, :]
    eigenvalues, directions = np.linalg.eigh(standard.T @ standard / len(standard))
    kept = eigenvalues > _MIN_EIGENVALUE
    return standard @ (directions[:, kept] / np.sqrt(eigenvalues[kept])[None, :])


@jax.jit
def _fitted_pmse(features):
    """pMSE of logistic regression by Newton's method; the first half of the rows is real, the rest synthetic."""
    num_rows, num_features = features.shape
    design = jnp.concatenate([jnp.ones((num_rows, 1)), features], axis=1)
    is_synthetic = (jnp.arange(num_rows) >= num_rows // 2).astype(features.dtype)
    fractions = jnp.asarray([1.0, 0.5, 0.25, 0.0625, 0.015625, 0.0])  # a step that does not help is not made

    def loss(logits):
        return jnp.mean(jax.nn.softplus(logits) - is_synthetic * logits)

    def newton_step(state, _):
        weights, logits = state
        probability = jax.nn.sigmoid(logits)
        gradient = jnp.mean(design * (probability - is_synthetic)[:, None], axis=0)
        weighted = design * (probability * (1 - probability))[:, None]
        hessian = jnp.matmul(weighted.T, design, precision=jax.lax.Precision.HIGHEST) / num_rows
        step = jnp.linalg.solve(hessian + _RIDGE * jnp.eye(num_features + 1), gradient)
        change = design @ step
        losses = jax.vmap(lambda fraction: loss(logits - fraction * change))(fractions)
        fraction = fractions[jnp.argmin(losses)]
        return (weights - fraction * step, logits - fraction * change), None

    start = (jnp.zeros(num_features + 1), jnp.zeros(num_rows))
    (_, logits), _ = jax.lax.scan(newton_step, start, length=_NUM_STEPS)
    return jnp.mean(jnp.square(jax.nn.sigmoid(logits) - 0.5))
