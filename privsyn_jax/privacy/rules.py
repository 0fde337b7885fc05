"""Rules that choose the noise of the next block from what was released before.

A rule is a function (history, even) -> noise multiplier relative to the reference; to add one: a function here and its
line in RULES. `even` is the relative noise that would spend what is left evenly. What a rule returns is a wish: the
filter decides what can be paid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_START = math.sqrt(2.0)  # relative noise while nothing is known: early gradients stand out most
_NOTCH = 2**0.25  # by which `loss` lowers the noise
_STANDARD_ERRORS = 2.0


class Released(NamedTuple):
    """What a block of steps has released, averaged over its steps.

    Attributes:
      relative_noise: that the block was run with.
      progress: share of all steps done after it.
      signal: squared norm of the gradient sums net of noise energy, in units of the clipping norm.
      loss, loss_stderr: of the noisy mean loss; None unless it was bought.
    """

    relative_noise: float
    progress: float
    signal: float
    loss: float | None
    loss_stderr: float | None


Rule = Callable[[Sequence[Released], float], float]


def even(history: Sequence[Released], even: float) -> float:
    """No preference: the constant schedule."""
    del history
    return even


def signal(history: Sequence[Released], even: float) -> float:
    """Keeps the signal-to-noise ratio of the gradient where it was: noise falls with the signal.

    Towards the end it gives way to spending evenly what is left.
    """
    if not history:
        return _START
    first = max(history[0].signal, 1.0)  # one record's worth: below it there is nothing but noise
    ratio = math.sqrt(max(history[-1].signal, 1.0) / first)
    return _blend(_START * ratio, even, history[-1].progress)


def loss(history: Sequence[Released], even: float) -> float:
    """Lowers the noise by a notch whenever the noisy loss has stopped falling, as far as can be seen through its noise.

    Source: the trigger of Yu et al. 2019, "Differentially Private Model Publishing for Deep Learning", here at a price.
    """
    wish = _START
    for before, after in itertools.pairwise(history):
        if before.loss is None or after.loss is None or before.loss_stderr is None or after.loss_stderr is None:
            raise ValueError("the rule 'loss' needs the noisy loss: set privacy.adaptive.loss_share above 0")
        stderr = math.hypot(before.loss_stderr, after.loss_stderr)
        if before.loss - after.loss < _STANDARD_ERRORS * stderr:
            wish /= _NOTCH
    return _blend(wish, even, history[-1].progress) if history else wish


RULES: dict[str, Rule] = {"even": even, "signal": signal, "loss": loss}


def _blend(wish: float, even: float, progress: float) -> float:
    return wish ** (1 - progress) * even**progress
