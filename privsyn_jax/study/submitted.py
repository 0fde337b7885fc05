"""Which job does which run, on disk, so that a study whose own process was lost finds its jobs again."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from pathlib import Path

from privsyn_jax.files import write_json
from privsyn_jax.study.jobs import Batch
from privsyn_jax.study.plan import run_hash


class Submitted:
    """Run -> id of the job that it was last given to, in one file of the study's folder of jobs."""

    def __init__(self, folder: Path):
        self._path = folder / "submitted.json"
        self._jobs: dict[str, str] = json.loads(self._path.read_text()) if self._path.is_file() else {}

    def add(self, batches: Sequence[Batch], ids: Sequence[str]) -> None:
        """Writes down that these jobs were submitted for these batches."""
        for batch, job_id in zip(batches, ids, strict=True):
            self._jobs.update((run_hash(settings), job_id) for settings in batch)
        write_json(self._path, self._jobs)

    def holder(self, batch: Batch, alive: Set[str]) -> str | None:
        """The living job that does the whole batch; None if there is none."""
        ids = {self._jobs.get(run_hash(settings)) for settings in batch}
        return ids.pop() if len(ids) == 1 and ids <= alive else None

    def clear(self) -> None:
        """After the jobs were cancelled: they may take a while to end, and are not to be waited for."""
        self._jobs = {}
        self._path.unlink(missing_ok=True)

    @property
    def ids(self) -> set[str]:
        return set(self._jobs.values())
