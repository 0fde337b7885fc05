"""Parameters and a key to images or texts, with conditions on the label. Post-processing: no record is read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from privsyn_jax.transforms.images import ImageTransform
from privsyn_jax.transforms.texts import TextTransform
from privsyn_jax.types import Generator, Images, ImageSchema, Params, Texts, TextSchema, UserError

LABEL = "label"  # the only condition there is


class LabelledSynthesis(NamedTuple):
    """Synthetic images or texts, and how conditions were met."""

    records: Images | Texts
    exact: tuple[str, ...]  # conditions met by drawing for them
    rejected_on: tuple[str, ...]  # none: no record is drawn again


def synthesize(
    generator: Generator,
    params: Params,
    transform: ImageTransform | TextTransform,
    *,
    num_samples: int,
    conditions: Mapping[str, Any] | None,
    constraints: str = "",
    key: jax.Array,
) -> LabelledSynthesis:
    """Draws records of all classes evenly, or of those that conditions["label"] names: one name or a list of names.

    Raises:
      UserError: another condition, a class that the schema does not have, or constraints, which are for tables.
    """
    refuse_constraints(constraints)
    wanted = wanted_classes(transform.schema, conditions or {})
    if not wanted:
        return LabelledSynthesis(transform.decode(generator.sample(params, key, num_samples, {})), (), ())
    shares = np.full(len(wanted), num_samples // len(wanted))
    shares[: num_samples % len(wanted)] += 1
    parts = [
        generator.sample(params, jax.random.fold_in(key, number), int(share), {0: number})
        for number, share in zip(wanted, shares, strict=True)
        if share
    ]
    drawn = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    return LabelledSynthesis(transform.decode(drawn), (LABEL,), ())


def refuse_constraints(constraints: str) -> None:
    """Raises UserError where there are any."""
    if constraints:
        raise UserError("synthesis.constraints is for tables, and these are images or texts: set it to ''")


def wanted_classes(schema: ImageSchema | TextSchema, conditions: Mapping[str, Any]) -> list[int]:
    """Labels that the conditions ask for; none for no condition."""
    for name in conditions:
        if name != LABEL:
            raise UserError(f"condition on {name!r}: only {LABEL!r} can be conditioned on here, a class or a list")
    if LABEL not in conditions:
        return []
    given = conditions[LABEL]
    names = [str(name) for name in (given if isinstance(given, list | tuple) else [given])]
    unknown = [name for name in names if name not in schema.classes]
    if unknown or not names:
        raise UserError(
            f"condition on {LABEL!r} is {given!r}: name classes of the schema ({', '.join(schema.classes[:20])})"
        )
    return [schema.classes.index(name) for name in dict.fromkeys(names)]
