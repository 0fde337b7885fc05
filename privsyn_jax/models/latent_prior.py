"""Where the latents of trained records lie: Gaussians bought by one noisy sum, to sample from instead of N(0, I).

An autoencoder's posteriors, taken together, are not its prior: the decoder is then asked about latents that no record
has, and not asked about others. Their mean and covariance make a better prior; or those of every part of the latent
space, where it is cut in halves along its first coordinates.

Source: Tomczak and Welling 2018, "VAE with a VampPrior" (the aggregate posterior as the best prior); Xiao et al. 2019,
"Generative Latent Flow" and Ghosh et al. 2020, "From Variational to Deterministic Autoencoders" (density of the latents
estimated afterwards).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.moments import cleaned, factors_of, moments_of, products
from privsyn_jax.types import Params, Stage

NAME = "latent prior"  # of the release


class LatentPrior(NamedTuple):
    """A mixture of Gaussians over latents, in params["public"]["prior"].

    Attributes:
      latent_dim: length of a latent.
      num_splits: coordinates along which the space is cut at 0, at a record's mean: 2^num_splits Gaussians.
      radius: root mean square of a latent up to which it is told apart; what is longer is scaled down. The smaller,
        the less noise.
    """

    latent_dim: int
    num_splits: int
    radius: float

    @property
    def num_groups(self) -> int:
        return 2**self.num_splits

    def empty(self) -> dict[str, jax.Array]:
        """N(0, I)."""
        identity = jnp.broadcast_to(jnp.eye(self.latent_dim), (self.num_groups, self.latent_dim, self.latent_dim))
        return {
            "shares": jnp.full(self.num_groups, 1.0 / self.num_groups),
            "means": jnp.zeros((self.num_groups, self.latent_dim)),
            "factors": identity,
        }

    def stage(self, encode: Callable[..., tuple[jax.Array, jax.Array]]) -> Stage:
        """What buys it.

        Args:
          encode: (params, example) -> mean and log variance [latent_dim] of its latent.
        """
        largest = self.radius * math.sqrt(self.latent_dim)

        def embed(params, example):
            mean, log_variance = encode(params, example)
            signs = (mean[: self.num_splits] > 0).astype(jnp.int32)
            group = jnp.sum(signs * 2 ** jnp.arange(self.num_splits, dtype=jnp.int32))
            return group, products(mean / largest, jnp.exp(log_variance) / largest**2)

        def absorb(params, noisy_sum, stddev, key):
            del key
            return self._learned(params, noisy_sum, stddev, largest)

        return Stage(NAME, 1.0, self.num_groups, embed, absorb)

    def _learned(self, params: Params, noisy_sum: np.ndarray, stddev: float, largest: float) -> Params:
        """Covariances are pulled towards their mean over groups, as far as noise hides the difference."""
        moments = moments_of(noisy_sum, stddev, largest)
        sizes = np.maximum(noisy_sum[:, 0], 1e-6)  # a group may be lost in the noise
        shares = sizes / sizes.sum()
        common = np.einsum("g,gij->ij", shares, moments.covariances)
        common = cleaned(np.zeros_like(common), common, float(np.linalg.norm(shares * moments.noise)))
        covariances = [
            cleaned(common, covariance, float(noise))
            for covariance, noise in zip(moments.covariances, moments.noise, strict=True)
        ]
        prior = {
            "shares": shares,
            "means": moments.means,
            "factors": factors_of(np.stack(covariances)),
        }
        prior = {name: jnp.asarray(value, jnp.float32) for name, value in prior.items()}
        return {**params, "public": {**params["public"], "prior": prior}}

    def draw(self, prior: Any, key: jax.Array, count: int) -> jax.Array:
        """Latents [count, latent_dim]."""
        group_key, latent_key = jax.random.split(key)
        groups = jax.random.categorical(group_key, jnp.log(prior["shares"]), shape=(count,))
        normal = jax.random.normal(latent_key, (count, self.latent_dim))
        return prior["means"][groups] + jnp.einsum("nij,nj->ni", prior["factors"][groups], normal)
