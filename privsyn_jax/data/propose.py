"""A schema proposed from the rows of a table, for its owner to edit.

Every fact here is read from private rows. Each is therefore listed under "declared_public", which the privacy
report repeats: by keeping the proposal, the owner declares that fact public.

How facts are proposed:
- bounds: the extremes, rounded outwards to one digit of the range (17..88 becomes 10..90), dates to years;
- categories: the distinct texts, if at most MAX_CATEGORIES, else unknown (null);
- point masses: the numbers that more than POINT_MASS_SHARE of the rows hold exactly;
- num_records: the number of rows, rounded to two digits;
- ids: texts that never repeat; columns named like an id, unless they hold few distinct values (codes).

The unit column is the user's word. How many rows of a unit are read is a choice, not a fact: MAX_RECORDS_PER_UNIT is
proposed whatever the rows are.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax.data.categories import category_text, missing_mask
from privsyn_jax.data.schema_check import nearest
from privsyn_jax.data.validate import check_names, check_num_records
from privsyn_jax.types import UserError

MAX_CATEGORIES = 100
MAX_RECORDS_PER_UNIT = 3  # noise grows with it
POINT_MASS_SHARE = 0.05
_MAX_CODES = 20  # distinct values up to which a repeating column named like an id is not one

_BOOLEAN_LABELS = (("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"), ("0", "1"))
_ID_NAME = re.compile(r"^$|^unnamed: \d+$|(^|[\W_])(id|uuid|guid|key|identifier)$", re.IGNORECASE)
_CAMEL_ID_NAME = re.compile(r"[a-z]I[dD]$")
_LEADING_ZERO = r"^[+-]?0\d"  # "007" is a label
_LARGEST_INTEGER = 10**15  # its rounded bounds are still exact in float64
_DATETIME_FORMATS = (  # month before day where a file fits both
    *("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"),
    *("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%f", "%Y/%m/%d", "%Y/%m/%d %H:%M:%S"),
    *("%m/%d/%Y", "%d/%m/%Y", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S"),
    *("%d.%m.%Y", "%d.%m.%Y %H:%M", "%d-%m-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"),
)


def propose_schema(
    frame: pd.DataFrame, *, target: str | None = None, unit: str | None = None, source: str = "the table"
) -> dict[str, Any]:
    """A schema object, in the form of `schema_from_dict`, that `frame` conforms to.

    Args:
      frame: as `table.read_frame` gives it, or any DataFrame.
      target: column to predict in the evaluation; None is left for the user to fill in.
      unit: column that says whose a row is, where somebody may own several.
      source: file name for messages.

    Raises:
      UserError: repeated names, too few rows, a column without any value, or no column named `target` or `unit`.
    """
    check_names(list(frame.columns), source)
    check_num_records(len(frame), source)
    names = [str(name) for name in frame.columns]
    for key, named in (("target", target), ("unit", unit)):
        if named is not None and named not in names:
            raise UserError(f"{key} {named!r} is no column of {source}: {nearest(named, names)}")
    if unit is not None and unit == target:
        raise UserError(f"target and unit are both {unit!r}, and who a row belongs to is not learned: name two columns")
    columns = {}
    for i, name in enumerate(names):
        values = frame.iloc[:, i].reset_index(drop=True)
        present = values[~missing_mask(values)]
        if present.empty:
            raise UserError(f"column {name!r} of {source} has no value in any row: remove it")
        if unit is not None and name == unit:
            columns[name] = {"kind": "id"}
            continue
        columns[name] = _propose_column(name, present, nullable=len(present) < len(values))
    return {
        "columns": columns,
        "target": target,
        "sensitive": [],
        "privacy_unit": "record",
        "num_records": _two_digits(len(frame)),
        "declared_public": ["column names", "kinds", "num_records", *(["num_units"] if unit is not None else [])],
        **(_propose_units(frame, unit) if unit is not None else {}),
    }


def _propose_units(frame: pd.DataFrame, unit: str) -> dict[str, Any]:
    num_units = _two_digits(frame.iloc[:, [str(name) for name in frame.columns].index(unit)].nunique())
    return {
        "privacy_unit": unit,
        "unit_column": unit,
        "max_records_per_unit": MAX_RECORDS_PER_UNIT,
        "num_units": min(num_units, _two_digits(len(frame))),
    }


def proposal_notes(frame: pd.DataFrame, proposal: dict[str, Any]) -> list[str]:
    """Sentences on what the owner should look at, for a proposal made from `frame`."""
    notes = []
    if proposal.get("unit_column") is not None:
        notes.append(
            f"one value of {proposal['unit_column']!r} is one unit, protected with all of its rows: of each at most "
            f"max_records_per_unit = {proposal['max_records_per_unit']} are read. More keep more of the table, with "
            "noise that grows in proportion. Say in privacy_unit what a unit is."
        )
    for i, (name, column) in enumerate(proposal["columns"].items()):
        values = frame.iloc[:, i]
        present = values[~missing_mask(values)]
        if column["kind"] == "id" and present.duplicated().any() and name != proposal.get("unit_column"):
            notes.append(
                f"{name!r} looks like an id and repeats: make it categorical if it is a code; if it says who, a person "
                f"has several rows and the guarantee is for one row: propose again with --unit {name}."
            )
        if column["kind"] == "categorical" and column["categories"] is None:
            notes.append(
                f"{name!r} has more than {MAX_CATEGORIES} distinct texts: list its public categories, make "
                "it an id, remove it, or leave null and spend budget on finding them."
            )
        text_format = str(column.get("datetime_format"))
        day_first = text_format.replace("%m/%d", "%d/%m")
        if day_first != text_format and _read_moments(present, day_first) is not None:
            notes.append(f"{name!r} could also be day first: check its datetime_format.")
    return notes


def _propose_column(name: str, present: pd.Series, *, nullable: bool) -> dict[str, Any]:
    """The proposal for one column from its values that are not missing [m > 0]."""
    if isinstance(present.dtype, pd.CategoricalDtype):
        present = present.astype(object)
    named_like_id = bool(_ID_NAME.search(name) or _CAMEL_ID_NAME.search(name))
    is_unique = not present.duplicated().any()
    if named_like_id and (is_unique or present.nunique() > _MAX_CODES):
        return {"kind": "id"}
    facts = _propose_boolean(present) or _propose_numbers(present) or _propose_moments(present)
    if facts is None and is_unique and len(present) > 1:
        return {"kind": "id"}
    if facts is None:
        distinct = sorted({category_text(value) for value in present.unique()})
        facts = {"kind": "categorical", "categories": distinct if len(distinct) <= MAX_CATEGORIES else None}
    facts["nullable"] = nullable
    facts["declared_public"] = [key for key in facts if key != "kind" and facts[key] not in (None, [])]
    return facts


def _propose_boolean(present: pd.Series) -> dict[str, Any] | None:
    """Two labels that mean false and true, as written in the file."""
    labels = sorted((category_text(value) for value in present.unique()[:3]), key=str.casefold)
    if tuple(label.strip().casefold() for label in labels) not in _BOOLEAN_LABELS:
        return None
    return {"kind": "boolean", "categories": [False, True] if labels == ["False", "True"] else labels}


def _propose_numbers(present: pd.Series) -> dict[str, Any] | None:
    numbers = _read_numbers(present)
    if numbers is None:
        return None
    is_integer = bool((numbers == np.floor(numbers)).all() and (np.abs(numbers) <= _LARGEST_INTEGER).all())
    kind, python_type = ("integer", int) if is_integer else ("numeric", float)
    lower, upper = _round_bounds(python_type(numbers.min()), python_type(numbers.max()))
    distinct, counts = np.unique(numbers, return_counts=True)
    masses = distinct[counts > POINT_MASS_SHARE * len(numbers)]
    return {"kind": kind, "lower": lower, "upper": upper, "point_masses": [python_type(m) for m in masses]}


def _read_numbers(present: pd.Series) -> np.ndarray | None:
    """All values as finite float64 numbers [m], or None; texts with leading zeros are labels."""
    types = pd.api.types
    if types.is_bool_dtype(present.dtype) or types.is_datetime64_any_dtype(present.dtype):
        return None
    if not types.is_numeric_dtype(present.dtype) and present.astype(str).str.contains(_LEADING_ZERO).any():
        return None
    parsed: Any = pd.to_numeric(present, errors="coerce")
    numbers = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers if np.isfinite(numbers).all() else None


def _propose_moments(present: pd.Series) -> dict[str, Any] | None:
    text_format, moments = None, None
    if pd.api.types.is_datetime64_any_dtype(present.dtype):
        moments = pd.to_datetime(present, utc=True)
        text_format = "%Y-%m-%d" if (moments == moments.dt.normalize()).all() else None
    elif not pd.api.types.is_numeric_dtype(present.dtype):
        for text_format in _DATETIME_FORMATS:
            moments = _read_moments(present, text_format)
            if moments is not None:
                break
    if moments is None:
        return None
    end_of_day = "T23:59:59.999999" if text_format is None or "%H" in text_format else ""
    facts = {
        "kind": "datetime",
        "lower": f"{moments.min().year:04d}-01-01",
        "upper": f"{moments.max().year:04d}-12-31{end_of_day}",
    }
    return facts | ({"datetime_format": text_format} if text_format else {})


def _read_moments(present: pd.Series, text_format: str) -> Any:
    """All values as a Series of moments, or None; the first hundred rule out most formats cheaply."""
    for part in (present.iloc[:100], present):
        moments = pd.to_datetime(part.astype(str), format=text_format, errors="coerce", utc=True)
        if moments.isna().any():
            return None
    return moments


def _round_bounds(smallest: float, largest: float) -> tuple[Any, Any]:
    """Bounds, of the same type, rounded outwards to a multiple of the power of ten in their range."""
    python_type = type(smallest)
    low, high = Decimal(repr(smallest)), Decimal(repr(largest))
    size = (high - low) or abs(low) or Decimal(1)
    step = Decimal(10) ** size.adjusted()
    if python_type is int:
        step = max(step, Decimal(1))
    lower = (low / step).to_integral_value(ROUND_FLOOR) * step
    upper = (high / step).to_integral_value(ROUND_CEILING) * step
    if lower == upper:
        upper += step
    return python_type(lower), python_type(upper)


def _two_digits(count: int) -> int:
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return round(count / step) * step
