"""The folder of a run: what is private, what is released, and who is at work in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from privsyn_jax.privacy.guard import PrivateFolder
from privsyn_jax.types import UserError

PRIVATE_NOTICE = "PRIVATE: everything in this folder was computed from real records without noise. Do not publish it."
_LOCK = ".lock"


class Workdir:
    """Paths of one run. `release` appears whole, by a rename, or not at all."""

    def __init__(self, root: Path):
        self.root = root
        self.release = root / "release"
        self.private = root / "private"
        self.evaluation = self.private / "evaluation"
        self.page = self.private / "report.html"

    @property
    def private_folder(self) -> PrivateFolder:
        """What private records may be opened for without a charge."""
        return PrivateFolder(self.private)

    @property
    def is_finished(self) -> bool:
        return self.release.is_dir() and self.page.is_file()

    def new_ledger(self) -> Path:
        """Where the ledger of this attempt is to be written; that of an unfinished one before it is kept aside."""
        path = self.private / "ledger.json"
        if path.is_file():
            path.rename(
                self.private / f"ledger.unfinished-{len(list(self.private.glob('ledger.unfinished-*'))) + 1}.json"
            )
        return path

    @contextlib.contextmanager
    def new_release(self) -> Iterator[Path]:
        """A temporary folder that becomes `release` if the block succeeds and is removed if it does not."""
        partial = self.root / ".release.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            os.rename(partial, self.release)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def open_workdir(path: str | Path, settings: Mapping[str, Any], content_hash: str) -> Iterator[Workdir]:
    """Makes or takes up a run's folder and holds its lock.

    What this call made is removed again if bad input stops the run.

    Args:
      path: the folder.
      settings: of the run, plain JSON.
      content_hash: of the data source.

    Raises:
      UserError: the folder is in use by another process, is no run's folder, or holds a run with other
        settings or data.
    """
    root = Path(path)
    existed = root.exists()
    if existed and not root.is_dir():
        raise UserError(f"--workdir {root} is a file: name a folder")
    if existed and not _is_new(root) and not (root / "config.json").is_file():
        raise UserError(f"--workdir {root} holds files that are not a run's: name a new or empty folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / _LOCK, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise UserError(f"--workdir {root} cannot be written ({error.strerror}): name another folder") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--workdir {root} is in use by another process: wait for it or name another") from None
        workdir, is_new = Workdir(root), _is_new(root)
        try:
            _claim(workdir, settings, content_hash)
            yield workdir
        except UserError:
            if is_new:
                _empty(root, itself=not existed)
            raise
    finally:
        os.close(lock)


def write_json(path: Path, content: Any) -> None:
    """Strict JSON (no NaN), written whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(temporary, path)


def plain(value: Any) -> Any:
    """Settings as strict JSON: infinities as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value


def _claim(workdir: Workdir, settings: Mapping[str, Any], content_hash: str) -> None:
    config, source = workdir.root / "config.json", workdir.private / "source.json"
    wanted = plain(settings)
    if config.is_file():
        changes = _differences(json.loads(config.read_text()), wanted)
        if changes:
            raise UserError(
                f"--workdir {workdir.root} holds a run with other settings ({'; '.join(changes)}): name another folder"
            )
        if source.is_file() and json.loads(source.read_text())["content_hash"] != content_hash:
            raise UserError(f"--workdir {workdir.root} holds a run on other data: name another folder")
    workdir.private.mkdir(mode=0o700, exist_ok=True)
    workdir.private.chmod(0o700)
    workdir.evaluation.mkdir(exist_ok=True)
    (workdir.private / "README.txt").write_text(PRIVATE_NOTICE + "\n")
    write_json(source, {"content_hash": content_hash})
    write_json(config, wanted)


def _is_new(root: Path) -> bool:
    return all(entry.name == _LOCK for entry in root.iterdir())


def _empty(root: Path, *, itself: bool) -> None:
    """Removes all that is in a folder, and the folder itself on request."""
    for entry in root.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if itself:
        root.rmdir()


def _differences(before: Any, after: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            change
            for key in keys
            for change in _differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if before == after else [f"{path} {before!r} there, {after!r} here"]
