"""Noisy sums that generators learn from or start from: which of them a run buys, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from privsyn_jax.models import IMAGE_GENERATORS, ONE_SHOT, class_gaussian, make_of
from privsyn_jax.settings import Settings
from privsyn_jax.transforms.texts import TextTransform
from privsyn_jax.types import Generator, ImageSchema, Params, UserError


class NoisySums(NamedTuple):
    """Released sums, one for each stage; see `privacy.release.embedding_sum` and `sparse_sum`."""

    sums: tuple[np.ndarray, ...]  # float64 [num_groups, m], or [size]
    stddevs: tuple[float, ...]  # of the noise of each entry


class Buyer(NamedTuple):
    """A generator whose stages are bought, for a share of the budget."""

    generator: Generator
    share: float


def image_buyer(settings: Settings, schema: ImageSchema) -> Buyer | None:
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


def text_generator(settings: Settings, transform: TextTransform) -> Generator:
    """The generator of texts named by the settings.

    Raises:
      UserError: an argument that the generator refuses.
    """
    arguments = dict(settings.model)
    make = make_of(arguments.pop("name"))
    try:
        return make(
            num_classes=transform.num_classes,
            length=transform.max_length,
            frequencies=transform.tokenizer.frequencies,
            kinds=transform.tokenizer.kinds,
            **arguments,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"the section model of the settings does not fit: {error}") from None


def text_buyer(settings: Settings, transform: TextTransform) -> Buyer | None:
    """The model itself, which learns from noisy counts or starts from them; None if it gets no share of the budget."""
    budget = settings.privacy.budget
    share = 1.0 - (budget.vocabulary if settings.tokens.is_bought else 0.0)
    if settings.model["name"] not in ONE_SHOT:
        share = budget.ngrams
    return Buyer(text_generator(settings, transform), share) if share > 0 else None


def absorb(
    generator: Generator,
    bought: NoisySums,
    *,
    seed: int,
    num_stages: int | None = None,
    params: Params | None = None,
) -> Params:
    """Parameters after the first stages, by default all.

    Args:
      params: to start from; by default the generator's first ones.
    """
    key = jax.random.key(seed)
    params = generator.init(key) if params is None else params
    stages: Sequence = generator.stages[:num_stages]
    for number, (stage, noisy_sum, stddev) in enumerate(zip(stages, bought.sums, bought.stddevs, strict=False)):
        params = stage.absorb(params, noisy_sum, stddev, jax.random.fold_in(key, number))
    return params
