"""Privacy units that own several rows: whose a row is, which rows of a unit are read, which units are held out.

Every rule looks at the rows of one unit alone. So a unit added or removed, with however many rows, changes neither
which rows of another unit are kept nor on which side of the split that one is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pandas as pd

from privsyn_jax.data.categories import category_text, missing_mask
from privsyn_jax.types import Schema, UserError

# Parts of the public rules: changing one changes every split, or every choice among the rows of a unit.
_HELD_OUT, _KEPT = b"unit held out 20261129", b"row kept of its unit 20261129"


def unit_names(frame: pd.DataFrame, schema: Schema, *, source: str = "the table") -> np.ndarray:
    """Whose every row is, as text without blanks around it, so that 7 and 7.0 are one unit; object [n].

    Raises:
      UserError: a row does not say. It is no unit by itself: somebody may stand behind several such rows.
    """
    values: pd.Series = frame[schema.unit_column].reset_index(drop=True)  # type: ignore[assignment]
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    names = np.array([category_text(value).strip() for value in values], dtype=object)
    nobody = np.flatnonzero(missing_mask(values) | (names == ""))
    if len(nobody):
        raise UserError(
            f"column {schema.unit_column!r} of {source}, row {nobody[0] + 1}, does not say whose it is: fill it in, or "
            "remove the row"
        )
    return names


def keep_rows(frame: pd.DataFrame, schema: Schema, *, source: str = "the table") -> pd.DataFrame:
    """At most schema.max_records_per_unit rows of every unit, in the order given, with a fresh RangeIndex.

    Of a unit with more, those are kept whose sha256 is the smallest. It is taken of the unit and the row's modelled
    values, so that neither the order of the rows nor another unit matters; keeping twice changes nothing.

    Args:
      frame: in canonical dtypes, see `types.Records`.
    """
    if schema.unit_column is None:
        return frame
    names = unit_names(frame, schema, source=source)
    numbers, _ = pd.factorize(names)
    is_kept = np.bincount(numbers)[numbers] <= schema.rows_per_unit
    if is_kept.all():
        return frame
    rows = np.flatnonzero(~is_kept)
    values = frame[[column.name for column in schema.modelled]].iloc[rows].itertuples(index=False, name=None)
    crowded = zip(rows, values, strict=True)
    ranked = sorted((numbers[i], _digest(_KEPT, names[i], *map(str, row)), i) for i, row in crowded)
    for place, (number, _, i) in enumerate(ranked):
        is_kept[i] = place < schema.rows_per_unit or ranked[place - schema.rows_per_unit][0] != number
    return frame.loc[is_kept].reset_index(drop=True)


def bounded_by(schema: Schema) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A function that gives back the frame, for a mechanism whose noise rests on the bound.

    It raises ValueError where a unit has more rows than that.
    """

    def require_bounded(frame: pd.DataFrame) -> pd.DataFrame:
        if schema.unit_column is not None:
            numbers, _ = pd.factorize(unit_names(frame, schema))
            most = int(np.bincount(numbers).max(initial=0))
            if most > schema.rows_per_unit:
                raise ValueError(
                    f"a unit of {schema.unit_column!r} has {most} rows where {schema.rows_per_unit} are paid for: pass "
                    "the table through conform()"
                )
        return frame

    return require_bounded


def units_held_out(names: np.ndarray, test_fraction: float) -> np.ndarray:
    """Which rows are held out, with all of their unit: where its sha256, in [0, 1), is below the fraction; bool [n]."""
    numbers, distinct = pd.factorize(names)
    words = [int.from_bytes(_digest(_HELD_OUT, name)[:8], "big") >> 11 for name in distinct]
    return (np.array(words, np.uint64) * 2.0**-53 < test_fraction)[numbers]


def check_apart(train: pd.DataFrame, test: pd.DataFrame, schema: Schema, *, source: str) -> None:
    """Raises UserError when a unit has rows in both parts: whoever is trained on is no test of what is learned."""
    if schema.unit_column is None:
        return
    shared = set(unit_names(train, schema)) & set(unit_names(test, schema, source=source))
    if shared:
        raise UserError(
            f"{source} holds rows of {len(shared)} {schema.unit_column!r} that are trained on: keep all rows of one on "
            "one side"
        )


def _digest(rule: bytes, *texts: str) -> bytes:
    content = "".join(f"\0{len(text)}\0{text}" for text in texts)
    return hashlib.sha256(rule + content.encode("utf-8", "surrogatepass")).digest()
