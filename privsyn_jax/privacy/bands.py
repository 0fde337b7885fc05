"""Coefficients of banded noise, from jax_privacy (an optional extra)."""

from __future__ import annotations

import functools

import numpy as np

from privsyn_jax.types import UserError


@functools.lru_cache(maxsize=8)
def band_coefficients(num_steps: int, num_bands: int) -> tuple[float, ...]:
    """First column of the banded Toeplitz matrix C with the smallest mean squared error of prefix sums, L2 norm 1.

    A record takes part in steps that are num_bands apart (`sampling.Sampler`), so the columns of C that it touches do
    not overlap, and each of its parts has sensitivity 1 in units of the clipping norm.

    Raises:
      UserError: more than one band without jax_privacy, or more bands than steps.

    Source: Choquette-Choo et al. 2023, "(Amplified) Banded Matrix Factorization", sections 3 and 4.
    """
    if num_bands == 1:
        return (1.0,)
    if num_bands > num_steps:
        raise UserError(f"privacy.num_bands is {num_bands}, more than training.num_steps = {num_steps}: give fewer")
    try:
        from jax_privacy.matrix_factorization import toeplitz
    except ImportError:
        raise UserError(
            f"privacy.num_bands is {num_bands}, which needs jax_privacy: install privsyn_jax[correlated] or set it to 1"
        ) from None
    column = np.asarray(toeplitz.optimize_banded_toeplitz(num_steps, num_bands), np.float64)[:num_bands]
    column = column / np.linalg.norm(column)
    return tuple(float(value) for value in column)
