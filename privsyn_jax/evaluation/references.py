"""Scores of models trained on real records: no generator changes them, so runs on the same records can share them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from privsyn_jax.files import unwritable, write_json
from privsyn_jax.privacy.guard import PrivateFolder


class References:
    """Scores in files of a private folder, each named by a hash of everything that it depends on.

    Args:
      folder: `private/` in it is made where absent and closed to others; "" keeps nothing.
      facts: what all scores depend on besides the name: settings, seed, anything of which the JSON is the same when it
        is the same, and arrays of numbers or of str.
    """

    def __init__(self, folder: str, *facts: Any):
        self._private = _opened(Path(folder) / "private") if folder else None
        self._facts = facts

    def scores(self, name: str, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
        """`compute()`, or what it gave for the same name and facts in an earlier run.

        NaN, for a score that is undefined, is kept as such.

        Raises:
          UserError: the folder cannot be written.
        """
        if self._private is None:
            return compute()
        file = (
            self._private.path / f"{name}_{hash_of(name, importlib.metadata.version('privsyn_jax'), *self._facts)}.json"
        )
        if not file.is_file():
            write_json(file, {key: None if np.isnan(value) else value for key, value in compute().items()})
        return {key: np.nan if value is None else value for key, value in json.loads(file.read_text()).items()}


def _opened(path: Path) -> PrivateFolder:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise unwritable(path, error) from error
    return PrivateFolder(path)


def hash_of(*facts: Any) -> str:
    """24 hex digits of sha256: the same for the same facts, which are as `References` takes them."""
    digest = hashlib.sha256()
    for fact in facts:
        if isinstance(fact, np.ndarray) and fact.dtype != object:
            content = f"{fact.dtype} {fact.shape}".encode() + np.ascontiguousarray(fact).tobytes()
        else:
            content = json.dumps(fact.tolist() if isinstance(fact, np.ndarray) else fact, sort_keys=True).encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:24]
