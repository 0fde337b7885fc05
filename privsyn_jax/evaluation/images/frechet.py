"""Distances between two sets of images by their features: Fréchet distance (FID) and kernel distance (KID)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class KernelDistance(NamedTuple):
    """An estimate and its standard error over blocks, NaN for a single block."""

    value: float
    standard_error: float


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and unbiased covariance [d, d], float64, of features [n, d]; n is at least 2."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = features - mean[None, :]
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared 2-Wasserstein distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The trace of (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2), which
    exists for singular covariances too. In float64: float32 rounds away what is left after the traces cancel.

    Args:
      mean1: [d].
      cov1: [d, d], symmetric, positive semidefinite; of any rank.
      mean2: as mean1.
      cov2: as cov1.

    Returns:
      At least 0, in squared units of a feature; lower is better. Estimates from n samples are biased upwards by about
      1/n: compare only values with equal n and equal features.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium".
    """
    with jax.enable_x64(True):
        distance = _frechet(*(np.asarray(array, np.float64) for array in (mean1, cov1, mean2, cov2)))
        return max(float(distance), 0.0)


def kernel_distance(features1: np.ndarray, features2: np.ndarray, *, block_size: int = 1000) -> KernelDistance:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, averaged over disjoint blocks.

    Args:
      features1: [n1, d], in random order; n1 is at least 2.
      features2: [n2, d], in random order; n2 is at least 2.
      block_size: samples per block and set, at most; a remainder of min(n1, n2) that fills no block is left out.

    Returns:
      Mean 0 for two samples of one distribution, so it may be negative; lower is better. Unlike FID it has no bias
      that depends on n.

    Source: Bińkowski et al. 2018, "Demystifying MMD GANs".
    """
    size = min(block_size, len(features1), len(features2))
    num_blocks = min(len(features1), len(features2)) // size
    with jax.enable_x64(True):
        blocks = [
            float(
                _kernel_distance(
                    *(np.asarray(f[i * size : (i + 1) * size], np.float64) for f in (features1, features2))
                )
            )
            for i in range(num_blocks)
        ]
    error = np.std(blocks, ddof=1) / np.sqrt(num_blocks) if num_blocks > 1 else np.nan
    return KernelDistance(float(np.mean(blocks)), float(error))


@jax.jit
def _frechet(mean1, cov1, mean2, cov2):
    values, vectors = jnp.linalg.eigh(cov1)
    root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]) @ vectors.T
    product = root @ cov2 @ root
    shared = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh((product + product.T) / 2), 0.0)).sum()
    return jnp.square(mean1 - mean2).sum() + jnp.trace(cov1) + jnp.trace(cov2) - 2 * shared


@jax.jit
def _kernel_distance(x, y):
    size, dimension = x.shape

    def kernel(a, b):
        return (a @ b.T / dimension + 1.0) ** 3

    def off_diagonal_mean(matrix):
        return (matrix.sum() - jnp.trace(matrix)) / (size * (size - 1))

    return off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y)) - 2 * kernel(x, y).mean()
