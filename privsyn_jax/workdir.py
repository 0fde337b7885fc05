"""The folder of a run: what is private, what is released, and who is at work in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from privsyn_jax.differences import differences
from privsyn_jax.files import unwritable, write_json
from privsyn_jax.privacy.guard import PrivateFolder
from privsyn_jax.training.program import EXECUTION
from privsyn_jax.types import UserError

PRIVATE_NOTICE = "PRIVATE: everything in this folder was computed from real records without noise. Do not publish it."
_LOCK = ".lock"
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)  # full, read-only, broken
# Settings that a run may be gone on with at other values: where the same records lie, how steps are executed and shown,
# and, as long as nothing is released, what is drawn and whether it is compared.
_ALWAYS_FREE = (
    *(f"data.{name}" for name in ("dir", "path", "test_path", "schema")),
    *(f"training.{name}" for name in (*EXECUTION, "checkpoint_seconds", "tensorboard")),
)
_FREE_UNTIL_RELEASED = ("synthesis.", "evaluation.", "attacks.")


class Workdir:
    """Paths of one run. `release` appears whole, by a rename, or not at all."""

    def __init__(self, root: Path):
        self.root = root
        self.release = root / "release"
        self.private = root / "private"
        self.trained = self.private / "trained"
        self.ledger = self.private / "ledger.json"
        self.evaluation = self.private / "evaluation"
        self.attacks = self.private / "attacks"
        self.page = self.private / "report.html"

    @property
    def private_folder(self) -> PrivateFolder:
        """What private records may be opened for without a charge."""
        return PrivateFolder(self.private)

    @property
    def is_finished(self) -> bool:
        return self.release.is_dir() and self.page.is_file()

    @contextlib.contextmanager
    def becoming(self, folder: Path) -> Iterator[Path]:
        """A temporary folder that becomes `folder` if the block succeeds and is removed if it does not."""
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            os.rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def forget(self) -> None:
        """Removes what only an unfinished run needs, the secret key above all."""
        for folder in (self.private / "checkpoints", self.trained):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def open_workdir(path: str | Path, settings: Mapping[str, Any], source: Mapping[str, Any]) -> Iterator[Workdir]:
    """Makes or takes up a run's folder and holds its lock.

    What this call made is removed again if bad input stops the run before anything was charged.

    Args:
      path: the folder.
      settings: of the run, plain JSON.
      source: the data's schema and the hash of its content, plain JSON.

    Raises:
      UserError: the folder is in use by another process, cannot be written, is no run's folder, or holds a run with
        other settings, schema or data.
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
            _claim(workdir, settings, source)
            yield workdir
        except (UserError, OSError) as error:
            if is_new and not workdir.ledger.exists():
                _empty(root, itself=not existed)
            if isinstance(error, OSError) and error.errno in _STORAGE:
                raise unwritable(error.filename or root, error) from error
            raise
    finally:
        os.close(lock)


def plain(value: Any) -> Any:
    """Settings as strict JSON: infinities as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value


def _claim(workdir: Workdir, settings: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    config, source_file = workdir.root / "config.json", workdir.private / "source.json"
    wanted, found = plain(settings), plain(source)
    if config.is_file():
        free = _ALWAYS_FREE if workdir.release.is_dir() else (*_ALWAYS_FREE, *_FREE_UNTIL_RELEASED)
        changes = [
            change for change in differences(_read(config), wanted) if not change.startswith(tuple(_spaced(free)))
        ]
        if changes:
            raise UserError(
                f"--workdir {workdir.root} holds a run with other settings ({'; '.join(changes)}): name another folder"
            )
        if source_file.is_file():
            before = _read(source_file)
            changes = differences(before["schema"], found["schema"], "schema")
            if changes:
                raise UserError(
                    f"--workdir {workdir.root} holds a run with another schema ({'; '.join(changes)}): "
                    "name another folder"
                )
            if before["content_hash"] != found["content_hash"]:
                raise UserError(
                    f"--workdir {workdir.root} holds a run on other data (content hash {before['content_hash'][:12]} "
                    f"there, {found['content_hash'][:12]} here): name another folder"
                )
    workdir.private.mkdir(mode=0o700, exist_ok=True)
    workdir.private.chmod(0o700)
    workdir.evaluation.mkdir(exist_ok=True)
    workdir.attacks.mkdir(exist_ok=True)
    (workdir.private / "README.txt").write_text(PRIVATE_NOTICE + "\n")
    write_json(source_file, found)
    write_json(config, wanted)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path} is damaged: restore it, or start anew in another folder") from None


def _spaced(names: tuple[str, ...]) -> list[str]:
    """Beginnings of `differences`: whole names end in a space, groups in a dot."""
    return [name if name.endswith(".") else f"{name} " for name in names]


def _is_new(root: Path) -> bool:
    return all(entry.name == _LOCK for entry in root.iterdir())


def _empty(root: Path, *, itself: bool) -> None:
    """Removes all that is in a folder, and the folder itself on request."""
    for entry in root.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if itself:
        root.rmdir()
