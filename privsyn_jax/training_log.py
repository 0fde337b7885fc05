"""What is written while training runs: private/training.jsonl, progress on the terminal, TensorBoard on request."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from privsyn_jax.files import unwritable
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

_SECONDS_BETWEEN_LINES = 10.0


class TrainingLog:
    """Context manager giving a hook of the training loop.

    What was logged after `first_step` by an attempt that was killed is dropped, so the file of a run that was
    interrupted is that of an unbroken one.

    Args:
      private: the run's private folder.
      curve: (steps, epsilon) at some numbers of steps; empty without noise.
      first_step: steps done before.
      tensorboard: whether to write event files to private/tensorboard/.
      clock: seconds.
    """

    def __init__(
        self,
        private: Path,
        *,
        num_steps: int,
        curve: Sequence[tuple[int, float]],
        first_step: int = 0,
        tensorboard: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._path, self._first_step = private / "training.jsonl", first_step
        self._progress = (_Bar if sys.stderr.isatty() else _Lines)(num_steps, first_step, clock)
        self._curve, self._events = list(curve), private / "tensorboard" if tensorboard else None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Callable[[Any, Mapping[str, np.ndarray]], None]:
        self._writer = None if self._events is None else _event_writer(self._events, self._first_step)
        if self._writer is not None:
            self._closing.callback(self._writer.close)
        with self._told():
            _keep_until(self._path, self._first_step)
            self._file = self._closing.enter_context(open(self._path, "a"))
        self._closing.callback(self._progress.close)
        return self._record

    def __exit__(self, *_: Any) -> None:
        with self._told():
            self._closing.close()

    def _record(self, state: Any, logs: Mapping[str, np.ndarray]) -> None:
        done, count = int(state.step), len(logs.get("loss", ()))
        epsilon = float(np.interp(done, *np.transpose(self._curve))) if self._curve else None
        with self._told():
            for offset in range(count):
                step = done - count + offset + 1
                row = {name: float(values[offset]) for name, values in logs.items()}
                self._file.write(_line(step, row))
                if self._writer is not None:
                    for name, value in row.items():
                        group = "released" if name.startswith("released_") else "private"
                        self._writer.add_scalar(f"{group}/{name.removeprefix('released_')}", value, step)
            if self._writer is not None and epsilon is not None and count:
                self._writer.add_scalar("epsilon", epsilon, done)
            self._file.flush()
        self._progress.show(done, epsilon)

    @contextlib.contextmanager
    def _told(self):
        """Storage that fails, in one sentence."""
        try:
            yield
        except OSError as error:
            raise unwritable(self._path, error) from error


def read_training_log(private: Path) -> dict[str, list[float]]:
    """The columns of private/training.jsonl; empty if there is none."""
    path = private / "training.jsonl"
    lines = path.read_text().splitlines()[1:] if path.is_file() else []
    return pd.DataFrame([json.loads(line) for line in lines]).astype(float).to_dict(orient="list")


def check_tensorboard() -> None:
    """Raises UserError if event files are asked for and cannot be written."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise UserError(
            "training.tensorboard is True, but tensorboardX is not installed: pip install 'privsyn_jax[tensorboard]', "
            "or set it to False"
        ) from None


def _line(step: int, row: Mapping[str, float]) -> str:
    """Strict JSON: what is not finite becomes null."""
    finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps({"step": step, **finite}, allow_nan=False) + "\n"


def _keep_until(path: Path, last_step: int) -> None:
    """Leaves the notice and the whole lines of the steps up to last_step."""
    kept = [json.dumps({"notice": PRIVATE_NOTICE})]
    if path.is_file():
        kept += [line for line in path.read_text().split("\n")[1:-1] if 0 < _step_of(line) <= last_step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept))
    os.replace(temporary, path)


def _step_of(line: str) -> int:
    """0 where a line is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (KeyError, TypeError, ValueError):
        return 0


def _event_writer(folder: Path, first_step: int) -> Any:
    check_tensorboard()
    import tensorboardX

    # The suffix keeps two attempts within a second apart; steps that are repeated replace those of the attempt before.
    return tensorboardX.SummaryWriter(
        str(folder),
        purge_step=first_step + 1 if first_step else None,
        filename_suffix=f".from_step_{first_step}",
        flush_secs=10,
    )


class _Bar:
    """For a terminal."""

    def __init__(self, num_steps: int, first_step: int, clock: Callable[[], float]):
        del clock
        self._num_steps, self._first_step, self._bar = num_steps, first_step, None

    def show(self, done: int, epsilon: float | None) -> None:
        if self._bar is None:  # later than it is made, so that what is announced before does not cut it
            self._bar = tqdm(
                desc="training", unit="step", total=self._num_steps, initial=self._first_step, dynamic_ncols=True
            )
        if epsilon is not None:
            self._bar.set_postfix_str(f"epsilon {epsilon:.3f}", refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """For a file: a line now and then, with nothing private in it."""

    def __init__(self, num_steps: int, first_step: int, clock: Callable[[], float]):
        self._num_steps, self._clock, self._shown, self._last = num_steps, clock, first_step, -math.inf
        self._start: tuple[int, float] | None = None  # after the first dispatch, which compiles

    def show(self, done: int, epsilon: float | None) -> None:
        now = self._clock()
        if done == self._shown:
            return
        is_due = now - self._last >= _SECONDS_BETWEEN_LINES or done >= self._num_steps
        self._shown = done
        if self._start is None:
            self._start = (done, now)
        if not is_due:
            return
        self._last = now
        words = [f"training: {done}/{self._num_steps} steps"]
        if epsilon is not None:
            words.append(f"epsilon {epsilon:.3f}")
        if done > self._start[0]:
            seconds = (now - self._start[1]) / (done - self._start[0])
            words.append(f"{seconds:.2g} s a step")
            if done < self._num_steps:
                words.append(f"about {seconds * (self._num_steps - done) / 60:.1f} min left")
        print(", ".join(words), file=sys.stderr, flush=True)

    def close(self) -> None:
        pass
