"""What is written while training runs: private/training.jsonl, progress on the terminal, TensorBoard on request."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from privsyn_jax.files import unwritable, write_bytes
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_OF_RATE = 60.0  # the speed is that of the last minute
_SECONDS_BETWEEN_SYNCS = 5.0


class TrainingLog:
    """Context manager giving a hook of the training loop.

    What was logged after `first_step` by an attempt that was killed is dropped, so the file of a run that was
    interrupted is that of an unbroken one.

    Args:
      private: the run's private folder.
      curve: (steps, epsilon) at some numbers of steps; empty without noise.
      first_step: steps done before.
      tensorboard: whether to write event files to private/tensorboard/.
      quiet: whether nothing is shown on the terminal.
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
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._path, self._first_step = private / "training.jsonl", first_step
        shown = _Nothing if quiet else _Bar if sys.stderr.isatty() else _Lines
        self._progress = shown(num_steps, first_step, clock)
        self._curve, self._folder = list(curve), private / "tensorboard" if tensorboard else None
        self._events: _Events | None = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Callable[[Any, Mapping[str, np.ndarray]], None]:
        if self._folder is not None:
            check_tensorboard()
        with self._told(self._path):
            _keep_until(self._path, self._first_step)
            self._file = self._closing.enter_context(open(self._path, "a"))
        if self._folder is not None:
            with self._told(self._folder):
                self._events = self._closing.enter_context(contextlib.closing(_Events(self._folder, self._first_step)))
        self._closing.callback(self._progress.close)
        return self._record

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # What stopped the run is told before what could not be written at its end.
        with contextlib.suppress(OSError) if kind else self._told(self._path.parent):
            self._closing.close()

    def _record(self, state: Any, logs: Mapping[str, np.ndarray]) -> None:
        done, count = int(state.step), len(logs.get("loss", ()))
        rows = [{name: float(values[offset]) for name, values in logs.items()} for offset in range(count)]
        with self._told(self._path):
            self._file.writelines(_line(step, row) for step, row in enumerate(rows, start=done - count + 1))
            self._file.flush()
        epsilon = float(np.interp(done, *np.transpose(self._curve))) if self._curve else None
        if self._events is not None and count:
            with self._told(self._events.path):
                self._events.write(done, rows, epsilon)
        self._progress.show(done, epsilon)

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        """Storage that fails, in one sentence, once."""
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                self._closing.close()
            raise unwritable(path, error) from error


def read_training_log(private: Path) -> dict[str, list[float]]:
    """The columns of private/training.jsonl; empty if there is none. What is missing or not finite is NaN."""
    return pd.DataFrame(_whole_rows(private / "training.jsonl")).astype(float).to_dict(orient="list")


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
    kept = [_line(row.pop("step"), row) for row in _whole_rows(path) if row["step"] <= last_step]
    write_bytes(path, (json.dumps({"notice": PRIVATE_NOTICE}) + "\n" + "".join(kept)).encode())


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """What whole lines hold, by step; those that are torn or damaged are passed over."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    rows = {row["step"]: row for line in lines if (row := _whole_row(line))}
    return [rows[step] for step in sorted(rows)]


def _whole_row(line: bytes) -> dict[str, Any] | None:
    """None for the notice, and for what is no row."""
    try:
        row = json.loads(line)
        step = row.pop("step")
        values = {name: math.nan if value is None else float(value) for name, value in row.items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return {"step": step, **values} if isinstance(step, int) and step > 0 else None


class _Events:
    """A TensorBoard event file, of this attempt."""

    # Not by tensorboardX's SummaryWriter: its thread dies on a full disk, and training would wait for it for ever.
    def __init__(self, folder: Path, first_step: int):
        from tensorboardX import RecordWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary  # type: ignore[attr-defined]
        folder.mkdir(exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.from_step_{first_step}"
        self._writer, self._synced = RecordWriter(str(self.path.absolute())), -math.inf
        self._add(file_version="brain.Event:2")
        # TensorBoard drops these steps of an attempt before.
        self._add(step=first_step + 1, session_log={"status": "START"})

    def write(self, done: int, rows: Sequence[Mapping[str, float]], epsilon: float | None) -> None:
        for step, row in enumerate(rows, start=done - len(rows) + 1):
            values = {_tag(name): value for name, value in row.items()}
            if step == done and epsilon is not None:
                values["epsilon"] = epsilon
            scalars = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            self._add(step=step, summary=self._summary(value=scalars))
        if time.monotonic() - self._synced >= _SECONDS_BETWEEN_SYNCS:
            self._writer.flush()
            self._synced = time.monotonic()

    def close(self) -> None:
        self._writer.close()

    def _add(self, **content: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **content).SerializeToString())


def _tag(name: str) -> str:
    return f"released/{name.removeprefix('released_')}" if name.startswith("released_") else f"private/{name}"


class _Nothing:
    """For a run among many."""

    def __init__(self, num_steps: int, first_step: int, clock: Callable[[], float]):
        del num_steps, first_step, clock

    def show(self, done: int, epsilon: float | None) -> None:
        pass

    def close(self) -> None:
        pass


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
        self._num_steps, self._clock, self._last = num_steps, clock, -math.inf
        self._done, self._told, self._epsilon = first_step, first_step, None
        self._begun: float | None = None
        self._marks: deque[tuple[int, float]] = deque()  # after dispatches of the last minute; the first one compiles

    def show(self, done: int, epsilon: float | None) -> None:
        now = self._clock()
        self._begun = now if self._begun is None else self._begun
        if done == self._done:
            return
        self._done, self._epsilon = done, epsilon
        self._marks.append((done, now))
        while len(self._marks) > 2 and now - self._marks[1][1] >= _SECONDS_OF_RATE:
            self._marks.popleft()
        if now - self._last >= _SECONDS_BETWEEN_LINES or done >= self._num_steps:
            self._last = now
            self._print()

    def close(self) -> None:
        if self._done != self._told:
            self._print()

    def _print(self) -> None:
        words = [f"training: {self._done}/{self._num_steps} steps"]
        if self._epsilon is not None:
            words.append(f"epsilon {self._epsilon:.3f}")
        (first, begin), (last, end) = self._marks[0], self._marks[-1]
        if last > first:
            seconds = (end - begin) / (last - first)
            words.append(f"{np.format_float_positional(seconds, precision=2, fractional=False, trim='-')} s a step")
            if last < self._num_steps:
                words.append(f"about {_duration(seconds * (self._num_steps - last))} left")
        elif self._begun is not None:
            words.append(f"{_duration(end - self._begun)} with compilation")
        self._told = self._done
        with contextlib.suppress(OSError):  # a run is not to end because a line cannot be shown
            print(", ".join(words), file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
