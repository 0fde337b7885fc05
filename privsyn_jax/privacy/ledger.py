"""The ledger: every mechanism that read a private record, and what they add up to."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from privsyn_jax.files import write_bytes
from privsyn_jax.privacy import accounting
from privsyn_jax.views import html_parts as html


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


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What `Ledger.charge` returns: proof, for whoever opens private records, that they are paid for.

    Attributes:
      ledger: where the entry stands.
      name: of the entry.
    """

    ledger: Ledger = dataclasses.field(repr=False)
    name: str

    @property
    def is_booked(self) -> bool:
        """Whether the ledger has an entry of this name."""
        return isinstance(self.ledger, Ledger) and any(entry.name == self.name for entry in self.ledger.entries)


class Ledger:
    """Entries that only grow; alone computes epsilon. With a path, every charge is on disk before it counts.

    Who charges is an origin: a computation that is a function of the records alone, its noise included. Draws that an
    origin has paid for are not charged to it again, since a repetition gives the same values; another origin, which
    draws anew or rounds in another way, pays for its own.

    Args:
      path: file of the ledger.
      paid: origin -> name of an entry -> draws paid for, from the first on.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        path: Path | None = None,
        *,
        paid: Mapping[str, Mapping[str, int]] | None = None,
    ):
        self._entries = tuple(entries)
        self._path, self._origin = path, ""
        self._paid = {who: dict(counts) for who, counts in (paid or {}).items()}

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self._entries

    @property
    def events(self) -> list[accounting.Event]:
        return [entry.event for entry in self._entries]

    def paid(self, name: str, origin: str | None = None) -> int:
        """How many draws of an entry an origin has paid for, by default the one that charges."""
        return self._paid.get(self._origin if origin is None else origin, {}).get(name, 0)

    def paid_by_others(self, name: str, origin: str) -> int:
        """The most draws of an entry that any other origin has paid for."""
        return max((counts.get(name, 0) for who, counts in self._paid.items() if who != origin), default=0)

    def has_paid(self, origin: str) -> bool:
        return origin in self._paid

    def charged_by(self, origin: str) -> Ledger:
        """This ledger, which from now on charges as another origin."""
        self._origin = origin
        return self

    def covers(self, other: Ledger) -> bool:
        """Whether everything that the other books is booked here too."""
        counts = {_key(entry): entry.event["count"] for entry in self._entries}
        return all(counts.get(_key(entry), 0) >= entry.event["count"] for entry in other.entries)

    def charge(
        self, name: str, reads: str, mechanism: str, event: accounting.Event | None, *, upto: int | None = None
    ) -> Receipt:
        """Books an event. Call it before the mechanism reads a record.

        An entry that differs in nothing but `count` grows by it instead of a new one being added.

        Args:
          event: None where a draw adds nothing to what is booked.
          upto: afterwards, the origin has paid for the first `upto` draws of the name; if it had before, nothing
            happens. None books in any case.

        Raises:
          ValueError: the event cannot be accounted for; nothing is booked.
          UserError: the file cannot be written; nothing is booked.
        """
        if upto is not None and 0 < upto <= self.paid(name):
            return Receipt(self, name)
        entries, paid = list(self._entries), {who: dict(counts) for who, counts in self._paid.items()}
        if event is not None:
            entries = _with(entries, Entry(name, reads, mechanism, copy.deepcopy(event)))
        if upto:
            paid.setdefault(self._origin, {})[name] = upto
        if self._path is not None:
            plain = {"entries": [dataclasses.asdict(entry) for entry in entries], "paid": paid}
            write_bytes(self._path, json.dumps(plain, indent=1, allow_nan=False).encode())
        self._entries, self._paid = tuple(entries), paid
        return Receipt(self, name)

    @property
    def accountant(self) -> str:
        """How `epsilon` is computed, in words for the report."""
        for entry in self._entries:
            if accounting.renyi_only(entry.event):
                return (
                    f"Renyi differential privacy (dp-accounting), because {entry.name!r} ({entry.event['kind']}) has "
                    "no privacy-loss distribution"
                )
        return f"privacy-loss distributions (discretisation {accounting.FINE:g}), confirmed by dp-accounting"

    def epsilon(self, delta: float) -> float:
        """Of all entries together, by `accountant`; infinite if some entry adds no noise."""
        return accounting.epsilon_of(self.events, delta)

    def epsilon_rdp(self, delta: float) -> float:
        """By Renyi accounting: a looser cross-check.

        Raises:
          RuntimeError: it lies below the PLD value, so one of the two accountants is wrong.
        """
        rdp, tight = accounting.epsilon_rdp(self.events, delta), self.epsilon(delta)
        rounded = 2 + sum(event["count"] for event in self.events if "gaussian" not in event["kind"])
        if math.isfinite(tight) and rdp < tight * (1 - 1e-3) - rounded * accounting.FINE:  # losses go up to the grid
            raise RuntimeError(f"RDP epsilon {rdp} lies below PLD epsilon {tight}: the accounting is wrong")
        return rdp

    def delta(self, epsilon: float) -> float:
        return accounting.delta_of(self.events, epsilon)

    def _repr_html_(self) -> str:
        rows = [(entry.name, entry.reads, entry.mechanism, json.dumps(entry.event)) for entry in self._entries]
        return html.block("Ledger", html.table(("name", "reads", "mechanism", "event"), rows))

    def to_list(self) -> list[dict[str, Any]]:
        """Plain JSON; `from_list` inverts it exactly."""
        return [dataclasses.asdict(entry) for entry in self._entries]

    @classmethod
    def from_list(cls, plain: Iterable[dict[str, Any]]) -> Ledger:
        return cls(Entry(**entry) for entry in plain)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """The ledger that was written to the file, to be charged further there.

        Raises:
          ValueError: the file is not a ledger, or holds an event that cannot be accounted for.
        """
        try:
            plain = json.loads(path.read_text())
            return cls((Entry(**entry) for entry in plain["entries"]), path, paid=plain["paid"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a ledger ({error}): restore it as `Ledger.charge` wrote it") from None


def check_charged(charged: Sequence[accounting.Event], made: Sequence[accounting.Event]) -> None:
    """Raises RuntimeError unless the events that a mechanism reports are those that were charged before it ran."""
    if list(charged) != list(made):
        raise RuntimeError(f"{list(charged)} was charged, but the mechanism reports {list(made)}")


def _with(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The entries with one more, or with a larger count."""
    for number, other in enumerate(entries):
        if _key(other) == _key(entry):
            count = other.event["count"] + entry.event["count"]
            grown = dataclasses.replace(entry, event={**other.event, "count": count})
            return [*entries[:number], grown, *entries[number + 1 :]]
    return [*entries, entry]


def _key(entry: Entry) -> str:
    """Equal for entries that differ in nothing but `count`."""
    event = {name: value for name, value in entry.event.items() if name != "count"}
    return json.dumps([entry.name, entry.reads, entry.mechanism, event], sort_keys=True)
