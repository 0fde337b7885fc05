"""Files that are whole or absent, whenever the process or the machine stops."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from privsyn_jax.types import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces the file, readable by its owner only; it and its folder are on disk on return.

    Raises:
      UserError: it cannot be written; what was there before is still there.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that is not there yet, readable by all, whole or not at all.

    Raises:
      UserError: it is there already, and stays as it is; or it cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} exists already: name another file, or remove it")
    _replace(path, content)


def write_json(path: Path, content: Any) -> None:
    """Strict JSON (no NaN), readable by all, written whole or not at all."""
    _replace(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def unwritable(path: str | Path, error: OSError) -> UserError:
    """What a failure to write is told as."""
    return UserError(
        f"{path} cannot be written ({error.strerror or error}): free space or make the folder writable, then start the "
        "same command again; it goes on from what was written"
    )


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
