"""The ledger: every mechanism that read a private record, and what they add up to."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from privsyn_jax.privacy import accounting


@dataclasses.dataclass(frozen=True)
class Entry:
    """One charge.

    Attributes:
      name: what it is called in the report.
      reads: which private values it looked at.
      mechanism: what was released, with sensitivity and noise in words.
      event: plain JSON, see `accounting`.
    """

    name: str
    reads: str
    mechanism: str
    event: accounting.Event

    def __post_init__(self):
        try:
            accounting.check_event(self.event)
        except ValueError as error:
            raise ValueError(f"ledger entry {self.name!r}: {error}") from None


class Ledger:
    """Append-only list of entries; alone computes epsilon. With a path, every charge is on disk before it counts."""

    def __init__(self, entries: Iterable[Entry] = (), path: Path | None = None):
        self._entries = list(entries)
        self._path = path

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    @property
    def events(self) -> list[accounting.Event]:
        return [entry.event for entry in self._entries]

    def charge(self, name: str, reads: str, mechanism: str, event: accounting.Event) -> None:
        """Books an event. Call it before the mechanism's result is used."""
        self._entries.append(Entry(name, reads, mechanism, dict(event)))
        if self._path is not None:
            temporary = self._path.with_suffix(".tmp")
            with open(temporary, "w") as file:
                json.dump(self.to_list(), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)

    def epsilon(self, delta: float) -> float:
        """By privacy-loss distributions; infinite if some entry adds no noise."""
        return accounting.epsilon_of(self.events, delta)

    def epsilon_rdp(self, delta: float) -> float:
        """By Renyi accounting: a looser cross-check.

        Raises:
          RuntimeError: it lies below the PLD value, so one of the two accountants is wrong.
        """
        rdp, tight = accounting.epsilon_rdp(self.events, delta), self.epsilon(delta)
        if rdp < tight * (1 - 1e-3) - 2 * accounting.FINE:
            raise RuntimeError(f"RDP epsilon {rdp} lies below PLD epsilon {tight}: the accounting is wrong")
        return rdp

    def delta(self, epsilon: float) -> float:
        return accounting.delta_of(self.events, epsilon)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain JSON; `from_list` inverts it exactly."""
        return [dataclasses.asdict(entry) for entry in self._entries]

    @classmethod
    def from_list(cls, plain: Iterable[dict[str, Any]]) -> Ledger:
        return cls(Entry(**entry) for entry in plain)
