"""The user's own texts, a .csv, a .jsonl or files, with a text schema JSON."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import pandas as pd

from privsyn_jax.data.split import num_train_records
from privsyn_jax.data.texts.content import conform_synthetic, conform_texts, hash_texts, split_texts
from privsyn_jax.data.texts.files import ARCHIVES, is_archive, read_text_files
from privsyn_jax.data.texts.rows import SUFFIXES, read_rows
from privsyn_jax.data.texts.schema import read_text_schema
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Records, Texts, TextSchema, UserError

_FORMS = f"give one of {', '.join((*SUFFIXES, *ARCHIVES))}, or a folder of CLASS/NAME.txt"


def read_schema(settings: DataSettings) -> TextSchema:
    """The text schema at `settings.schema`.

    Its num_records speaks of all of `path`; where `load` holds texts out of it, the result's num_records is that of
    the training part.
    """
    if not settings.schema:
        raise UserError(
            "data.schema is not given: propose one with `python -m launch.schema reviews.csv --text COLUMN > "
            "schema.json`, edit it, and give its path"
        )
    schema = read_text_schema(settings.schema)
    if settings.test_path:
        return schema
    return dataclasses.replace(schema, num_records=num_train_records(schema.num_records, settings.test_fraction))


def load(settings: DataSettings, schema: TextSchema) -> Records:
    """The records of `settings.path`; held out are those of `test_path`, or some of `path` by `split_texts`.

    Where the schema names a unit, one text of each is kept before any is held out.

    Raises:
      UserError: a file is bad, or does not agree with the schema.
    """
    if not settings.path:
        raise UserError(f"data.path is not given: {_FORMS}")
    train = _read(settings.path, schema)
    if settings.test_path:
        test = _read(settings.test_path, schema)
        return Records(schema, Private(train), Private(test), hash_texts(train, test), Private({}))
    content_hash = hash_texts(train)
    train, test = split_texts(train, settings.test_fraction)
    return Records(schema, Private(train), Private(test), content_hash, Private({}))


def read_synthetic(path: str, schema: TextSchema) -> tuple[Texts, list[str]]:
    """Texts made elsewhere, as few, as empty and of as few classes as they come; and what is odd about them.

    Raises:
      UserError: the file is bad, has no texts or not the schema's columns, or a label is no class.
    """
    frame, places = _read_frame(path, dataclasses.replace(schema, unit=""))
    texts = conform_synthetic(frame, schema, source=path, places=places)
    empty = sum(not text.strip() for text in texts.texts)
    return texts, [f"{empty:,} texts of {path} are empty."] if empty else []


def _read(path: str, schema: TextSchema) -> Texts:
    frame, places = _read_frame(path, schema)
    return conform_texts(frame, schema, source=path, places=places)


def _read_frame(path: str, schema: TextSchema) -> tuple[pd.DataFrame, Sequence[str]]:
    """(columns as read, what messages call each record)."""
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist: {_FORMS}")
    if os.path.isdir(path) or is_archive(path):
        if schema.unit:
            raise UserError(
                f"{path} holds files, which do not say whose they are, and the schema's unit is {schema.unit!r}: give "
                "a .csv or .jsonl with that column"
            )
        label = schema.label if schema.classes else None
        return read_text_files(path, text=schema.text, label=label)
    return read_rows(path)
