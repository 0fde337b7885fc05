"""The user's own table: .csv, .csv.gz, .csv.bz2 or .parquet, with a schema JSON.

CSV is read as UTF-8 text, comma separated, one header line; every field stays text until the schema says what
it is, so that "007" survives. Which texts mean "missing" is said in `categories.MISSING_TEXTS`.
"""

from __future__ import annotations

import bz2
import csv
import dataclasses
import gzip
import hashlib
import io
import os
import re
import zlib
from collections.abc import Collection

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from privsyn_jax.data import schema as schema_files
from privsyn_jax.data.schema_check import check_schema
from privsyn_jax.data.split import split_units, training_part
from privsyn_jax.data.units import check_apart
from privsyn_jax.data.validate import check_names, conform
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Records, Schema, UserError

_OPENERS = {".csv": bytes, ".csv.gz": gzip.decompress, ".csv.bz2": bz2.decompress}
SUFFIXES = (*_OPENERS, ".parquet")


def read_schema(settings: DataSettings) -> Schema:
    """The schema at `settings.schema`, with what the settings say instead.

    Its num_records and num_units speak of the whole table; where `load` holds rows out of `path`, the result's are
    those of the training part.
    """
    if not settings.schema:
        raise UserError(
            "data.schema is not given: propose one with `python -m launch.schema data.csv > schema.json`, "
            "edit it, and give its path"
        )
    schema = schema_files.read_schema(settings.schema)
    own = {"target": settings.target, "max_records_per_unit": settings.max_records_per_unit}
    schema = dataclasses.replace(schema, **{key: value for key, value in own.items() if value})
    check_schema(schema, source=settings.schema)
    if settings.test_path:
        return schema
    return training_part(schema, settings.test_fraction)


def load(settings: DataSettings, schema: Schema) -> Records:
    """The records of `settings.path`; held out are those of `test_path`, or some of `path` by `split`. Of a unit that
    owns several rows, no more than the schema allows are read, see `data.units`.

    Raises:
      UserError: a file is bad, or does not agree with the schema.
    """
    if not settings.path:
        raise UserError("data.path is not given: give the path of a .csv or .parquet table")
    paths = [settings.path, settings.test_path] if settings.test_path else [settings.path]
    frames, clamped = [], {}
    for path in paths:
        frame, outside = conform(read_frame(path), schema, out_of_bounds=settings.out_of_bounds, source=path)
        frames.append(frame)
        clamped |= {column: clamped.get(column, 0) + count for column, count in outside.items()}
    if settings.test_path:
        train, test = frames
        check_apart(train, test, schema, source=settings.test_path)
    else:
        train, test = split_units(frames[0], schema, settings.test_fraction)
    content_hash = hashlib.sha256(b"".join(file_digest(path) for path in paths)).hexdigest()
    return Records(schema, Private(train), Private(test), content_hash, Private(clamped))


def read_frame(path: str, *, only: Collection[str] | None = None) -> pd.DataFrame:
    """The table at `path`: texts from CSV, typed columns from Parquet; no row is judged yet.

    Args:
      only: of a CSV, the columns to read, in capitals whatever the file has; by default all.

    Raises:
      UserError: the file is absent, empty, a folder, of an unknown format, not UTF-8, has repeated column
        names, or rows of unequal length.
    """
    suffix = next((s for s in SUFFIXES if path.lower().endswith(s)), None)
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: give the path of one table")
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist: correct the path")
    if suffix is None:
        raise UserError(f"{path} has an unknown format: use one of {', '.join(SUFFIXES)}")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not content:
        raise UserError(f"{path} is empty: give a table with a header and rows")
    return _read_parquet(content, path) if suffix == ".parquet" else _read_csv(content, suffix, path, only)


def _read_parquet(content: bytes, path: str) -> pd.DataFrame:
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError):
        raise UserError(f"{path} is no readable Parquet file: write it again") from None
    check_names(table.column_names, path)
    for field in table.schema:
        if pa.types.is_nested(field.type):
            raise UserError(f"column {field.name!r} of {path} holds lists or records: flatten or remove it")
    return table.to_pandas()


def _read_csv(content: bytes, suffix: str, path: str, only: Collection[str] | None) -> pd.DataFrame:
    try:
        content = _OPENERS[suffix](content)
    except (OSError, EOFError, ValueError, zlib.error):
        raise UserError(f"{path} is no valid {suffix} archive: compress it again") from None
    names = _read_header(_decode_start(content, path), path)
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(content),
            read_options=pyarrow.csv.ReadOptions(use_threads=False),  # only then do errors name the row
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                include_columns=None if only is None else [name for name in names if name.upper() in only],
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(_parse_error(str(error), path)) from None
    return table.to_pandas()


def _decode_start(content: bytes, path: str) -> str:
    """The first million characters, after checking that all of it is UTF-8 and that there is any."""
    try:
        start = content.decode("utf-8-sig")[:1_000_000]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8") from None
    if not start.strip():
        raise UserError(f"{path} is empty: give a table with a header and rows")
    return start


def _read_header(start: str, path: str) -> list[str]:
    """The column names, which pandas would silently rename where they repeat."""
    try:
        names = next(row for row in csv.reader(io.StringIO(start)) if row)
    except csv.Error as error:
        raise UserError(f"{path} has no readable header ({error}): check its quotes") from None
    check_names(names, path)
    for separator in (";", "\t", "|"):
        if len(names) == 1 and separator in names[0]:
            raise UserError(f"{path} seems to be separated by {separator!r}: save it separated by commas")
    return names


def _parse_error(message: str, path: str) -> str:
    """pyarrow's message as one sentence; its row number counts the header."""
    found = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if found:
        row, expected, got = map(int, found.groups())
        return f"{path}, row {row - 1}, has {got} fields instead of {expected}: correct its commas and quotes"
    if "cannot infer number of columns" in message or "Empty CSV" in message:
        return f"{path} has a header but no rows: give a table with rows"
    return f"{path} cannot be parsed: check commas and quotes ({message.splitlines()[0][:100]})"


def file_digest(path: str) -> bytes:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
