"""Any generator of rows, trained on privacy units that own several of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.models.moments import within_unit
from privsyn_jax.types import Generator, Stage, UnitRows


def of_units(generator: Generator, rows_per_unit: int) -> Generator:
    """The generator, whose private loss takes `UnitRows` of one unit: the sum of the losses of its rows.

    Clipping the gradient of an example then clips that of a unit with all its rows. A sum, not a mean, so that every
    row weighs the same up to clipping and what is learned is the distribution of rows. What is drawn are rows, as
    before. Noisy sums over records become sums over units, see `_stage_of_units`. With one row per unit the generator
    itself: a unit is then encoded as its row.
    """
    private_loss = generator.private_loss
    if rows_per_unit == 1 or private_loss is None:
        return generator

    def unit_loss(params: Any, unit: UnitRows, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, rows_per_unit)
        losses = jax.vmap(private_loss, in_axes=(None, 0, 0))(params, unit.codes, keys)
        return jnp.sum(jnp.where(unit.is_row, losses, 0.0))

    return generator._replace(
        private_loss=unit_loss,
        stages=tuple(_stage_of_units(stage, rows_per_unit) for stage in generator.stages),
        after=tuple(_stage_of_units(stage, rows_per_unit) for stage in generator.after),
    )


def _stage_of_units(stage: Any, rows_per_unit: int) -> Stage:
    """The stage whose noisy sum is over units: each adds the vectors of its rows, divided by the most that it may own.

    That has norm at most 1, whatever groups the rows are in, so the noise on a sum over rows is `rows_per_unit` times
    that of single rows, and every row weighs the same.
    """

    def embed(params: Any, unit: UnitRows) -> tuple[int, jax.Array]:
        groups, vectors = jax.vmap(stage.embed, in_axes=(None, 0))(params, unit.codes)
        vectors = jnp.where(unit.is_row[:, None], jax.vmap(within_unit)(vectors), 0.0)
        by_group = jax.nn.one_hot(groups, stage.num_groups).T @ vectors
        return 0, by_group.reshape(-1) / rows_per_unit

    def absorb(params: Any, noisy_sum: Any, stddev: float, key: jax.Array) -> Any:
        by_group = noisy_sum.reshape(stage.num_groups, -1) * rows_per_unit
        return stage.absorb(params, by_group, stddev * rows_per_unit, key)

    return Stage(stage.name, stage.share, 1, embed, absorb)
