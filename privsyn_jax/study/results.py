"""What the runs of a study have come to, each a file of its own, so that a killed study goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privsyn_jax.files import write_bytes, write_json
from privsyn_jax.study.plan import run_hash
from privsyn_jax.workdir import PRIVATE_NOTICE


class Results:
    """The finished runs of a study, below its private folder; a run is known by the content of its settings."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._runs, self._unfinished, self._logs = folder / "runs", folder / "unfinished", folder / "training"
        self._runs.mkdir(exist_ok=True)

    def get(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        path = self._path(settings)
        return json.loads(path.read_text()) if path.is_file() else None

    def put(self, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        write_json(self._path(settings), {"notice": PRIVATE_NOTICE, **result})

    def unfinished(self, settings: Mapping[str, Any], content_hash: str) -> Path:
        """Folder of what a run needs to go on after its process was killed."""
        return self._unfinished / run_hash(settings) / content_hash[:12]

    def keep_log(self, settings: Mapping[str, Any], log: Path) -> None:
        """Copies the training log of a run that has ended to training/RUN.jsonl."""
        self._logs.mkdir(exist_ok=True)
        write_bytes(self._logs / f"{run_hash(settings)}.jsonl", log.read_bytes())

    def forget(self, settings: Mapping[str, Any]) -> None:
        """Removes that folder."""
        shutil.rmtree(self._unfinished / run_hash(settings), ignore_errors=True)

    def _path(self, settings: Mapping[str, Any]) -> Path:
        return self._runs / f"{run_hash(settings)}.json"
