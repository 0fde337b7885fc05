"""Noise, clipping norm and batch size over steps: shapes, and their levels.

A shape is a function (progress, final) -> value relative to its largest; progress runs over [0, 1], final is the ratio
between the two ends. To add one: a function here and its line in SHAPES. A schedule is followed in at most MAX_LEVELS
constant levels, so that accounting is exact for what was run, and its cost independent of the number of steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

MAX_LEVELS = 16
_STAIRS = 4
_WARMUP = 0.2  # of the steps

Shape = Callable[[np.ndarray, float], np.ndarray]


class Level(NamedTuple):
    """Steps with the same public numbers.

    `noise_multiplier` is what the ledger is charged with: of all that a step releases, together.
    """

    num_steps: int
    sampling_rate: float
    expected_batch_size: float
    noise_multiplier: float
    l2_clip_norm: float


def constant(progress, final):
    del final
    return np.ones_like(progress)


def linear(progress, final):
    return 1 + (final - 1) * progress


def exponential(progress, final):
    return final**progress


def cosine(progress, final):
    return final + (1 - final) * (1 + np.cos(np.pi * progress)) / 2


def step(progress, final):
    """Four stairs of equal ratio."""
    stair = np.minimum(np.floor(_STAIRS * progress), _STAIRS - 1)
    return final ** (stair / (_STAIRS - 1))


def warmup_decay(progress, final):
    """Up from `final` in the first fifth, then linearly back to it."""
    rise = progress / _WARMUP
    fall = (1 - progress) / (1 - _WARMUP)
    return final + (1 - final) * np.minimum(rise, fall)


def growing(progress, final):
    """From `final` up: `exponential` run backwards."""
    return final ** (1 - progress)


SHAPES: dict[str, Shape] = {
    "constant": constant,
    "linear": linear,
    "exponential": exponential,
    "cosine": cosine,
    "step": step,
    "warmup_decay": warmup_decay,
    "growing": growing,
}


def boundaries(num_steps: int, multiple: int, num_levels: int = MAX_LEVELS) -> list[int]:
    """Where levels begin, and num_steps: parts of nearly equal length, cut at multiples of `multiple`."""
    num_levels = max(1, min(num_levels, MAX_LEVELS, num_steps // multiple))
    cuts = {round(number * num_steps / num_levels / multiple) * multiple for number in range(1, num_levels)}
    return [0, *sorted(cut for cut in cuts if 0 < cut < num_steps), num_steps]


def follow(shape: str, final: float, bounds: Sequence[int]) -> list[float]:
    """One value per level, relative to the shape's first or largest: its geometric mean over the level's steps."""
    progress = (np.arange(bounds[-1]) + 0.5) / bounds[-1]
    values = np.log(SHAPES[shape](progress, final))
    return [float(np.exp(values[start:stop].mean())) for start, stop in itertools.pairwise(bounds)]
