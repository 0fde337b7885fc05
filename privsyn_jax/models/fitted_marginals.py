"""Generator fitted to purchased marginals alone: the autoregressive generator's logits, without a step on records.

Which pairs are measured is chosen privately and all of the budget goes there; the logits of a column, a bias and a
table for each earlier one, are then fitted so that the generator's own marginals meet the noisy ones.

Source: of the way (select, measure, fit a generator): Liu, Vietri and Wu 2021, "Iterative Methods for Private Synthetic
Data: Unifying Framework and New Methods" (GEM); of the fit: see models.autoregressive.
"""

from __future__ import annotations

from privsyn_jax.models import autoregressive
from privsyn_jax.types import Generator


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    prior_strength: float = 12.0,
    num_calibration_rows: int = 65_536,
) -> Generator:
    """Generator of int32 codes [d].

    Args:
      cardinalities, column_order, prior_strength, num_calibration_rows: see models.autoregressive.make.
    """
    whole = autoregressive.make(
        cardinalities=cardinalities,
        column_order=column_order,
        prior_strength=prior_strength,
        num_calibration_rows=num_calibration_rows,
        width=1,
        num_layers=1,
        num_heads=1,
        mlp_ratio=1,
    )
    return whole._replace(private_loss=None)  # the network's logits are 0 until a step is taken
