"""Values of a file or frame → the schema's own category values, and which texts mean "missing".

A file holds only text, so two categories must differ as text (`schema_check` refuses others). A value belongs
to the category with the same text; failing that, to the one with the same number.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

# These texts, and only these, mean "missing", unless the column's categories list the text itself.
MISSING_TEXTS = frozenset({"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NaT", "NULL", "null", "None"})

_FALSE_WORDS = ("false", "f", "no", "n", "0")
_TRUE_WORDS = ("true", "t", "yes", "y", "1")


class UnknownValue(Exception):
    """A value matches no category; `row` is its position in the column, `value` what was found."""

    def __init__(self, row: int, value: Any):
        super().__init__(row, value)
        self.row, self.value = row, value


def category_text(value: Any) -> str:
    """The text by which a category is known in a file: 3 and 3.0 are both "3", True is "True"."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    if isinstance(value, float | np.floating):
        return repr(float(value))
    return str(value)


def missing_mask(values: pd.Series, categories: Iterable[Any] | None = None) -> np.ndarray:
    """Which of `values` [n] are null, or a text of MISSING_TEXTS that is not itself a category; bool [n]."""
    missing = values.isna().to_numpy()
    if pd.api.types.is_string_dtype(values.dtype) or values.dtype == object:
        texts = MISSING_TEXTS - {category_text(category) for category in categories or ()}
        missing = missing | values.isin(texts).to_numpy(dtype=bool, na_value=False)
    return missing


def to_categories(values: pd.Series, missing: np.ndarray, categories: tuple[Any, ...] | None) -> np.ndarray:
    """The category of each value; object [n], None where `missing`.

    Args:
      values: [n], any dtype.
      missing: bool [n].
      categories: the schema's values; None (unknown) makes every value its own text.

    Raises:
      UnknownValue: a value matches no category.
    """
    if categories is None:
        return _map_distinct(values, missing, category_text)
    by_text = {category_text(c).lower(): c for c in categories if isinstance(c, bool)}
    by_text |= {category_text(c): c for c in categories}
    by_number = _unique_by_number(c for c in categories if not isinstance(c, str))
    by_reading = _unique_by_number(categories)

    def find(value: Any) -> Any:
        text = category_text(value)
        if text in by_text:
            return by_text[text]
        if isinstance(value, str):  # "3.0" or "03" for the category 3, but never "7" for the text "007"
            return by_number.get(category_number(value), _NOT_FOUND)
        return by_reading.get(category_number(value), _NOT_FOUND)  # 7 for "007", if no other text reads as 7

    return _map_distinct(values, missing, find)


def to_booleans(values: pd.Series, missing: np.ndarray, labels: tuple[Any, ...] | None) -> np.ndarray:
    """False or True for each value, False where `missing`; bool [n].

    Accepts the (false, true) `labels`, and any of true/t/yes/y/1 and false/f/no/n/0; case does not matter.

    Raises:
      UnknownValue: a value is none of these.
    """
    meanings: dict[str, bool] = {**dict.fromkeys(_FALSE_WORDS, False), **dict.fromkeys(_TRUE_WORDS, True)}
    if labels is not None:
        meanings |= {category_text(labels[0]).casefold(): False, category_text(labels[1]).casefold(): True}

    def find(value: Any) -> Any:
        text = category_text(value).strip().casefold()
        as_number = category_text(category_number(value))  # "1.0", from a 0/1 column that had gaps
        return meanings.get(text, meanings.get(as_number, _NOT_FOUND))

    return np.where(missing, False, _map_distinct(values, missing, find)).astype(bool)


def category_number(value: Any) -> float | None:
    """The finite number that a value is or reads as, or None; booleans are no numbers."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | numbers.Number):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


_NOT_FOUND = object()


def _unique_by_number(categories: Iterable[Any]) -> dict[float | None, Any]:
    """Categories by the number they read as, leaving out numbers that several share."""
    shared: dict[float | None, list[Any]] = {}
    for category in categories:
        shared.setdefault(category_number(category), []).append(category)
    return {number: same[0] for number, same in shared.items() if number is not None and len(same) == 1}


def _map_distinct(values: pd.Series, missing: np.ndarray, find) -> np.ndarray:
    """`find` applied to each distinct value once; object [n], None where `missing`."""
    present = values[~missing]
    codes, distinct = pd.factorize(present)
    mapped = np.empty(len(distinct), dtype=object)
    for i, value in enumerate(distinct):
        mapped[i] = find(value)
        if mapped[i] is _NOT_FOUND:
            row = np.flatnonzero(~missing)[np.flatnonzero(codes == i)[0]]
            raise UnknownValue(int(row), value)
    result = np.full(len(values), None, dtype=object)
    result[~missing] = mapped[codes]
    return result
