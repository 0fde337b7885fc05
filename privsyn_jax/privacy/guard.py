"""Private records travel wrapped. A wrapper opens for a receipt of the ledger, or for what stays under private/."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from privsyn_jax.privacy.ledger import Receipt

T = TypeVar("T")
S = TypeVar("S")


class UnchargedAccess(RuntimeError):
    """Private records were about to be read by code that neither paid for it nor keeps the result private."""


@dataclasses.dataclass(frozen=True)
class PrivateFolder:
    """A folder that nobody but its owner may enter, for what is computed from records without noise.

    Raises:
      UnchargedAccess: the folder is not called private, or others may enter it.
    """

    path: Path

    def __post_init__(self):
        is_closed = self.path.is_dir() and not stat.S_IMODE(self.path.stat().st_mode) & 0o077
        if self.path.name != "private" or not is_closed:
            raise UnchargedAccess(f"{self.path} must be a folder called private of mode 0700 to hold unnoised results")


@dataclasses.dataclass(frozen=True)
class Opening:
    """One look at private records: for a ledger entry, or to write in a private folder."""

    charged_as: str | None
    folder: Path | None


class Private(Generic[T]):
    """A value made of private records.

    What can be done with it: `open` it with the receipt of a charge, `open_under` a private folder, or `map` it to
    another wrapped value. Everything else is refused, its length and its text included. This guards against mistakes,
    not against code that means to break in.

    Attributes:
      openings: all looks at this value and at those mapped from the same source.
    """

    __slots__ = ("__log", "__value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: T):
        self.__value = value
        self.__log: list[Opening] = []

    @property
    def openings(self) -> tuple[Opening, ...]:
        return tuple(self.__log)

    def open(self, receipt: Receipt) -> T:
        """The value, for a mechanism that is charged for.

        Raises:
          UnchargedAccess: the receipt is none, or its entry is not in its ledger.
        """
        if not isinstance(receipt, Receipt) or not receipt.is_booked:
            raise UnchargedAccess(
                f"private records were to be opened with {receipt!r}: pass what Ledger.charge() returns instead"
            )
        self.__log.append(Opening(receipt.name, None))
        return self.__value

    def open_under(self, folder: PrivateFolder) -> T:
        """The value, for results that are written below `folder` only.

        Raises:
          UnchargedAccess: `folder` is no PrivateFolder.
        """
        if not isinstance(folder, PrivateFolder):
            raise UnchargedAccess(
                f"private records were to be opened for {folder!r}: pass the PrivateFolder that results are written to"
            )
        self.__log.append(Opening(None, folder.path))
        return self.__value

    def map(self, function: Callable[[T], S]) -> Private[S]:
        """function(value), wrapped: for preparation that lets nothing out."""
        mapped = Private(function(self.__value))
        mapped.__log = self.__log
        return mapped

    def __repr__(self) -> str:
        return "<private records>"

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise UnchargedAccess(
            "private records are not read, compared, counted or copied as they are: open() them with a receipt of the "
            "ledger, or open_under() a private folder"
        )

    __len__ = __iter__ = __bool__ = __eq__ = __ne__ = __contains__ = __getitem__ = _refuse  # type: ignore[assignment]
    __array__ = __reduce__ = __reduce_ex__ = __copy__ = __deepcopy__ = __getstate__ = _refuse  # type: ignore[assignment]
