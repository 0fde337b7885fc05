"""Conditional GAN of table codes (CTGAN), as far as differential privacy allows.

Both networks are told the code of one column: of a real record, its own code. The original looks for a real record that
has a code drawn by log frequency, which undoes Poisson sampling's amplification and needs exact frequencies; here
conditions follow the records in training and released counts everywhere else. A fake record has the told code by
construction, where the original adds a cross entropy. The counts are those of all columns, and the generator corrects
them, starting at no correction: a GAN that begins with noise learns next to nothing under a small epsilon. Columns are
binned on public or purchased grids where the original fits a mixture to raw rows; there is no batch norm; and packs
hold one record, as a record may enter one loss only.

Source: Xu et al. 2019, "Modeling Tabular Data using Conditional GAN".
"""

from __future__ import annotations

from privsyn_jax.models.flat_codes import FlatCodes
from privsyn_jax.models.table_gan_layers import make_table_gan
from privsyn_jax.models.told_column import ToldColumn
from privsyn_jax.types import Generator

CONDITIONS = ("target", "all")


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    condition: str = "target",
    latent_dim: int = 64,
    critic_dims: tuple[int, ...] = (64,),
    generator_dims: tuple[int, ...] = (128, 128),
    loss: str = "wasserstein",
    temperature: float = 0.2,
    num_fakes: int = 1,
    penalty_weight: float = 0.0,
    weight_bound: float = 0.1,
) -> Generator:
    """Generator of int32 codes [d]; one column can be fixed exactly.

    Args:
      cardinalities: number of codes of each column.
      column_order: its first is the target; the columns are drawn together.
      condition: "target", whose codes have counts of their own to start from, or "all": every column in turn, as in the
        paper, which start from the same counts.
      latent_dim, critic_dims, generator_dims, loss, temperature, num_fakes, penalty_weight, weight_bound: see
        `table_gan_layers.make_table_gan`.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition {condition!r} must be one of {', '.join(CONDITIONS)}")
    codes, target = FlatCodes(tuple(cardinalities)), column_order[0] if column_order else 0
    return make_table_gan(
        codes,
        latent_dim=latent_dim,
        critic_dims=critic_dims,
        generator_dims=generator_dims,
        loss=loss,
        temperature=temperature,
        num_fakes=num_fakes,
        penalty_weight=penalty_weight,
        weight_bound=weight_bound,
        told=ToldColumn(codes, target if condition == "target" else None),
    )
