"""States of a training run on disk, saved in the background by orbax."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from privsyn_jax.types import UserError


class Checkpoint(NamedTuple):
    """A state between two dispatches.

    Attributes:
      step: steps done.
      leaves: of the training state, in the order of `jax.tree.leaves`.
      notes: plain JSON that belongs to the state.
    """

    step: int
    leaves: list[np.ndarray]
    notes: dict[str, Any]


class Checkpoints:
    """The last few states of a run. One is whole, with the digest that it was saved with, or it does not count.

    Args:
      folder: for nothing else; numbered folders in it hold a state each.
      keep: how many are kept.
    """

    def __init__(self, folder: Path, *, keep: int = 3):
        self._folder, self._keep, self._opened = folder.absolute(), keep, None

    def newest(self, announce: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole state; damaged ones are announced and removed."""
        if not self._folder.is_dir():
            return None
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(step)
            except Exception as error:  # orbax and tensorstore raise what they like on damaged files
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                announce(f"the checkpoint of step {step} is damaged and left out ({reason})")
                shutil.rmtree(self._folder / str(step))
                self._manager.reload()
        return None

    def save(self, step: int, state: Any, notes: Mapping[str, Any]) -> None:
        """Copies the state and returns; it is written meanwhile, and on disk after `wait` or the next `save`.

        Raises:
          UserError: this state, or the one before, cannot be written.
        """
        import orbax.checkpoint as ocp

        # A copy, since the buffers of the state are reused by the next dispatch while this one is being written.
        arrays = {f"{number:05d}": np.array(leaf) for number, leaf in enumerate(jax.tree.leaves(state))}
        empty = {name: [str(array.dtype), array.shape] for name, array in arrays.items() if not array.size}
        content = {"notes": notes, "digest": _digest(arrays, notes), "empty": empty}
        arrays = {name: array for name, array in arrays.items() if array.size}  # orbax refuses empty ones
        try:
            self._manager.save(
                step, args=ocp.args.Composite(state=ocp.args.StandardSave(arrays), notes=ocp.args.JsonSave(content))
            )
        except Exception as error:
            raise self._unwritable(error) from error

    def wait(self) -> None:
        """Returns when what was saved is on disk; raises UserError if it cannot be written."""
        if self._opened is None:
            return
        try:
            self._opened.wait_until_finished()
        except Exception as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Waits, without complaint, and ends the background threads."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _manager(self):
        if self._opened is None:
            import orbax.checkpoint as ocp  # takes seconds; a short run never needs it

            here = {jax.process_index()}
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                create=False,
                cleanup_tmp_directories=True,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=jax.process_index(), active_processes=here, barrier_sync_key_prefix="checkpoints"
                ),
            )
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._opened = ocp.CheckpointManager(self._folder, options=options)
        return self._opened

    def _read(self, step: int) -> Checkpoint:
        import orbax.checkpoint as ocp

        found = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(), notes=ocp.args.JsonRestore())
        )
        content, arrays = found["notes"], {name: np.asarray(array) for name, array in found["state"].items()}
        arrays |= {name: np.zeros(shape, dtype) for name, (dtype, shape) in content["empty"].items()}
        arrays = dict(sorted(arrays.items()))
        if content["digest"] != _digest(arrays, content["notes"]):
            raise ValueError("its content does not match the digest that it was saved with")
        return Checkpoint(step, list(arrays.values()), content["notes"])

    def _unwritable(self, error: Exception) -> UserError:
        reason = str(error).strip().splitlines()[-1]
        return UserError(
            f"a checkpoint cannot be written to {self._folder} ({reason}): free space or make the folder writable, "
            "then start the same command again; it goes on from the last whole checkpoint"
        )


def _digest(arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> str:
    content = hashlib.sha256(json.dumps(notes, sort_keys=True).encode())
    for name, array in arrays.items():
        content.update(f"{name} {array.dtype} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()
