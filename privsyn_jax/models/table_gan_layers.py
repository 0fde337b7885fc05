"""What adversarial generators of tables share: networks over one-hot columns, and how a GAN is put together.

A fake record leaves the generator as one relaxed one-hot vector per column (Gumbel softmax), so that the critic's
opinion of it can be differentiated; records released are drawn from the same softmax exactly. Each loss is of one real
record and its own fake ones: nothing mixes records, and there is no batch norm. The critic is all that DP-SGD trains;
the generator sees records through it alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.flat_codes import FlatCodes, check_hidden_dims
from privsyn_jax.types import Generator, Params

LOSSES = ("wasserstein", "logistic")
_BLOCK = 1024  # records drawn at once
_LARGEST_LOGIT = 15.0  # of a bounded one: a code may still be as rare as 1e-6


class GeneratorNet(nn.Module):
    """Latent, and a condition if any -> logits [S]; every layer sees those before it (Xu et al. 2019, section 4.4)."""

    num_codes: int
    hidden_dims: Sequence[int]
    largest: float = _LARGEST_LOGIT
    starts_at_zero: bool = False

    @nn.compact
    def __call__(self, inputs):
        hidden = inputs
        for width in self.hidden_dims:
            found = nn.relu(nn.LayerNorm()(nn.Dense(width)(hidden)))
            hidden = jnp.concatenate([found, hidden])
        start = nn.initializers.zeros if self.starts_at_zero else nn.linear.default_kernel_init
        return self.largest * jnp.tanh(nn.Dense(self.num_codes, kernel_init=start)(hidden) / self.largest)


class Critic(nn.Module):
    """One-hot record, and a condition if any -> score []."""

    hidden_dims: Sequence[int]

    @nn.compact
    def __call__(self, inputs):
        hidden = inputs
        for width in self.hidden_dims:
            hidden = nn.leaky_relu(nn.Dense(width)(hidden), 0.2)
        return nn.Dense(1)(hidden)[0]


def make_table_gan(
    codes: FlatCodes,
    *,
    latent_dim: int,
    critic_dims: Sequence[int],
    generator_dims: Sequence[int],
    loss: str,
    temperature: float,
    num_fakes: int,
    penalty_weight: float,
    weight_bound: float,
    conditional: bool,
) -> Generator:
    """Generator of int32 codes [d]; params["private"] is the critic.

    Args:
      codes: the columns.
      latent_dim: length of the latent.
      critic_dims, generator_dims: widths of hidden layers; the generator receives no noise, so it may be large.
      loss: "wasserstein", or "logistic" (Goodfellow et al. 2014, the generator's loss not saturating).
      temperature: of the relaxed one-hot vectors.
      num_fakes: fake records that one real record is compared with, averaged before clipping.
      penalty_weight: of the gradient penalty between a real and a fake record, which takes per-example gradients out
        of the fast path; 0 for none.
      weight_bound: every weight of the critic is clipped to it after every step; 0 for no bound.
      conditional: both networks are told the code of one column, see `ctgan`.

    Raises:
      ValueError: an argument that makes no sense.
    """
    critic_widths = check_hidden_dims("critic_dims", critic_dims)
    net = GeneratorNet(codes.num_codes, check_hidden_dims("generator_dims", generator_dims))
    critic = Critic(critic_widths)
    check_gan(latent_dim, loss, temperature, num_fakes, penalty_weight, weight_bound)
    init_net, init_critic = jax.jit(net.init), jax.jit(critic.init)
    condition_dim = codes.num_codes if conditional else 0

    def init(key):
        net_key, critic_key = jax.random.split(key)
        public = {"net": init_net(net_key, jnp.zeros(latent_dim + condition_dim))["params"]}
        if conditional:
            public["conditions"] = jnp.zeros(codes.num_codes)  # log p(code) of its column: even until told
        private = init_critic(critic_key, jnp.zeros(codes.num_codes + condition_dim))["params"]
        return {"private": private, "public": public}

    def fake_logits(public, condition, key) -> jax.Array:
        latent = jax.random.normal(key, (latent_dim,))
        logits: Any = net.apply({"params": public["net"]}, jnp.concatenate([latent, condition]))
        return logits

    def fake_row(public, condition, key) -> tuple[jax.Array, jax.Array]:
        """(relaxed one-hot record [S], logits [S])"""
        latent_key, gumbel_key = jax.random.split(key)
        logits = fake_logits(public, condition, latent_key)
        noisy = (logits + jax.random.gumbel(gumbel_key, logits.shape)) / temperature
        return codes.probabilities(noisy), logits

    def score(private, row, condition) -> jax.Array:
        scored: Any = critic.apply({"params": private}, jnp.concatenate([row, condition]))
        return scored

    def private_loss(params, example, key):
        condition_key, fake_key, penalty_key = jax.random.split(key, 3)
        condition = jnp.zeros(0)
        if conditional:
            column = jax.random.randint(condition_key, (), 0, codes.num_columns)
            condition = jax.nn.one_hot(example[column] + jnp.asarray(codes.offsets)[column], codes.num_codes)
        real, fake_keys = codes.one_hot(example), jax.random.split(fake_key, num_fakes)
        fakes = jax.vmap(lambda fake_key: fake_row(params["public"], condition, fake_key)[0])(fake_keys)
        own_score = lambda row: score(params["private"], row, condition)  # noqa: E731
        scores = jax.vmap(own_score)(jnp.concatenate([real[None], fakes]))  # one use of each weight
        of_real, of_fakes = scores[0], scores[1:]
        if loss == "wasserstein":
            total = of_fakes.mean() - of_real
        else:
            total = jax.nn.softplus(-of_real) + jax.nn.softplus(of_fakes).mean()
        if penalty_weight:
            total += penalty_weight * _penalty(own_score, real, fakes[0], penalty_key)
        return total

    def public_loss(params, key):
        condition_key, fake_key = jax.random.split(key)
        condition, column = jnp.zeros(0), jnp.int32(0)
        if conditional:
            code, column = draw_condition(params["public"], condition_key)
            condition = jax.nn.one_hot(code, codes.num_codes)
        row, logits = fake_row(params["public"], condition, fake_key)
        scored = score(params["private"], row, condition)
        total = -scored if loss == "wasserstein" else jax.nn.softplus(-scored)
        if conditional:  # the column that was told must come out as told
            own = jnp.asarray(codes.own)[column]
            total += codes.log_normalizers(logits)[column] - jnp.sum(own * condition * logits)
        return total

    def draw_condition(public, key, column=None) -> tuple[jax.Array, jax.Array]:
        """(flat code, column)"""
        column_key, code_key = jax.random.split(key)
        if column is None:
            column = jax.random.randint(column_key, (), 0, codes.num_columns)
        logits = jax.lax.stop_gradient(public["conditions"])
        own = jnp.where(jnp.asarray(codes.own)[column] > 0, logits, -jnp.inf)
        return jax.random.categorical(code_key, own).astype(jnp.int32), column

    def draw_one(public, key, fixed):
        """(logits [S], column and flat code of the condition); `fixed` (column, flat code), or (-1, -1) to draw one."""
        condition_key, fake_key = jax.random.split(key)
        condition, column, code = jnp.zeros(0), jnp.int32(-1), jnp.int32(-1)
        if conditional:
            drawn = draw_condition(public, condition_key)
            code, column = (jnp.where(fixed[0] >= 0, own, other) for own, other in zip(fixed[::-1], drawn, strict=True))
            condition = jax.nn.one_hot(code, codes.num_codes)
        return fake_logits(public, condition, fake_key), column, code

    @jax.jit
    def draw_block(params, key, fixed):
        net_key, code_key = jax.random.split(key)
        keys = jax.random.split(net_key, _BLOCK)
        logits, columns, told = jax.vmap(draw_one, in_axes=(None, 0, None))(params["public"], keys, fixed)
        rows = codes.draw(logits, code_key)
        if not conditional:
            return rows
        is_told = columns[:, None] == jnp.arange(codes.num_columns)[None]
        return jnp.where(is_told, (told - jnp.asarray(codes.offsets)[columns])[:, None], rows)

    def sample(params, key, num_samples, conditions=None):
        if conditions and not (conditional and len(conditions) == 1):
            raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
        fixed = np.full(2, -1, np.int32)
        for column, code in (conditions or {}).items():
            fixed[:] = column, code + codes.offsets[column]
        params, keys = jax.device_put(params), jax.random.split(key, -(-num_samples // _BLOCK))
        blocks = [draw_block(params, block_key, fixed) for block_key in keys]
        return np.concatenate(jax.device_get(blocks))[:num_samples].astype(np.int32)

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=public_loss,
        calibrate=_with_conditions if conditional else None,
        sample=sample,
        exact_conditions=lambda columns: tuple(sorted(columns)[:1]) if conditional else (),
        project=bounded(weight_bound) if weight_bound else None,
    )


def _penalty(score: Callable, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
    """How far the critic's slope between the two records is from 1, squared (Gulrajani et al. 2017)."""
    share = jax.random.uniform(key)
    slope = jax.grad(score)(share * real + (1 - share) * fake)
    return jnp.square(jnp.sqrt(jnp.sum(jnp.square(slope)) + 1e-12) - 1.0)  # the root of 0 has no gradient


def bounded(weight_bound: float) -> Callable[..., Params]:
    """`project` onto critics whose slope the bound of their weights limits (Arjovsky et al. 2017, Algorithm 1)."""
    clip = lambda leaf: jnp.clip(leaf, -weight_bound, weight_bound)  # noqa: E731
    return lambda private: jax.tree.map(clip, private)


def _with_conditions(params: Params, marginals: Any, key: jax.Array) -> Params:
    """`calibrate`: conditions are drawn as often as the released counts say."""
    del key
    counts = np.concatenate([np.maximum(counts, 0.0) for counts in marginals.one_way])
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(counts), -30.0)
    return {**params, "public": {**params["public"], "conditions": jnp.asarray(logits, jnp.float32)}}


def check_gan(
    latent_dim: int, loss: str, temperature: float, num_fakes: int, penalty_weight: float, weight_bound: float
) -> None:
    for name, value in {"latent_dim": latent_dim, "num_fakes": num_fakes}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} {value!r} must be a whole number, at least 1")
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r} must be one of {', '.join(LOSSES)}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature {temperature} must be a finite number above 0")
    for name, value in {"penalty_weight": penalty_weight, "weight_bound": weight_bound}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} {value} must be a finite number, 0 or more")
    if penalty_weight and weight_bound:
        raise ValueError("penalty_weight and weight_bound both bound the critic's slope: set one of them to 0")
