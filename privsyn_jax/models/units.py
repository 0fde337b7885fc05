"""Any generator of rows, trained on privacy units that own several of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.types import Generator, UnitRows


def of_units(generator: Generator, rows_per_unit: int) -> Generator:
    """The generator, whose private loss takes `UnitRows` of one unit: the sum of the losses of its rows.

    Clipping the gradient of an example then clips that of a unit with all its rows. A sum, not a mean, so that every
    row weighs the same up to clipping and what is learned is the distribution of rows. What is drawn are rows, as
    before. With one row per unit the generator itself: a unit is then encoded as its row.
    """
    private_loss = generator.private_loss
    if rows_per_unit == 1 or private_loss is None:
        return generator

    def unit_loss(params: Any, unit: UnitRows, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, rows_per_unit)
        losses = jax.vmap(private_loss, in_axes=(None, 0, 0))(params, unit.codes, keys)
        return jnp.sum(jnp.where(unit.is_row, losses, 0.0))

    return generator._replace(private_loss=unit_loss)
