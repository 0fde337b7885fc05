"""Images in a public basis: the lowest frequencies of a two-dimensional cosine transform, over rotated colours.

The basis is fixed beforehand and orthonormal, so coefficients have the norm of what they describe and nothing about
the records is in it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Brightness, and two colour differences, which vary more slowly over natural images.
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
_COLOUR_STRETCH = 2.0  # a colour difference of frequency f comes in the order where brightness has this times f


class CosineBasis(NamedTuple):
    """`matrix` float32 [num_frequencies, height * width * channels], orthonormal rows, low frequencies first."""

    matrix: np.ndarray
    shape: tuple[int, int, int]

    def analyse(self, image: jax.Array) -> jax.Array:
        """Image [height, width, channels] -> coefficients [num_frequencies]."""
        return jnp.dot(self.matrix, image.reshape(-1), precision=jax.lax.Precision.HIGHEST)

    def synthesise(self, coefficients: jax.Array) -> jax.Array:
        """Coefficients [n, num_frequencies] -> images [n, height, width, channels]."""
        flat = jnp.dot(coefficients, self.matrix, precision=jax.lax.Precision.HIGHEST)
        return flat.reshape(-1, *self.shape)


def cosine_basis(shape: tuple[int, int, int], num_frequencies: int) -> CosineBasis:
    """The `num_frequencies` lowest frequencies of images of a shape.

    Raises:
      ValueError: there are not so many.
    """
    height, width, channels = shape
    if not 1 <= num_frequencies <= math.prod(shape):
        raise ValueError(f"num_frequencies {num_frequencies} must be from 1 to {math.prod(shape)}, the pixels' number")
    colours = _COLOURS if channels == 3 else np.eye(channels)
    frequencies = [(u, v, k) for u in range(height) for v in range(width) for k in range(channels)]
    stretch = [1.0] + [_COLOUR_STRETCH if channels == 3 else 1.0] * (channels - 1)
    order = sorted(frequencies, key=lambda f: (((f[0] / height) ** 2 + (f[1] / width) ** 2) * stretch[f[2]] ** 2, f))
    chosen = np.array(order[:num_frequencies])
    vertical, horizontal = _cosines(height), _cosines(width)
    matrix = np.einsum("fi,fj,fk->fijk", vertical[chosen[:, 0]], horizontal[chosen[:, 1]], colours[chosen[:, 2]])
    return CosineBasis(matrix.reshape(num_frequencies, -1).astype(np.float32), shape)


def _cosines(length: int) -> np.ndarray:
    """Orthonormal DCT-II matrix [frequency, place]. Source: Ahmed, Natarajan and Rao 1974."""
    frequency, place = np.arange(length)[:, None], np.arange(length)[None]
    matrix = np.cos(np.pi * frequency * (2 * place + 1) / (2 * length)) * math.sqrt(2 / length)
    matrix[0] /= math.sqrt(2)
    return matrix
