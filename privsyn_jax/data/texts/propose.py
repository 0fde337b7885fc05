"""A text schema proposed from a file of texts or a folder of them, for its owner to edit.

Every fact here is taken from the private texts. Each is therefore listed under "declared_public", which the privacy
report repeats: by keeping the proposal, the owner declares that fact public.

How facts are proposed:
- text and label: the columns that the owner names; else those called text and label; files lie in folders by class;
- classes: the values of the label, or the names of the folders; whole numbers in their order, other names sorted;
- num_records: the number of texts, rounded to two digits.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import pandas as pd

from privsyn_jax.data.images.picture import SUFFIXES as PICTURES
from privsyn_jax.data.texts.content import check_column, class_name
from privsyn_jax.data.texts.files import is_archive, read_text_files
from privsyn_jax.data.texts.rows import JSON_LINES, read_rows
from privsyn_jax.data.texts.schema import check_text_schema, text_schema_to_dict
from privsyn_jax.types import TextSchema, UserError

MAX_CLASSES = 100
_UNIT_NAMES = ("author", "person", "patient", "user", "customer", "reviewer")  # and these with id or name


class Survey(NamedTuple):
    """What was seen: the texts with their columns, and the columns of the text and (where there is one) the label."""

    frame: pd.DataFrame
    text: str
    label: str | None


def holds_texts(path: str) -> bool:
    """Whether `path` is JSON lines or an archive by its name, or a folder with .txt files and no images."""
    if not os.path.isdir(path):
        return is_archive(path) or path.lower().endswith(JSON_LINES)
    names = [name.lower() for _, _, names in os.walk(path) for name in names]
    return any(name.endswith(".txt") for name in names) and not any(name.endswith(PICTURES) for name in names)


def survey(path: str, *, text: str | None = None, label: str | None = None) -> Survey:
    """Reads a .csv, a .jsonl, or the files of a folder or an archive.

    Args:
      path: of the texts.
      text: name of the column that holds them; None means "text". Files have no columns.
      label: name of the column of the class; None means "label", or no labels where there is no such column.

    Raises:
      UserError: it cannot be read, holds no text, or has no such column.
    """
    if os.path.isdir(path) or is_archive(path):
        if text or label:
            raise UserError(f"--text and --label name columns, and {path} holds files: leave them out")
        is_flat = os.path.isdir(path) and not any(os.path.isdir(os.path.join(path, name)) for name in os.listdir(path))
        found = None if is_flat else "label"
        return Survey(read_text_files(path, text="text", label=found).frame, "text", found)
    frame = read_rows(path).frame
    text, names = text or "text", list(frame.columns)
    label = label or ("label" if "label" in names and text != "label" else None)
    for key, name in (("text", text), ("label", label)):
        if name is not None:
            check_column(name, names, key=key, source=path)
    if len(frame) == 0:
        raise UserError(f"{path} has a header but no rows: give a file with texts")
    return Survey(frame, text, label)


def propose_text_schema(seen: Survey, *, source: str = "the file") -> dict[str, Any]:
    """A schema object, in the form of `text_schema_from_dict`.

    Raises:
      UserError: a rule of `check_text_schema` is broken, as by a single class, or there are more than MAX_CLASSES.
    """
    names = {class_name(value) for value in seen.frame[seen.label]} - {None} if seen.label else set()
    if len(names) > MAX_CLASSES:
        raise UserError(
            f"column {seen.label!r} of {source} has {len(names)} values, more than {MAX_CLASSES}: give the column of "
            "the class as --label"
        )
    schema = TextSchema(
        classes=tuple(sorted(map(str, names), key=_rank)),
        num_records=int(float(f"{len(seen.frame):.1e}")),
        text=seen.text,
        label=seen.label or ("label" if seen.text != "label" else "class"),
        declared_public=("classes", "num_records") if names else ("num_records",),
    )
    check_text_schema(schema, source=source)
    return text_schema_to_dict(schema)


def text_proposal_notes(seen: Survey, proposal: dict[str, Any]) -> list[str]:
    """Sentences on what the owner should look at, for a proposal made from what was seen."""
    notes = []
    if not proposal["classes"]:
        notes.append("no column was taken for the class: name it with --label, if the texts have labels.")
    columns = {seen.text: "text"} | ({seen.label: "label"} if seen.label else {})
    for column, key in columns.items():
        num_empty = sum(class_name(value) is None for value in seen.frame[column])
        if num_empty:
            notes.append(
                f"{num_empty} rows have no {key} in {column!r}, which a run refuses: fill them in or remove them."
            )
    for column in seen.frame.columns:
        bare = str(column).lower().replace("_", " ").removesuffix("id").removesuffix("name").strip()
        if column not in columns and bare in _UNIT_NAMES:
            notes.append(
                f'column {column!r} seems to say whom a text belongs to: set "unit" to it, and num_records to the '
                "number of units, if one of these may have several texts."
            )
    return notes


def _rank(name: str) -> tuple[bool, int, str]:
    """Orders classes: whole numbers by their size, then other names."""
    return (False, len(name), name) if name.isdecimal() else (True, 0, name)
