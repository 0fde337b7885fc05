"""What one-off releases gave out, heard while a mechanism runs, and the likelihood of the same from other records.

Every release of the host adds its noise to what it hides in one sum: Gaussian noise to numbers that are released,
Gumbel noise to log weights of which the place of the largest is. `Recorded` noise hears these sums. `Repeated` noise
gives the same mechanism, run on other records, the sums of before in place of its own, so that it takes the same way,
whatever was chosen by what had been released, and hears what it would have hidden.

Source: Dong, Roth and Su 2022, "Gaussian Differential Privacy", section 3, on the likelihood of a composition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from privsyn_jax.privacy.noise import HostNoise

IMPOSSIBLE = 1e6  # nats, finite: of what the other records could not have released


class Heard(NamedTuple):
    """One sum: noise of a kind ("normal" with its stddev, "gumbel") that hides `exact`, and what came of it."""

    kind: str
    stddev: float
    exact: np.ndarray
    noisy: np.ndarray

    def log_likelihood_ratio(self, other: Heard) -> float:
        """Of what is released here, hiding self.exact to hiding other.exact; in nats."""
        if self.kind == "gumbel":
            chosen = int(np.argmax(self.noisy))
            return float(log_softmax(self.exact)[chosen] - log_softmax(other.exact)[chosen])
        nearer = np.square(self.noisy - other.exact).sum() - np.square(self.noisy - self.exact).sum()
        return float(nearer / (2 * self.stddev**2))


class _Listening(HostNoise):
    """Hears normal and Gumbel noise; whatever else is drawn could not be repeated."""

    def __init__(self):
        super().__init__(0)
        self.heard = list[Heard]()

    def _bytes(self, count: int) -> bytes:
        raise ValueError("a release draws noise that is neither normal nor Gumbel: its likelihood is not known here")


class Recorded(_Listening):
    """Noise as ever, and the sums that it was part of."""

    def __init__(self, source: HostNoise):
        super().__init__()
        self._source, self.num_drawn = source, 0

    def normal(self, shape: tuple[int, ...], *, stddev: float) -> Any:
        return self._draw("normal", stddev, self._source.normal(shape, stddev=stddev))

    def gumbel(self, shape: tuple[int, ...]) -> Any:
        return self._draw("gumbel", 1.0, self._source.gumbel(shape))

    def _draw(self, kind: str, stddev: float, draws: np.ndarray) -> _Hiding:
        self.num_drawn += 1

        def hide(exact: np.ndarray) -> np.ndarray:
            self.heard.append(Heard(kind, stddev, exact, exact + draws))
            return self.heard[-1].noisy

        return _Hiding(hide)


class Diverged(Exception):
    """A mechanism draws other noise than before, though all that it had released was the same."""


class Repeated(_Listening):
    """The sums of before, in their order.

    Raises:
      Diverged: another kind, size or stddev of noise is asked for, or one more.
    """

    def __init__(self, before: Sequence[Heard]):
        super().__init__()
        self._before = before

    def normal(self, shape: tuple[int, ...], *, stddev: float) -> Any:
        return self._repeat("normal", stddev, shape)

    def gumbel(self, shape: tuple[int, ...]) -> Any:
        return self._repeat("gumbel", 1.0, shape)

    def _repeat(self, kind: str, stddev: float, shape: tuple[int, ...]) -> _Hiding:
        if len(self.heard) == len(self._before):
            raise Diverged
        before = self._before[len(self.heard)]
        if (kind, stddev, tuple(shape)) != (before.kind, before.stddev, before.noisy.shape):
            raise Diverged

        def hide(exact: np.ndarray) -> np.ndarray:
            self.heard.append(Heard(kind, stddev, exact, before.noisy))
            return before.noisy

        return _Hiding(hide)


class _Hiding:
    """Noise that can be added to an array, and nothing else."""

    __array_ufunc__ = None  # so that NumPy leaves the sum to this class

    def __init__(self, hide: Callable[[np.ndarray], np.ndarray]):
        self._hide = hide

    def __radd__(self, exact: Any) -> np.ndarray:
        return self._hide(np.asarray(exact, np.float64)).copy()


class Nats(NamedTuple):
    sums: float  # of numbers that are released, given the choices
    choices: float


def log_likelihood_ratio(
    mechanism: Callable[[Any, HostNoise], Any], records: Any, others: Any, *, noise: HostNoise
) -> Nats:
    """Of what the mechanism releases of `records`, if it had them to if it had `others`.

    Args:
      mechanism: (records, noise) -> anything; all that it releases is a sum with noise, or follows from such sums.

    Raises:
      ValueError: it drew noise and added it to nothing, or noise of another kind.
    """
    first = Recorded(noise)
    mechanism(records, first)
    if len(first.heard) != first.num_drawn:
        raise ValueError(f"noise was drawn {first.num_drawn} times and added to something {len(first.heard)} times")
    second = Repeated(first.heard)
    try:
        mechanism(others, second)
    except Diverged:
        return Nats(IMPOSSIBLE, IMPOSSIBLE)
    if len(second.heard) != len(first.heard):
        return Nats(IMPOSSIBLE, IMPOSSIBLE)
    nats = {"normal": 0.0, "gumbel": 0.0}
    for own, other in zip(first.heard, second.heard, strict=True):
        nats[own.kind] += own.log_likelihood_ratio(other)
    return Nats(nats["normal"], nats["gumbel"])
