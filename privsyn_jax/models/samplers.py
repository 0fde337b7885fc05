"""From noise to data by a denoiser: solvers of the probability-flow equation of a diffusion model.

A denoiser D(x, sigma) is the mean of the data given x = data + sigma * N(0, I). Solvers are plain Python loops over
it: jit the denoiser, not the loop (on CPU a convolution inside a loop of XLA is many times slower).

Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

Denoiser = Callable[[Any, float], Any]  # (x [...], sigma) -> [...]


def noise_levels(
    num_steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> tuple[float, ...]:
    """`num_steps` levels falling from sigma_max to sigma_min, evenly in sigma^(1 / rho), and then 0.

    Source: Karras et al. 2022, equation 5.
    """
    if num_steps < 1 or not 0 < sigma_min < sigma_max < math.inf or not 0 < rho < math.inf:
        raise ValueError(
            f"num_steps {num_steps} must be at least 1, sigma_min {sigma_min} above 0 and below sigma_max {sigma_max}, "
            f"and rho {rho} above 0"
        )
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (first + np.linspace(0.0, 1.0, num_steps) * (last - first)) ** rho
    return (*levels.tolist(), 0.0)


def ddim(denoise: Denoiser, x: Any, sigmas: Sequence[float]) -> Any:
    """Deterministic and first order: one evaluation a step. x [...] is at noise level sigmas[0].

    Source: Song et al. 2021, "Denoising Diffusion Implicit Models"; in terms of sigma, Euler's method.
    """
    for sigma, following in itertools.pairwise(sigmas):
        x = _euler_step(x, denoise(x, sigma), following / sigma)
    return x


def heun(denoise: Denoiser, x: Any, sigmas: Sequence[float]) -> Any:
    """Deterministic and second order: two evaluations a step, one in a last step to 0. x [...] is at level sigmas[0].

    Source: Karras et al. 2022, Algorithm 1.
    """
    for sigma, following in itertools.pairwise(sigmas):
        x = _heun_step(denoise, x, sigma, following)
    return x


def churned_heun(
    denoise: Denoiser,
    x: Any,
    sigmas: Sequence[float],
    *,
    key: jax.Array,
    churn: float,
    churned_levels: tuple[float, float] = (0.05, 50.0),
    noise_scale: float = 1.003,
) -> Any:
    """Heun steps, each from a level that fresh noise has raised: what a denoiser got wrong earlier is forgotten.

    Args:
      key: draws the fresh noise.
      churn: the level rises by the factor 1 + churn / number of steps, at most sqrt(2); 0 is `heun`.
      churned_levels: noise is added from the first to the second, no lower and no higher.
      noise_scale: of the fresh noise, against the detail that a denoiser of finite size loses.

    Source: Karras et al. 2022, Algorithm 2.
    """
    rise = 1 + min(churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for number, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        if rise > 1 and churned_levels[0] <= sigma <= churned_levels[1]:
            fresh = jax.random.normal(jax.random.fold_in(key, number), x.shape, x.dtype)
            x = x + noise_scale * sigma * math.sqrt(rise**2 - 1) * fresh
            sigma = sigma * rise
        x = _heun_step(denoise, x, sigma, following)
    return x


def _euler_step(x: Any, denoised: Any, share: float) -> Any:
    """Keeps `share` of the noise."""
    return denoised + share * (x - denoised)


def _heun_step(denoise: Denoiser, x: Any, sigma: float, following: float) -> Any:
    denoised = denoise(x, sigma)
    moved = _euler_step(x, denoised, following / sigma)
    if following == 0:
        return moved
    slopes = (x - denoised) / sigma + (moved - denoise(moved, following)) / following
    return x + (following - sigma) / 2 * slopes
