"""Whether synthetic images lie where real ones do in a feature space, and reach all of them."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

NUM_NEIGHBOURS = 5
MAX_IMAGES = 3_000  # of each kind: every image is compared with every other


class Coverage(NamedTuple):
    """Four scalars, see `coverage_metrics`."""

    precision: jax.Array
    recall: jax.Array
    density: jax.Array
    coverage: jax.Array


@functools.partial(jax.jit, static_argnames="num_neighbours")
def coverage_metrics(real: jax.Array, synthetic: jax.Array, *, num_neighbours: int = NUM_NEIGHBOURS) -> Coverage:
    """Precision and recall of a sample; higher is better for all.

    The ball of an image reaches to its k-th nearest other image of the same kind.

      precision: share of synthetic images in the ball of a real one.
      recall: share of real images in the ball of a synthetic one.
      density: for an average synthetic image, how many real balls it is in, divided by k; may exceed 1.
      coverage: share of real images with a synthetic one in their ball.

    Args:
      real: features float [n, d], n > num_neighbours.
      synthetic: features float [m, d], m > num_neighbours; compare only values with equal n, m and features.
      num_neighbours: k (static).

    Raises:
      ValueError: n or m is at most k.

    Source: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models"; Naeem et
    al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models".
    """
    if min(len(real), len(synthetic)) <= num_neighbours:
        raise ValueError(f"{len(real)} and {len(synthetic)} images: give more than num_neighbours = {num_neighbours}")
    across = _squared_distances(real, synthetic)
    in_real = across <= _radii(real, num_neighbours)[:, None]
    in_synthetic = across <= _radii(synthetic, num_neighbours)[None, :]
    return Coverage(
        precision=in_real.any(axis=0).mean(),
        recall=in_synthetic.any(axis=1).mean(),
        density=in_real.sum(axis=0).mean() / num_neighbours,
        coverage=in_real.any(axis=1).mean(),
    )


def _radii(features, num_neighbours):
    """Squared distance of each row [n] to its k-th nearest other."""
    among = jnp.where(jnp.eye(len(features), dtype=bool), jnp.inf, _squared_distances(features, features))
    # The barrier keeps XLA from turning a top-k of which one column is read into a whole sort.
    nearest = jax.lax.optimization_barrier(jax.lax.top_k(-among, num_neighbours)[0])
    return -nearest[:, -1]


def _squared_distances(one, other):
    product = jnp.matmul(one, other.T, precision=jax.lax.Precision.HIGHEST)
    total = jnp.square(one).sum(axis=1)[:, None] + jnp.square(other).sum(axis=1)[None, :] - 2 * product
    return jnp.maximum(total, 0.0)
