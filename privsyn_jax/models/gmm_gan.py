"""A Gaussian mixture of table codes, refined by a GAN.

The mixture is bought by one noisy sum and gives sensible records by itself, see `code_mixture`. The generator sees a
draw of it, and noise, and corrects its logits; it starts at no correction. The critic is trained by DP-SGD, as that of
`wgan`; the mixture is not trained on.

Source: Ben-Yosef and Weinshall 2018, "Gaussian Mixture Generative Adversarial Networks for Diverse Datasets, and the
Unsupervised Clustering of Images" (a mixture in front of the generator); Arjovsky et al. 2017, "Wasserstein Generative
Adversarial Networks".
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.code_mixture import CodeMixture
from privsyn_jax.models.flat_codes import FlatCodes, check_hidden_dims
from privsyn_jax.models.table_gan_layers import Critic, GeneratorNet, bounded, check_gan
from privsyn_jax.types import Generator

_BLOCK = 1024  # records drawn at once
_LARGEST_CORRECTION = 10.0
_MOST_CODES = 1000  # the mixture has a covariance of all of them


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    by_target: bool = True,
    latent_dim: int = 16,
    critic_dims: tuple[int, ...] = (64,),
    generator_dims: tuple[int, ...] = (128,),
    loss: str = "wasserstein",
    temperature: float = 0.2,
    num_fakes: int = 1,
    weight_bound: float = 0.1,
) -> Generator:
    """Generator of int32 codes [d]; the column of the mixture's components can be fixed exactly.

    Args:
      cardinalities: number of codes of each column.
      column_order: the codes of its first, the target by default, are the components; the columns are drawn together.
      by_target: False for one Gaussian of all records.
      latent_dim: noise that the generator sees besides the mixture's draw.
      critic_dims, generator_dims, loss, temperature, num_fakes, weight_bound: see `table_gan_layers.make_table_gan`.
    """
    codes, column = FlatCodes(tuple(cardinalities)), column_order[0] if column_order else 0
    check_gan(latent_dim, loss, temperature, num_fakes, 0.0, weight_bound)
    if codes.num_codes > _MOST_CODES:
        raise ValueError(f"the columns have {codes.num_codes} codes, more than {_MOST_CODES}: lower transform.num_bins")
    mixture = CodeMixture(codes, column, codes.cardinalities[column] if by_target else 1)
    dims = check_hidden_dims("generator_dims", generator_dims)
    net = GeneratorNet(codes.num_codes, dims, largest=_LARGEST_CORRECTION, starts_at_zero=True)
    critic = Critic(check_hidden_dims("critic_dims", critic_dims))
    init_net, init_critic = jax.jit(net.init), jax.jit(critic.init)

    def init(key):
        net_key, critic_key = jax.random.split(key)
        public = {
            "net": init_net(net_key, jnp.zeros(codes.num_codes + latent_dim))["params"],
            "base": mixture.empty(),
        }
        return {"private": init_critic(critic_key, jnp.zeros(codes.num_codes))["params"], "public": public}

    def draw_logits(public, component, key) -> jax.Array:
        base_key, noise_key = jax.random.split(key)
        base = mixture.logits(jax.lax.stop_gradient(public["base"]), component, base_key)
        noise = jax.random.normal(noise_key, (latent_dim,))
        seen = jnp.concatenate([base / _LARGEST_CORRECTION, noise])
        correction: Any = net.apply({"params": public["net"]}, seen)
        return mixture.with_label(base + correction, component)

    def draw_component(public, key):
        return jax.random.categorical(key, jnp.log(jax.lax.stop_gradient(public["base"]["shares"])))

    def fake_row(public, key) -> jax.Array:
        """Relaxed one-hot record [S]."""
        component_key, logit_key, gumbel_key = jax.random.split(key, 3)
        logits = draw_logits(public, draw_component(public, component_key), logit_key)
        return codes.probabilities((logits + jax.random.gumbel(gumbel_key, logits.shape)) / temperature)

    def score(private, row) -> jax.Array:
        scored: Any = critic.apply({"params": private}, row)
        return scored

    def private_loss(params, example, key):
        fakes = jax.vmap(fake_row, in_axes=(None, 0))(params["public"], jax.random.split(key, num_fakes))
        rows = jnp.concatenate([codes.one_hot(example)[None], fakes])
        scores = jax.vmap(score, in_axes=(None, 0))(params["private"], rows)  # one use of each weight
        if loss == "wasserstein":
            return scores[1:].mean() - scores[0]
        return jax.nn.softplus(-scores[0]) + jax.nn.softplus(scores[1:]).mean()

    def public_loss(params, key):
        scored = score(params["private"], fake_row(params["public"], key))
        return -scored if loss == "wasserstein" else jax.nn.softplus(-scored)

    @jax.jit
    def draw_block(params, key, fixed):
        component_key, logit_key, code_key = jax.random.split(key, 3)
        drawn = jax.vmap(draw_component, in_axes=(None, 0))(params["public"], jax.random.split(component_key, _BLOCK))
        components = jnp.where(fixed >= 0, fixed, drawn)
        keys = jax.random.split(logit_key, _BLOCK)
        return codes.draw(jax.vmap(draw_logits, in_axes=(None, 0, 0))(params["public"], components, keys), code_key)

    def exact_conditions(columns):
        return (column,) if mixture.num_components > 1 and column in columns else ()

    def sample(params, key, num_samples, conditions=None):
        conditions = dict(conditions or {})
        fixed = np.int32(conditions.pop(column, -1) if exact_conditions(conditions) else -1)
        if conditions:
            raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
        params, keys = jax.device_put(params), jax.random.split(key, -(-num_samples // _BLOCK))
        blocks = [draw_block(params, block_key, fixed) for block_key in keys]
        return np.concatenate(jax.device_get(blocks))[:num_samples].astype(np.int32)

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=public_loss,
        calibrate=None,
        sample=sample,
        exact_conditions=exact_conditions,
        stages=(mixture.stage(),),
        project=bounded(weight_bound) if weight_bound else None,
    )
