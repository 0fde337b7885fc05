"""The best of a random number of trials, charged as one release."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from privsyn_jax.privacy.accounting import Event
from privsyn_jax.privacy.ledger import Ledger, Receipt
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.search import find_root

Candidate = TypeVar("Candidate")
POISSON = "poisson"


class Selection(NamedTuple, Generic[Candidate]):
    """What is released: the winner and nothing of the others, not even how many there were."""

    candidate: Candidate
    output: Any
    score: float


def select(
    candidates: Sequence[Candidate],
    trial: Callable[[Candidate, Receipt], tuple[float, Any]],
    *,
    events: Sequence[Event],
    mean: float,
    shape: float | str = 1.0,
    ledger: Ledger,
    name: str = "selection",
    noise: HostNoise,
) -> Selection[Candidate] | None:
    """Runs a random number of trials, each with a candidate drawn evenly, and keeps the one with the highest score.

    The whole is charged before the first trial: more than one trial costs, but far less than their number, because
    the number is random and stays unknown. That holds only if each trial, *score included*, is paid for by `events`:
    score with noise that is among them, or on public or synthetic records. A score computed on private records without
    noise voids the guarantee. So does a trial that fails, or takes longer, where records say so.

    Args:
      trial: (candidate, receipt) -> (score, output). It opens records with the receipt, must not charge the ledger
        itself, and draws fresh noise in every call. A score that is NaN counts as the worst.
      events: what one trial costs.
      mean: expected number of trials, at least 1.
      shape: of their distribution: 1 geometric, 0 logarithmic, other positive numbers truncated negative binomial;
        "poisson" may run no trial at all.

    Returns:
      the winner; None only where no trial was run ("poisson").

    Raises:
      ValueError: no candidates, a mean or shape that is no distribution's, events that cannot be accounted for.

    Source: Papernot and Steinke 2022, "Hyperparameter Tuning with Renyi Differential Privacy", Theorems 2 and 6.
    """
    if not candidates:
        raise ValueError("there are no candidates to select among: give at least one")
    num_trials = draw_num_trials(mean, shape, noise)
    stated = shape if isinstance(shape, str) else float(shape)
    parts = [dict(part) for part in events]
    event = {"kind": "select", "events": parts, "mean": float(mean), "shape": stated, "count": 1}
    what = f"the best of a random number of trials over {len(candidates)} candidates"
    receipt = ledger.charge(name, "whatever a trial reads", what, event)
    best = None
    for _ in range(num_trials):
        candidate = candidates[noise.below(len(candidates))]
        score, output = trial(candidate, receipt)
        score = -math.inf if math.isnan(score) else score
        if best is None or score > best.score:
            best = Selection(candidate, output, score)
    return best


def draw_num_trials(mean: float, shape: float | str, noise: HostNoise) -> int:
    """A number of trials from the distribution that `select` is charged for, to the precision of a float64. Secret.

    Args:
      mean, shape: see `select`; as in dp_accounting's RepeatAndSelectDpEvent, where "poisson" is an infinite shape.

    Raises:
      ValueError: mean below 1 or infinite, or a shape that is neither "poisson" nor a number of 0 or more.
    """
    uniform, cumulative = float(noise.uniform(())), 0.0
    for number, probability in num_trials_pmf(mean, shape):
        cumulative += probability
        if uniform < cumulative or (probability < 1e-18 and number > mean):
            return number
    raise AssertionError("the distribution has no end")


def num_trials_pmf(mean: float, shape: float | str) -> Iterator[tuple[int, float]]:
    """(number, probability) for all numbers of trials, ascending; ends only where one trial is certain."""
    if not 1 <= mean < math.inf:
        raise ValueError(f"mean {mean} must be at least 1 and finite")
    if shape == POISSON:
        return _poisson(mean)
    if isinstance(shape, str) or not (math.isfinite(shape) and shape >= 0):
        raise ValueError(f"shape {shape!r} must be {POISSON!r}, or a number of 0 or more")
    return _negative_binomial(float(shape), _log_rate(mean, float(shape)))


def _poisson(mean: float) -> Iterator[tuple[int, float]]:
    log_probability = -mean
    for number in itertools.count():
        yield number, math.exp(log_probability)
        log_probability += math.log(mean / (number + 1))


def _negative_binomial(shape: float, log_rate: float) -> Iterator[tuple[int, float]]:
    """Truncated to 1 and above; logarithmic for shape 0. Definition 1 of the paper, with the log of its gamma."""
    if log_rate == 0:
        yield 1, 1.0
        return
    rest = math.log(-math.expm1(log_rate))
    none = shape * log_rate  # log probability of 0 before truncation
    log_probability = rest - math.log(-log_rate) if shape == 0 else rest + none + math.log(shape / -math.expm1(none))
    for number in itertools.count(1):
        yield number, math.exp(log_probability)
        log_probability += rest + math.log((number + shape) / (number + 1))


def _log_rate(mean: float, shape: float) -> float:
    """Log of the gamma at which the distribution has this mean; 0, one trial, where that is within 1e-9 of 1."""
    if mean < 1 + 1e-9:
        return 0.0
    if shape == 1:
        return -math.log(mean)

    def excess(log_rate):
        failures = math.expm1(-log_rate)
        return (failures / -log_rate if shape == 0 else shape * failures / -math.expm1(shape * log_rate)) - mean

    return find_root(excess, -math.log(1e3 * (1 + shape) * mean), -1e-12 / (1 + shape), tolerance=1e-15)
