"""The frontier of two goals: which points no other beats, and how much of the plane they cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """Utility, the larger the better, and leakage, the larger the worse."""

    utility: float
    leakage: float


def are_optimal(points: Sequence[Point]) -> list[bool]:
    """Whether each is a point that no other dominates (Pareto); equal ones are so together, one with a NaN never is."""
    return [_is_known(point) and not any(_dominates(other, point) for other in points) for point in points]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Area of the part of the plane that is dominated by some point and dominates the reference.

    Args:
      points: those no better than the reference in both count for nothing, and so does NaN.
      reference: public, and chosen beforehand: a worst case of both.

    Source: Zitzler and Thiele 1998, "Multiobjective Optimization Using Evolutionary Algorithms".
    """
    area, least = 0.0, reference.leakage  # least leakage of the points with more utility
    for point in sorted(filter(_is_known, points), key=lambda point: -point.utility):
        if point.utility > reference.utility and point.leakage < least:
            area += (point.utility - reference.utility) * (least - point.leakage)
            least = point.leakage
    return area


def _dominates(one: Point, other: Point) -> bool:
    """Whether one is at least as good in both and better in one of them."""
    return one.utility >= other.utility and one.leakage <= other.leakage and one != other


def _is_known(point: Point) -> bool:
    return not any(map(math.isnan, point))
