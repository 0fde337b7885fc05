"""Diffusion over table codes: records lose their columns, or drown in noise, and a network learns the way back.

"absorbing": columns are hidden one after the other, in random order; the network predicts every hidden column from
those still seen, and sampling reveals one at a time. Any columns can be conditioned on exactly. "gaussian": normal
noise is added to the one-hot record; the network predicts the codes from what is left, and sampling follows the
probability flow down to a level at which codes are drawn.

Either way the network's logits are corrections of released log frequencies where these were bought: at first, and
wherever a record says nothing, columns have the released marginals.

Source: Austin et al. 2021, "Structured Denoising Diffusion Models in Discrete State-Spaces" (absorbing states);
Dieleman et al. 2022, "Continuous Diffusion for Categorical Data" (normal noise, cross-entropy); Kotelnikov et al. 2023,
"TabDDPM: Modelling Tabular Data with Diffusion Models" (tables).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models import samplers
from privsyn_jax.models.flat_codes import FlatCodes, check_hidden_dims
from privsyn_jax.types import Generator

KINDS = ("absorbing", "gaussian")
_BLOCK = 1024  # records drawn at once
_RAREST = -12.0  # log frequency of a code that the released counts do not show


class Denoiser(nn.Module):
    """What is left of a one-hot record [S] and how much was lost [] -> logits [S], 0 at first."""

    num_codes: int
    hidden_dims: Sequence[int]

    @nn.compact
    def __call__(self, left, lost):
        angles = lost * jnp.arange(1, 5) * (math.pi / 2)
        hidden = jnp.concatenate([left, jnp.cos(angles), jnp.sin(angles)])
        for width in self.hidden_dims:
            hidden = nn.gelu(nn.Dense(width)(hidden))
        return nn.Dense(self.num_codes, kernel_init=nn.initializers.zeros)(hidden)


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    kind: str = "absorbing",
    hidden_dims: tuple[int, ...] = (256,),
    noise_mean: float = -0.5,
    noise_stddev: float = 1.0,
    num_sampling_steps: int = 24,
    sigma_min: float = 0.05,
    sigma_max: float = 10.0,
) -> Generator:
    """Generator of int32 codes [d].

    Args:
      cardinalities: number of codes of each column.
      column_order: not used: columns are drawn in random order, or together.
      kind: "absorbing" or "gaussian".
      hidden_dims: widths of the network's hidden layers.
      noise_mean, noise_stddev: of ln sigma in training; sigma is relative to a one-hot entry of 1 (gaussian).
      num_sampling_steps, sigma_min, sigma_max: see `samplers.noise_levels` (gaussian).
    """
    del column_order
    codes = FlatCodes(tuple(cardinalities))
    _check(kind, noise_stddev)
    sigmas = samplers.noise_levels(num_sampling_steps, sigma_min=sigma_min, sigma_max=sigma_max)
    net = Denoiser(codes.num_codes, check_hidden_dims("hidden_dims", hidden_dims))
    init_net = jax.jit(net.init)

    def init(key):
        private = init_net(key, jnp.zeros(codes.num_codes), jnp.zeros(()))["params"]
        return {"private": private, "public": {"bias": jnp.zeros(codes.num_codes)}}

    def logits_of(params, left, lost) -> jax.Array:
        found: Any = net.apply({"params": params["private"]}, left, lost)
        return params["public"]["bias"] + found

    def cross_entropies(logits, one_hot):
        """[d]: of every column."""
        return codes.log_normalizers(logits) - jnp.matmul(codes.own, logits * one_hot)

    def absorbing_loss(params, example, key):
        """An unbiased estimate of a bound of the negative log likelihood, over orders of the columns."""
        number_key, order_key = jax.random.split(key)
        num_hidden = jax.random.randint(number_key, (), 1, codes.num_columns + 1)
        is_hidden = jax.random.permutation(order_key, codes.num_columns) < num_hidden
        one_hot = codes.one_hot(example)
        left = jnp.where(is_hidden[codes.column_of_code], 0.0, one_hot)
        entropies = cross_entropies(logits_of(params, left, num_hidden / codes.num_columns), one_hot)
        return codes.num_columns / num_hidden * jnp.sum(jnp.where(is_hidden, entropies, 0.0))

    def gaussian_loss(params, example, key):
        level_key, noise_key = jax.random.split(key)
        sigma = jnp.exp(noise_mean + noise_stddev * jax.random.normal(level_key))
        one_hot = codes.one_hot(example)
        noisy = one_hot + sigma * jax.random.normal(noise_key, one_hot.shape)
        return cross_entropies(seen_through(params, noisy, sigma), one_hot).sum()

    def seen_through(params, noisy, sigma):
        """Logits given a noisy record, scaled to about unit variance at every level."""
        return logits_of(params, noisy * jax.lax.rsqrt(1.0 + jnp.square(sigma)), sigma / (1.0 + sigma))

    all_logits = jax.vmap(logits_of, in_axes=(None, 0, None))

    @jax.jit
    def reveal_block(params, key, fixed):
        """int32 [_BLOCK, d]; `fixed` [d] holds a code to start from, or -1."""
        order_key, code_key = jax.random.split(key)
        is_fixed = fixed >= 0
        ranks = jnp.where(is_fixed[None], -1.0, jax.random.uniform(order_key, (_BLOCK, codes.num_columns)))
        places = jnp.argsort(jnp.argsort(ranks, axis=1), axis=1)  # when a column is revealed; fixed ones come first
        start = jnp.where(is_fixed, fixed, 0)[None] + jnp.zeros((_BLOCK, 1), jnp.int32)

        def reveal(number, rows):
            is_seen = places < number
            one_hots = jax.vmap(codes.one_hot)(rows)
            left = jnp.where(is_seen[:, codes.column_of_code], one_hots, 0.0)
            logits = all_logits(params, left, 1.0 - number / codes.num_columns)
            drawn = codes.draw(logits, jax.random.fold_in(code_key, number))
            return jnp.where((places == number) & ~is_fixed[None], drawn, rows)

        return jax.lax.fori_loop(is_fixed.sum(), codes.num_columns, reveal, start)

    @jax.jit
    def denoise(params, noisy, sigma):
        """The expected one-hot record given a noisy one."""
        return jax.vmap(lambda row: codes.probabilities(seen_through(params, row, sigma)))(noisy)

    @jax.jit
    def draw_codes(params, noisy, sigma, key):
        return codes.draw(jax.vmap(seen_through, in_axes=(None, 0, None))(params, noisy, sigma), key)

    def flow_block(params, key):
        start_key, code_key = jax.random.split(key)
        noise = sigmas[0] * jax.random.normal(start_key, (_BLOCK, codes.num_codes))
        noisy = samplers.heun(lambda rows, sigma: denoise(params, rows, sigma), noise, sigmas[:-1])
        return draw_codes(params, noisy, sigmas[-2], code_key)

    def sample(params, key, num_samples, conditions=None):
        if conditions and kind == "gaussian":
            raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
        fixed = np.full(codes.num_columns, -1, np.int32)
        for column, code in (conditions or {}).items():
            fixed[column] = code
        params, keys = jax.device_put(params), jax.random.split(key, -(-num_samples // _BLOCK))
        if kind == "absorbing":
            blocks = [reveal_block(params, block_key, fixed) for block_key in keys]
        else:
            blocks = [flow_block(params, block_key) for block_key in keys]
        return np.concatenate(jax.device_get(blocks))[:num_samples].astype(np.int32)

    def calibrate(params, marginals, key):
        """Columns of which nothing is seen have the released frequencies."""
        del key
        shares = np.concatenate([np.maximum(counts, 0.0) / max(counts.sum(), 1.0) for counts in marginals.one_way])
        bias = np.log(np.maximum(shares, math.exp(_RAREST)))
        return {**params, "public": {"bias": jnp.asarray(bias, jnp.float32)}}

    return Generator(
        init=init,
        private_loss=absorbing_loss if kind == "absorbing" else gaussian_loss,
        public_loss=None,
        calibrate=calibrate,
        sample=sample,
        exact_conditions=lambda columns: tuple(sorted(columns)) if kind == "absorbing" else (),
    )


def _check(kind: str, noise_stddev: float) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} must be one of {', '.join(KINDS)}")
    if not 0 <= noise_stddev < math.inf:
        raise ValueError(f"noise_stddev {noise_stddev} must be a finite number, 0 or more")
