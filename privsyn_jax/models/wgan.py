"""Wasserstein GAN of table codes: no conditions, and a critic whose slope is bounded.

The generator's logits are corrections of released log frequencies where these were bought, and calibrated to them after
training.

The bound is one of every weight (Arjovsky et al. 2017), which keeps per-example gradients on the fast path, or with
penalty_weight a penalty of the slope between a real and a fake record (Gulrajani et al. 2017), which does not. With
loss="logistic" and no bound it is the original GAN.

Source: Arjovsky et al. 2017, "Wasserstein Generative Adversarial Networks".
"""

from __future__ import annotations

from privsyn_jax.models.flat_codes import FlatCodes
from privsyn_jax.models.table_gan_layers import make_table_gan
from privsyn_jax.types import Generator


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    latent_dim: int = 64,
    critic_dims: tuple[int, ...] = (64,),
    generator_dims: tuple[int, ...] = (128, 128),
    loss: str = "wasserstein",
    temperature: float = 0.66,
    num_fakes: int = 1,
    penalty_weight: float = 0.0,
    weight_bound: float = 0.1,
) -> Generator:
    """Generator of int32 codes [d].

    Args:
      cardinalities: number of codes of each column.
      column_order: not used: the columns are drawn together.
      latent_dim, critic_dims, generator_dims, loss, temperature, num_fakes, penalty_weight, weight_bound: see
        `table_gan_layers.make_table_gan`.
    """
    del column_order
    return make_table_gan(
        FlatCodes(tuple(cardinalities)),
        latent_dim=latent_dim,
        critic_dims=critic_dims,
        generator_dims=generator_dims,
        loss=loss,
        temperature=temperature,
        num_fakes=num_fakes,
        penalty_weight=penalty_weight,
        weight_bound=weight_bound,
    )
