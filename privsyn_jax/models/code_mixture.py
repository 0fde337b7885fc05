"""A Gaussian mixture over one-hot records, learned from one noisy sum, that draws logits of every column.

One Gaussian for every code of a column, usually the target. Its mean and covariance are those of the one-hot records of
that class: all the counts of pairs of columns, within the class. A draw is a vector of utilities; the code with the
largest is nearly always the one that is drawn. A Gaussian cut in this way has other moments than the one before, so its
own are moved until what is drawn has the released ones. All but the noisy sum is post-processing.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.flat_codes import FlatCodes
from privsyn_jax.models.moments import denoised, factors_of, moments_of, products
from privsyn_jax.models.one_way import LEAST_SHARE, SURE, likely_shares
from privsyn_jax.types import Params, Stage

NAME = "class moments"  # of the release
_WEIGHTS = (0.01, 0.3, 0.69)  # see `moments`
_SHARPNESS = 10.0  # of logits, in units of a one-hot entry
_ROUNDS, _DRAWS, _STEP = 20, 8192, 0.7  # of moving the moments


class CodeMixture(NamedTuple):
    """The mixture, in params["public"]["base"].

    Attributes:
      codes: the columns.
      column: its codes are the components.
      num_components: its number of codes, or 1: one Gaussian for all records.
    """

    codes: FlatCodes
    column: int
    num_components: int

    def empty(self) -> dict[str, jax.Array]:
        """All codes of a column equally likely."""
        shape = (self.num_components, self.codes.num_codes)
        return {
            "shares": jnp.full(self.num_components, 1.0 / self.num_components),
            "means": jnp.zeros(shape),
            "factors": jnp.zeros((*shape, shape[1])),
        }

    def stage(self) -> Stage:
        """What buys it: of every record its class, its one-hot vector and the products of its entries."""
        largest = math.sqrt(self.codes.num_columns)

        def embed(params, example):
            del params
            label = example[self.column] if self.num_components > 1 else 0
            return label, products(self.codes.one_hot(example) / largest, weights=_WEIGHTS)

        def absorb(params: Params, noisy_sum, stddev, key):
            del key
            base = {name: jnp.asarray(value, jnp.float32) for name, value in self._learned(noisy_sum, stddev).items()}
            return {**params, "public": {**params["public"], "base": base}}

        return Stage(NAME, 1.0, self.num_components, embed, absorb)

    def logits(self, base: Any, component: Any, key: jax.Array) -> jax.Array:
        """[S], of one draw from a component."""
        normal = jax.random.normal(key, (self.codes.num_codes,))
        drawn = base["means"][component] + base["factors"][component] @ normal
        return self.with_label(_SHARPNESS * drawn, component)

    def with_label(self, logits: jax.Array, component: Any) -> jax.Array:
        """Logits [S] by which the column has the component's code."""
        if self.num_components == 1:
            return logits
        first = int(self.codes.offsets[self.column])
        own = jnp.where(jnp.arange(self.num_components) == component, SURE, -SURE)
        return logits.at[first : first + self.num_components].set(own)

    def _learned(self, noisy_sum: np.ndarray, stddev: float) -> dict[str, np.ndarray]:
        """Shares, means and factors of utilities.

        What columns have to do with each other is pulled towards its mean over classes, as far as noise hides the
        difference; how the codes of one column exclude each other follows from their shares.
        """
        moments = moments_of(noisy_sum, stddev, math.sqrt(self.codes.num_columns), _WEIGHTS)
        sizes = np.maximum(noisy_sum[:, 0], 1e-6)  # a class may be lost in the noise
        weights = moments.sizes / moments.sizes.sum()
        is_own = self.codes.own.T @ self.codes.own > 0
        between = [np.where(is_own, 0.0, covariance) for covariance in moments.covariances]
        common = np.einsum("g,gij->ij", weights, between)
        common = denoised(np.zeros_like(common), common, float(np.linalg.norm(weights * moments.noise)))
        means, factors = [], []
        for mean, covariance, noise in zip(moments.means, between, moments.noise, strict=True):
            shares = likely_shares(self.codes, mean)
            wanted = np.where(is_own, 0.0, denoised(common, covariance, float(noise)))
            mean, factor = self._fitted(shares, wanted, is_own)
            means.append(mean)
            factors.append(factor)
        return {"shares": sizes / sizes.sum(), "means": np.stack(means), "factors": np.stack(factors)}

    def _fitted(self, shares: np.ndarray, wanted: np.ndarray, is_own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean [S] and factor [S, S] of utilities whose codes have these shares and covariances between columns."""
        own = np.where(is_own, np.diag(shares) - np.outer(shares, shares), 0.0)
        mean, between, rng = shares.copy(), wanted.copy(), np.random.default_rng(0)
        for _ in range(_ROUNDS):
            factor, between = _possible(own, between, is_own)
            normal = rng.standard_normal((_DRAWS, len(shares)))
            drawn = np.asarray(_probabilities(self.codes, np.float32(_SHARPNESS * (mean + normal @ factor.T))))
            found = drawn.mean(axis=0)
            mean = mean + _STEP * np.log(shares / np.maximum(found, LEAST_SHARE / 10)) / _SHARPNESS
            covariance = drawn.T @ drawn / _DRAWS - np.outer(found, found)
            between = between + _STEP * np.where(is_own, 0.0, wanted - covariance)
        return mean, _possible(own, between, is_own)[0]


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(codes: FlatCodes, logits: Any) -> jax.Array:
    return jax.vmap(codes.probabilities)(logits)


def _possible(own: np.ndarray, between: np.ndarray, is_own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factor of the nearest covariance with the variances of `own`, and what it has between columns."""
    factor = factors_of((own + between)[None])[0]
    factor = factor * np.sqrt(np.diag(own) / np.maximum(np.square(factor).sum(axis=1), 1e-12))[:, None]
    return factor, np.where(is_own, 0.0, factor @ factor.T)
