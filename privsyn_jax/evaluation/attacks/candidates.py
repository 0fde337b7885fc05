"""Who is attacked, and what the adversary knows: members, controls, reference records, synthetic records."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.evaluation.encode import Encoded, Levels, encode_table, make_levels
from privsyn_jax.types import Schema, UserError

MAX_CANDIDATES = 6_000  # of each kind: 4,800 controls are the fewest that bound a rate at 0.1 % false positives
MAX_KNOWN = 50_000  # synthetic and reference records that an attack looks at
LEAST = 4  # records of each kind without which nothing can be said


class Tables(NamedTuple):
    """Encoded tables of an attack.

    Attributes:
      all_levels: one per column that is not an id; made from the synthetic and the reference rows, which the adversary
        has, so that no bound or category comes from the candidates.
      members: rows trained on.
      controls: as many held-out rows.
      reference: other held-out rows, which the adversary knows not to have been trained on.
      synthetic: rows that were released.
    """

    all_levels: list[Levels]
    members: Encoded
    controls: Encoded
    reference: Encoded
    synthetic: Encoded


class Drawn(NamedTuple):
    """Positions int64 of the records of each kind, see `Tables`."""

    members: np.ndarray
    controls: np.ndarray
    reference: np.ndarray
    synthetic: np.ndarray


def draw(num_train: int, num_test: int, num_synthetic: int, *, seed: int, most: int = MAX_CANDIDATES) -> Drawn:
    """Random subsets: half of the held-out records become the reference, the others controls; members as many.

    Args:
      num_train, num_test, num_synthetic: records of each kind.
      seed: of the draw.
      most: members and controls that are kept.

    Raises:
      UserError: a kind has too few records.
    """
    least = {"training": (num_train, LEAST), "held-out": (num_test, 2 * LEAST), "synthetic": (num_synthetic, LEAST)}
    for described, (number, needed) in least.items():
        if number < needed:
            raise UserError(f"there are {number} {described} records: give at least {needed}")
    rng = np.random.default_rng(seed)
    test = rng.permutation(num_test)
    size = min(most, num_train, num_test // 2)
    return Drawn(
        rng.permutation(num_train)[:size],
        test[:size],
        test[num_test // 2 :][:MAX_KNOWN],
        rng.permutation(num_synthetic)[:MAX_KNOWN],
    )


def prepare(
    schema: Schema,
    train: pd.DataFrame,
    test: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    seed: int,
    most: int = MAX_CANDIDATES,
) -> Tables:
    """Draws and encodes what the attacks on tables need.

    Args:
      schema: public facts; ids are left out.
      train, test, synthetic: tables in canonical dtypes; an unknown category counts as one more category.
      seed: of the draw.
      most: members and controls that are kept.

    Raises:
      UserError: a table has too few rows or lacks a column, or the schema has no column but ids.
    """
    columns = schema.modelled
    if not columns:
        raise UserError("the schema holds ids only: name a column that is learned")
    for described, table in (("training", train), ("held-out", test), ("synthetic", synthetic)):
        absent = [column.name for column in columns if column.name not in table.columns]
        if absent:
            raise UserError(f"the {described} table lacks the column {absent[0]}: add it or take it from the schema")
    drawn = draw(len(train), len(test), len(synthetic), seed=seed, most=most)
    parts = [table.iloc[places] for table, places in zip((train, test, test, synthetic), drawn, strict=True)]
    known = (parts[3], parts[2])
    all_levels = [make_levels(column, [pd.Series(table[column.name]) for table in known]) for column in columns]
    return Tables(all_levels, *(encode_table(all_levels, table) for table in parts))
