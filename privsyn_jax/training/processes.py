"""Several processes of one run: process 0 decides, charges and writes; the others compute along.

What process 0 says reaches all others in order. A failure of process 0 reaches them instead of what they wait for.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from privsyn_jax.privacy.ledger import Ledger, Receipt
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.privacy.spending import Logs, Spending
from privsyn_jax.types import UserError

_NOTHING, _CONTENT, _FAILED, _STOPPED = range(4)  # what a message is


def are_several() -> bool:
    return jax.process_count() > 1


def agree(what: str, value: str) -> None:
    """Compares a value over processes.

    Raises:
      UserError: on every process, if some have another value.
    """
    if not are_several():
        return
    words = np.frombuffer(value.encode().ljust(64)[:64], np.uint8)
    if len(np.unique(multihost_utils.process_allgather(words), axis=0)) > 1:
        raise UserError(f"the processes do not have the same {what}: give all of them the same files and flags")


class Leader:
    """Process 0. Without other processes it says nothing to nobody."""

    def __init__(self):
        self._is_heard = are_several()

    def say(self, content: bytes) -> None:
        if self._is_heard:
            _broadcast(_CONTENT, content)

    def let_go(self) -> None:
        """The others are not needed any more."""
        if self._is_heard:
            self._is_heard = False
            _broadcast(_NOTHING, b"")
            _part()

    def leading(self, spending: Spending) -> Spending:
        return _Leading(spending, self) if self._is_heard else spending

    @contextlib.contextmanager
    def telling_failures(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if self._is_heard:
                self._is_heard = False
                stopped = isinstance(error, SystemExit)
                _broadcast(_STOPPED if stopped else _FAILED, str(error.code if stopped else error).encode())
            raise
        self.let_go()


def hear() -> bytes | None:
    """What process 0 says; None if it has nothing more to be done.

    Raises:
      UserError: process 0 failed.
      SystemExit: process 0 was stopped.
    """
    kind, content = _broadcast(_NOTHING, b"")
    if kind == _NOTHING:
        _part()
        return None
    if kind == _FAILED:
        raise UserError(f"process 0: {content.decode()}")
    if kind == _STOPPED:
        raise SystemExit(int(content))
    return content


@contextlib.contextmanager
def obeying() -> Iterator[None]:
    """Signals to stop are left to process 0, which saves first."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


class Following:
    """Spending of the other processes: what process 0 says is paid.

    Args:
      ledger: as process 0 has it.
      name: of the entry that pays for training.
    """

    def __init__(self, ledger: Ledger, name: str):
        self.path: list[dict[str, Any]] = []
        self.receipt = Receipt(ledger, name)

    def next_block(self, done: int) -> Level | None:
        said = json.loads(_expected(hear()))
        return Level(*said) if said is not None else None

    def observe(self, released: Logs) -> None:
        """Process 0 does."""

    def to_dict(self) -> dict[str, Any]:
        raise NotImplementedError("only process 0 saves")

    def restore(self, saved: Mapping[str, Any]) -> None:
        raise NotImplementedError("only process 0 goes on from what was saved")


class Start:
    """What the others need to train along: the state, the key of draws and noise, the ledger."""

    @staticmethod
    def to_bytes(state: Any, key: jax.Array, ledger: Ledger) -> bytes:
        arrays = {f"{number:05d}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(state))}
        entries = np.frombuffer(json.dumps(ledger.to_list()).encode(), np.uint8)
        file = io.BytesIO()
        np.savez(file, key=np.asarray(jax.random.key_data(key)), ledger=entries, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @staticmethod
    def hear(state: Any) -> tuple[Any, jax.Array, Ledger]:
        """(state, key, ledger) of process 0.

        Args:
          state: of the same structure.
        """
        with np.load(io.BytesIO(_expected(hear())), allow_pickle=False) as found:
            leaves = [found[name] for name in found.files if name not in ("key", "ledger")]
            key = jax.random.wrap_key_data(jax.numpy.asarray(found["key"]), impl="threefry2x32")
            ledger = Ledger.from_list(json.loads(found["ledger"].tobytes()))
        return jax.tree.unflatten(jax.tree.structure(state), map(jax.numpy.asarray, leaves)), key, ledger


class _Leading:
    """Spending that tells the other processes what it chose."""

    def __init__(self, spending: Spending, leader: Leader):
        self._spending, self._leader, self.path = spending, leader, spending.path

    @property
    def receipt(self) -> Receipt:
        return self._spending.receipt

    def next_block(self, done: int) -> Level | None:
        block = self._spending.next_block(done)
        self._leader.say(json.dumps(block).encode())
        return block

    def observe(self, released: Logs) -> None:
        self._spending.observe(released)

    def to_dict(self) -> dict[str, Any]:
        return self._spending.to_dict()

    def restore(self, saved: Mapping[str, Any]) -> None:
        self._spending.restore(saved)


def _expected(content: bytes | None) -> bytes:
    if content is None:
        raise RuntimeError("process 0 was done before this process was")
    return content


def _broadcast(kind: int, content: bytes) -> tuple[int, bytes]:
    """(kind, content) of process 0, on every process."""
    kind, length = map(int, multihost_utils.broadcast_one_to_all(np.array([kind, len(content)], np.int32)))
    if length == 0:
        return kind, b""
    padded = np.zeros(1 << (length - 1).bit_length(), np.uint8)  # few sizes, few compilations
    if jax.process_index() == 0:
        padded[:length] = np.frombuffer(content, np.uint8)
    return kind, np.asarray(multihost_utils.broadcast_one_to_all(padded))[:length].tobytes()


def _part() -> None:
    """Ends the group while all are there: later, one would wait for the others until it gives up."""
    jax.distributed.shutdown()
