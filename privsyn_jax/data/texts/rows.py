"""Texts from rows of a file: CSV with a header, or JSON lines, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from privsyn_jax.data.validate import check_names
from privsyn_jax.types import UserError

_OPENERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.decompress, ".bz2": bz2.decompress}
CSV, JSON_LINES = (tuple(form + packed for packed in _OPENERS) for form in (".csv", ".jsonl"))
SUFFIXES = (*CSV, *JSON_LINES)


class Rows(NamedTuple):
    """A frame as read (texts from CSV, any value from JSON lines), and what messages call each row."""

    frame: pd.DataFrame
    places: list[str]


def read_rows(path: str) -> Rows:
    """The rows of a file with one of SUFFIXES; none is judged yet, and "NA" stays a text.

    Raises:
      UserError: the file is absent, of an unknown format, damaged, empty, not UTF-8; has repeated names of columns, or
        longer rows than its header (CSV); or a line is no JSON object (JSON lines).
    """
    suffix = next((suffix for suffix in SUFFIXES if path.lower().endswith(suffix)), None)
    if suffix is None:
        raise UserError(f"{path} has an unknown format: give one of {', '.join(SUFFIXES)}")
    try:
        with open(path, "rb") as file:
            content = _OPENERS[suffix.removeprefix(".csv").removeprefix(".jsonl")](file.read())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: correct the path") from None
    except (gzip.BadGzipFile, EOFError, ValueError, zlib.error):
        raise UserError(f"{path} is no valid {suffix} archive: compress it again") from None
    except OSError as error:
        problem = f"cannot be read ({error.strerror})" if error.strerror else f"is no valid {suffix} archive"
        raise UserError(f"{path} {problem}: make it readable, or write it again") from None
    text = decode(content, path)
    if not text.strip():
        raise UserError(f"{path} is empty: give a file with texts")
    return _read_csv(text, path) if suffix in CSV else _read_json_lines(text, path)


def decode(content: bytes, place: str) -> str:
    """UTF-8, with or without a byte order mark, as a text; raises UserError, naming the byte, if it is not."""
    mark = b"\xef\xbb\xbf"
    try:
        return content.removeprefix(mark).decode()
    except UnicodeDecodeError as error:
        byte = error.start + len(mark) * content.startswith(mark)
        raise UserError(f"{place} is not UTF-8 at byte {byte}: save it as UTF-8") from None


def _read_csv(text: str, path: str) -> Rows:
    try:
        cells: Any = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, header=None)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        problem = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{path} cannot be parsed: check its commas and quotes ({problem})") from None
    names = cells.iloc[0].tolist()
    check_names(names, path)
    for separator in (";", "\t", "|"):
        if len(names) == 1 and separator in names[0]:
            raise UserError(f"{path} seems to be separated by {separator!r}: save it separated by commas")
    frame = cells.iloc[1:].astype(object).reset_index(drop=True).set_axis(names, axis=1)
    return Rows(frame, [f"row {i + 1} of {path}" for i in range(len(frame))])


def _read_json_lines(text: str, path: str) -> Rows:
    rows, places = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number} of {path}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            message = getattr(error, "msg", "too deep")
            raise UserError(f"{place} is not JSON ({message}): write one object in {{ }} per line") from None
        if not isinstance(row, dict):
            raise UserError(f"{place} is no object: write one in {{ }}, with a key for the text")
        rows.append(row)
        places.append(place)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}
    return Rows(pd.DataFrame(columns), places)
