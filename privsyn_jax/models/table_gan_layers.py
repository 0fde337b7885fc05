"""What adversarial generators of tables share: networks over one-hot columns, and how a GAN is put together.

A fake record leaves the generator as one relaxed one-hot vector per column (Gumbel softmax), so that the critic's
opinion of it can be differentiated; records released are drawn from the same softmax exactly. Each loss is of one real
record and its own fake ones: nothing mixes records, and there is no batch norm. The critic is all that DP-SGD trains;
the generator sees records through it alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.flat_codes import FlatCodes, check_hidden_dims
from privsyn_jax.models.one_way import log_shares, matching_bias
from privsyn_jax.models.told_column import ToldColumn
from privsyn_jax.types import Generator, Params

LOSSES = ("wasserstein", "logistic")
_BLOCK = 1024  # records drawn at once
_CALIBRATION_ROWS = 4096
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
    told: ToldColumn | None = None,
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
      told: both networks are told the code of one column, and the generator corrects the counts that came with it;
        None where it corrects released counts of single columns, and nothing is told.

    Raises:
      ValueError: an argument that makes no sense.
    """
    critic_widths = check_hidden_dims("critic_dims", critic_dims)
    dims = check_hidden_dims("generator_dims", generator_dims)
    net = GeneratorNet(codes.num_codes, dims, starts_at_zero=told is not None)
    critic = Critic(critic_widths)
    check_gan(latent_dim, loss, temperature, num_fakes, penalty_weight, weight_bound)
    init_net, init_critic = jax.jit(net.init), jax.jit(critic.init)
    condition_dim = codes.num_codes if told is not None else 0

    def init(key):
        net_key, critic_key = jax.random.split(key)
        public = {"net": init_net(net_key, jnp.zeros(latent_dim + condition_dim))["params"]}
        if told is not None:
            public["told"] = told.empty()
        else:
            public["bias"] = jnp.zeros(codes.num_codes)
        private = init_critic(critic_key, jnp.zeros(codes.num_codes + condition_dim))["params"]
        return {"private": private, "public": public}

    def generate(public, condition, key) -> jax.Array:
        latent = jax.random.normal(key, (latent_dim,))
        seen = latent if told is None else jnp.concatenate([latent, told.one_hot(condition)])
        logits: Any = net.apply({"params": public["net"]}, seen)
        return logits

    def fake_logits(public, condition, key) -> jax.Array:
        logits = generate(public, condition, key)
        if told is None:
            return logits + jax.lax.stop_gradient(public["bias"])
        return told.complete(jax.lax.stop_gradient(public["told"]), condition, logits)

    def fake_row(public, condition, key) -> jax.Array:
        """Relaxed one-hot record [S]."""
        latent_key, gumbel_key = jax.random.split(key)
        logits = fake_logits(public, condition, latent_key)
        return codes.probabilities((logits + jax.random.gumbel(gumbel_key, logits.shape)) / temperature)

    def score(private, row, condition) -> jax.Array:
        seen = row if told is None else jnp.concatenate([row, told.one_hot(condition)])
        scored: Any = critic.apply({"params": private}, seen)
        return scored

    def private_loss(params, example, key):
        condition_key, fake_key, penalty_key = jax.random.split(key, 3)
        condition = told.of_record(example, condition_key) if told is not None else None
        real, fake_keys = codes.one_hot(example), jax.random.split(fake_key, num_fakes)
        fakes = jax.vmap(lambda fake_key: fake_row(params["public"], condition, fake_key))(fake_keys)
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

    def draw_condition(public, key) -> Any:
        return told.draw(jax.lax.stop_gradient(public["told"]), key) if told is not None else None

    def public_loss(params, key):
        condition_key, fake_key = jax.random.split(key)
        condition = draw_condition(params["public"], condition_key)
        scored = score(params["private"], fake_row(params["public"], condition, fake_key), condition)
        return -scored if loss == "wasserstein" else jax.nn.softplus(-scored)

    def draw_one(public, key, fixed):
        """Logits [S]; `fixed` (column, code), or (-1, -1) to draw what is told."""
        condition_key, fake_key = jax.random.split(key)
        condition = draw_condition(public, condition_key)
        if condition is not None:
            condition = tuple(jnp.where(fixed[0] >= 0, own, drawn) for own, drawn in zip(fixed, condition, strict=True))
        return fake_logits(public, condition, fake_key)

    @jax.jit
    def draw_block(params, key, fixed):
        net_key, code_key = jax.random.split(key)
        keys = jax.random.split(net_key, _BLOCK)
        return codes.draw(jax.vmap(draw_one, in_axes=(None, 0, None))(params["public"], keys, fixed), code_key)

    @jax.jit
    def calibrated(public, key):
        assert told is not None
        return {**public, "told": told.calibrated(public["told"], functools.partial(generate, public), key)}

    @jax.jit
    def corrections(public, key):
        return jax.vmap(generate, in_axes=(None, None, 0))(public, None, jax.random.split(key, _CALIBRATION_ROWS))

    def calibrate(params, bought, key):
        """Columns come out with the released frequencies."""
        public = params["public"]
        if told is not None:
            return {**params, "public": calibrated(public, key)}  # to what was absorbed before
        bias = matching_bias(codes, corrections(public, key), log_shares(bought.one_way))
        return {**params, "public": {**public, "bias": bias}}

    def exact_conditions(columns):
        if told is None:
            return ()
        return tuple(column for column in sorted(columns) if told.column in (None, column))[:1]

    def sample(params, key, num_samples, conditions=None):
        if conditions and exact_conditions(conditions) != tuple(conditions):
            raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
        fixed = np.full(2, -1, np.int32)
        for column, code in (conditions or {}).items():
            fixed[:] = column, code
        params, keys = jax.device_put(params), jax.random.split(key, -(-num_samples // _BLOCK))
        blocks = [draw_block(params, block_key, fixed) for block_key in keys]
        return np.concatenate(jax.device_get(blocks))[:num_samples].astype(np.int32)

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=public_loss,
        calibrate=calibrate,
        sample=sample,
        exact_conditions=exact_conditions,
        stages=(told.stage(),) if told is not None else (),
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
