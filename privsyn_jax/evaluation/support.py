"""Whether synthetic records lie where real ones do, and reach all of them; jitted, higher is better."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.record_vectors import RecordVectors, as_matrix, squared_distances

NUM_NEIGHBOURS = 5
_SHARES = np.linspace(0.0, 1.0, 101)  # the alphas and betas integrated over


class Support(NamedTuple):
    """Four scalars, see `support_metrics`."""

    alpha_precision: jax.Array
    beta_recall: jax.Array
    density: jax.Array
    coverage: jax.Array


@functools.partial(jax.jit, static_argnames="num_neighbours")
def support_metrics(real: RecordVectors, synthetic: RecordVectors, *, num_neighbours: int = NUM_NEIGHBOURS) -> Support:
    """Precision and recall of the support of a sample, four ways.

    A real record's ball reaches to its k-th nearest other real record. Records are compared as they are encoded,
    without a learned embedding; a sample's centre is its mean.

      density: for an average synthetic record, how many real balls it is in, divided by k.
      coverage: share of real records with a synthetic one in their ball.
      alpha_precision: 1 - 2 ∫ |share of synthetic records within r_α of the real centre - share of real ones| dα, where
        r_α is the α-quantile of the real distances; with ties the real share is above α.
      beta_recall: 1 - 2 ∫ |share of real records covered within s_β - share of synthetic records| dβ: covered by their
        nearest synthetic record, if that is in their ball and within s_β, the β-quantile of distances from the
        synthetic centre.

    Memory is O(n² + nm).

    Args:
      real: n > num_neighbours records.
      synthetic: m records, encoded the same way.
      num_neighbours: k (static). An equally large sample of the same law has coverage near 1 - 2^-k.

    Returns:
      Support. All lie in [0, 1] but density, which may exceed 1 where synthetic records crowd among real ones. For
      equal samples alpha_precision, beta_recall and coverage are 1 and density is about 1 + 1 / k.

    Raises:
      ValueError: n <= num_neighbours.

    Source: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models"; Alaa et al. 2022, "How
      Faithful is your Synthetic Data?", sections 3 and 4, with k neighbours for its ball, not one.
    """
    num_real = len(real.numbers)
    if num_real <= num_neighbours:
        raise ValueError(f"{num_real} real records: more than num_neighbours = {num_neighbours} are needed")
    among_real = jnp.where(jnp.eye(num_real, dtype=bool), jnp.inf, squared_distances(real, real))
    # The barrier keeps XLA from turning a top-k of which one column is read into a whole sort.
    nearest_few = jax.lax.optimization_barrier(jax.lax.top_k(-among_real, num_neighbours)[0])
    radii = -nearest_few[:, -1:]  # [n, 1], squared
    across = squared_distances(real, synthetic)
    inside = across <= radii
    real_matrix, synthetic_matrix = as_matrix(real), as_matrix(synthetic)
    real_centre, synthetic_centre = (
        jnp.mean(sample, axis=0, keepdims=True) for sample in (real_matrix, synthetic_matrix)
    )
    to_real_centre = _norms(real_matrix - real_centre)
    alpha = _integrated_gap(to_real_centre, to_real_centre, _norms(synthetic_matrix - real_centre))
    to_synthetic_centre = _norms(synthetic_matrix - synthetic_centre)
    nearest = jnp.argmin(across, axis=1)
    is_covered = jnp.take_along_axis(inside, nearest[:, None], axis=1)[:, 0]
    reached = jnp.where(is_covered, to_synthetic_centre[nearest], jnp.inf)
    beta = _integrated_gap(to_synthetic_centre, to_synthetic_centre, reached)
    density = jnp.mean(jnp.mean(inside, axis=1)) * num_real / num_neighbours
    return Support(1 - 2 * alpha, 1 - 2 * beta, density, jnp.mean(jnp.any(inside, axis=1)))


def _norms(rows):
    return jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))


def _integrated_gap(distances, own, other):
    """∫ |share of other - share of own| within the quantiles of `distances`, by the trapezoid rule."""
    radii = jnp.quantile(distances, jnp.asarray(_SHARES, distances.dtype), method="higher")

    def shares(sample):
        return jnp.mean(sample[None, :] <= radii[:, None], axis=1)

    return jnp.trapezoid(jnp.abs(shares(other) - shares(own)), dx=_SHARES[1])
