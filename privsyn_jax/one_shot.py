"""Generators that learn from a few noisy sums: which of them a run buys, and what is made of the sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from privsyn_jax.models import IMAGE_GENERATORS, ONE_SHOT, class_gaussian
from privsyn_jax.settings import Settings
from privsyn_jax.types import Generator, ImageSchema, Params


class NoisySums(NamedTuple):
    """Released sums, one for each stage; see `privacy.release.embedding_sum`."""

    sums: tuple[np.ndarray, ...]  # float64 [num_groups, m]
    stddevs: tuple[float, ...]  # of the noise of each entry


class Buyer(NamedTuple):
    """A generator whose stages are bought, for a share of the budget."""

    generator: Generator
    share: float


def buyer_of(settings: Settings, schema: ImageSchema) -> Buyer | None:
    """The model itself, if it learns in one shot, or what its warm start is drawn from; or None."""
    shape_and_classes = {"image_shape": schema.shape, "num_classes": len(schema.classes)}
    if settings.model["name"] in ONE_SHOT:
        arguments = {name: value for name, value in settings.model.items() if name != "name"}
        return Buyer(IMAGE_GENERATORS[settings.model["name"]](**shape_and_classes, **arguments), 1.0)
    warm = settings.warm_start
    if not warm.buys:
        return None
    generator = class_gaussian.make(
        **shape_and_classes,
        num_frequencies=warm.num_frequencies,
        radius=warm.radius,
        radius_within=warm.radius_within,
        center=warm.center,
        covariances="gaussian" in warm.kinds,
    )
    return Buyer(generator, settings.privacy.budget.warm_start)


def absorb(generator: Generator, bought: NoisySums, *, seed: int, num_stages: int | None = None) -> Params:
    """Parameters after the first stages, by default all."""
    key = jax.random.key(seed)
    params = generator.init(key)
    stages: Sequence = generator.stages[:num_stages]
    for number, (stage, noisy_sum, stddev) in enumerate(zip(stages, bought.sums, bought.stddevs, strict=False)):
        params = stage.absorb(params, noisy_sum, stddev, jax.random.fold_in(key, number))
    return params
