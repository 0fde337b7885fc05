"""Loaded texts: whether they fit the schema, their hash, the published ones, one of each unit, and the split."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.data.schema_check import nearest
from privsyn_jax.data.validate import MIN_RECORDS
from privsyn_jax.types import Texts, TextSchema, UserError

# Parts of the public rules: changing one changes every split, or every choice among the texts of a unit.
_HELD_OUT, _KEPT = b"held out 20240601", b"kept of its unit 20240601"


class PublishedTexts(NamedTuple):
    """What is known about a published set: texts per class, and `digest_of_set`."""

    class_counts: tuple[int, ...]
    sha256: str


def conform_texts(
    records: pd.DataFrame | Texts, schema: TextSchema, *, source: str, places: Sequence[str] | None = None
) -> Texts:
    """The texts and labels of private records; where the schema names a unit, one text of each.

    Args:
      records: a frame with the schema's columns (others are passed over), whose labels are names of classes, compared
        as texts, so that 1 is the class "1"; or Texts, whose labels are names, or number the classes from 0.
      schema: their public facts.
      source: file name for messages.
      places: what messages call each record, "row 7 of a.csv" by default.

    Returns:
      Texts in the order given.

    Raises:
      UserError: a column or a value is missing, a text is empty or no text, a label is no class; or there are fewer
        than MIN_RECORDS texts, or all of one class.
    """
    frame, codes = _to_frame(records, schema, source)
    places = [f"row {i + 1} of {source}" for i in range(len(frame))] if places is None else places
    texts = np.empty(len(frame), object)
    for i, value in enumerate(frame[schema.text]):
        texts[i] = _check_text(value, places[i], schema.text)
    if codes is None:
        codes = np.zeros(len(texts), np.int32)
        if schema.classes:
            known = {name: code for code, name in enumerate(schema.classes)}
            codes[:] = [_code_of(value, known, place, schema) for value, place in _zip(frame[schema.label], places)]
    found = Texts(texts, codes)
    if schema.unit:
        found = keep_one_per_unit(found, [_check_unit(*pair, schema) for pair in _zip(frame[schema.unit], places)])
    _check_enough(found, schema, source)
    return found


def conform_synthetic(frame: pd.DataFrame, schema: TextSchema, *, source: str, places: Sequence[str]) -> Texts:
    """The texts and labels of a synthetic set; a missing text is an empty one.

    Raises:
      UserError: a column is missing, there are no texts, or a label is no class.
    """
    frame, _ = _to_frame(frame, dataclasses.replace(schema, unit=""), source)
    if not len(frame):
        raise UserError(f"{source} has no texts: there is nothing to evaluate")
    texts = np.array(
        [value if isinstance(value, str) else class_name(value) or "" for value in frame[schema.text]], object
    )
    known = {name: code for code, name in enumerate(schema.classes)}
    codes = np.zeros(len(texts), np.int32)
    if schema.classes:
        codes[:] = [_code_of(value, known, place, schema) for value, place in _zip(frame[schema.label], places)]
    return Texts(texts, codes)


def keep_one_per_unit(texts: Texts, units: Sequence[str]) -> Texts:
    """One text of each unit, in the order given: the one whose sha256, with its label, is the smallest.

    Which one that is depends on the unit's own texts alone, in whatever order, so that changing all texts of one unit
    changes one record.
    """
    chosen: dict[str, tuple[bytes, int]] = {}
    for i, unit in enumerate(units):
        rank = _digest(_KEPT, texts.texts[i], texts.labels[i]), i
        chosen[unit] = min(rank, chosen.get(unit, rank))
    kept = np.sort(np.array([i for _, i in chosen.values()], np.int64))
    return Texts(texts.texts[kept], texts.labels[kept])


def split_texts(texts: Texts, test_fraction: float) -> tuple[Texts, Texts]:
    """(train, test), each in the order that they came in.

    A text is held out when its sha256, as a number in [0, 1), is below `test_fraction`. That depends on nothing but
    the text: adding or removing a record moves no other, and texts that repeat are never on both sides.

    Raises:
      UserError: one of the parts has no text.
    """
    digests = (_digest(_HELD_OUT, text) for text in texts.texts)
    uniform = np.array([int.from_bytes(digest[:8], "big") >> 11 for digest in digests], np.uint64) * 2.0**-53
    is_test = uniform < test_fraction
    if is_test.all() or not is_test.any():
        raise UserError(
            f"data.test_fraction {test_fraction} leaves one part of {len(is_test)} texts empty: "
            "choose one nearer to 0.3, or give data.test_path"
        )
    return (
        Texts(texts.texts[~is_test], texts.labels[~is_test]),
        Texts(texts.texts[is_test], texts.labels[is_test]),
    )


def hash_texts(*parts: Texts) -> str:
    """sha256 of texts and labels, in order: the same whatever file they came from."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part.texts).to_bytes(8, "little"))
        for text in part.texts:
            content = text.encode()
            digest.update(len(content).to_bytes(8, "little") + content)
        digest.update(np.asarray(part.labels).astype("<i4").tobytes())
    return digest.hexdigest()


def digest_of_set(texts: Texts) -> str:
    """sha256 that does not depend on the order of the texts: of the sorted hashes of each label and its text."""
    return hashlib.sha256(b"".join(sorted(map(_labelled_digest, texts.texts, texts.labels)))).hexdigest()


def check_published(texts: Texts, published: PublishedTexts, *, source: str, remedy: str) -> None:
    """Raises UserError, ending in `remedy`, when `texts` are not the published ones, in whatever order."""
    counts = np.bincount(texts.labels, minlength=len(published.class_counts)).tolist()
    if tuple(counts) != published.class_counts:
        raise UserError(
            f"{source} has {' and '.join(map(str, counts))} texts per class instead of the published "
            f"{' and '.join(map(str, published.class_counts))}: {remedy}"
        )
    if digest_of_set(texts) != published.sha256:
        raise UserError(f"{source} has the published numbers of texts, but other content: {remedy}")


def check_column(name: str, names: Sequence[Any], *, key: str, source: str) -> None:
    """Raises UserError, naming the nearest, when the column that the schema's `key` names is not among `names`."""
    if name not in names:
        raise UserError(f"{source} has no column {name!r}, which is to hold the {key}: {nearest(name, names)}")


def class_name(value: Any) -> str | None:
    """A value of a file as the name of a class; None if it is missing or empty."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return None
    if isinstance(value, float) and value.is_integer():  # whole numbers beside missing ones become floats in a frame
        value = int(value)
    return str(value) or None


def _to_frame(records: Any, schema: TextSchema, source: str) -> tuple[pd.DataFrame, np.ndarray | None]:
    """(frame with the schema's columns, labels int32 [n] where they are numbers of classes already)."""
    if isinstance(records, pd.DataFrame):
        keys = ("text", *(["label"] if schema.classes else []), *(["unit"] if schema.unit else []))
        for key in keys:
            check_column(getattr(schema, key), list(records.columns), key=key, source=source)
        return records, None
    if schema.unit:
        raise UserError(f"{source} names no {schema.unit!r}, and the schema has it as unit: give a DataFrame with it")
    texts, labels = list(records.texts), np.asarray(records.labels)
    if labels.shape != (len(texts),):
        raise UserError(f"{source} has {len(texts)} texts and labels {list(labels.shape)}: give one label for each")
    if labels.dtype.kind not in "iu":
        return pd.DataFrame({schema.text: pd.Series(texts, dtype=object), schema.label: labels}), None
    num_classes = max(1, len(schema.classes))
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        raise UserError(
            f"{source} has the label {labels[outside][0]}, and labels go from 0 to {num_classes - 1}: correct the "
            "label or list its class"
        )
    return pd.DataFrame({schema.text: pd.Series(texts, dtype=object)}), labels.astype(np.int32)


def _zip(values: Any, places: Sequence[str]):
    return zip(values, places, strict=True)


def _check_text(value: Any, place: str, column: str) -> str:
    """The value, which is a text."""
    if not isinstance(value, str):
        if class_name(value) is None:
            raise UserError(f"{place} has no text in {column!r}: fill it in, or remove the record")
        raise UserError(f"{place} has {str(value)[:40]!r} in {column!r}, which is no text: write it as a text")
    if not value or value.isspace():
        raise UserError(f"{place} has an empty text in {column!r}: fill it in, or remove the record")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place} has half a character (U+{ord(value[error.start]):04X}) in {column!r} at position "
            f"{error.start + 1}, which UTF-8 has not: correct the text"
        ) from None
    return value


def _code_of(value: Any, known: dict[str, int], place: str, schema: TextSchema) -> int:
    name = class_name(value)
    if name is None:
        raise UserError(f"{place} has no label in {schema.label!r}: fill it in, or remove the record")
    if name not in known:
        hint = nearest(name[:40], schema.classes)
        raise UserError(f"{place} has {name[:40]!r} in {schema.label!r}, which is no class of the schema: {hint}")
    return known[name]


def _check_unit(value: Any, place: str, schema: TextSchema) -> str:
    name = class_name(value)
    if name is None:
        raise UserError(f"{place} does not say whose it is in {schema.unit!r}: fill it in, or remove the record")
    return name


def _check_enough(texts: Texts, schema: TextSchema, source: str) -> None:
    """Raises UserError unless there are MIN_RECORDS texts or more, of two classes where there are classes."""
    count = len(texts.labels)
    if count < MIN_RECORDS:
        what = f"texts of {count} different {schema.unit!r}" if schema.unit else "texts"
        raise UserError(f"{source} has {count} {what}, too few to learn from privately: give at least {MIN_RECORDS}")
    if schema.classes and (texts.labels == texts.labels[0]).all():
        raise UserError(
            f"{source} holds texts of one class only ({schema.classes[texts.labels[0]]!r}), and utility is measured by "
            "telling classes apart: add texts of another class"
        )


def _digest(rule: bytes, text: str, label: int | None = None) -> bytes:
    ending = b"" if label is None else int(label).to_bytes(4, "little")
    return hashlib.sha256(rule + ending + b"\0" + text.encode()).digest()


def _labelled_digest(text: str, label: int) -> bytes:
    return hashlib.sha256(int(label).to_bytes(4, "little") + text.encode()).digest()
