"""The frontier of utility and leakage, against a slower way to find the same."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.study.frontier import Point, are_optimal, hypervolume

REFERENCE = Point(0.5, 1.0)
points = st.lists(  # on a grid, so that equal coordinates are common
    st.builds(Point, st.integers(8, 20).map(lambda n: n / 20), st.integers(8, 22).map(lambda n: n / 20)), max_size=8
)


def beats(one: Point, other: Point) -> bool:
    return one.utility >= other.utility and one.leakage <= other.leakage and one != other


def area_of_squares(found: list[Point]) -> float:
    """The grid's squares that some point dominates, one by one."""
    squares = [(u + 0.5, v + 0.5) for u in range(10, 20) for v in range(8, 20)]
    covered = [(u, v) for u, v in squares if any(p.utility * 20 > u and p.leakage * 20 < v for p in found)]
    return len(covered) / 400


@given(points)
@settings(deadline=None)
def test_a_point_is_optimal_if_and_only_if_no_other_beats_it(found):
    assert are_optimal(found) == [not any(beats(other, point) for other in found) for point in found]


@given(points)
@settings(deadline=None)
def test_some_point_is_optimal_and_every_other_is_beaten_by_one_that_is(found):
    best = [point for point, is_best in zip(found, are_optimal(found), strict=True) if is_best]
    assert bool(best) == bool(found)
    assert all(point in best or any(beats(one, point) for one in best) for point in found)


@given(points)
@settings(deadline=None)
def test_the_hypervolume_is_the_area_of_what_is_dominated(found):
    assert hypervolume(found, REFERENCE) == pytest.approx(area_of_squares(found), abs=1e-12)


@given(points, st.randoms())
@settings(deadline=None)
def test_beaten_points_and_their_order_do_not_matter(found, random):
    best = [point for point, is_best in zip(found, are_optimal(found), strict=True) if is_best]
    random.shuffle(found)
    assert hypervolume(best, REFERENCE) == pytest.approx(hypervolume(found, REFERENCE), abs=1e-12)


@given(points, st.builds(Point, st.floats(0.4, 1.0), st.floats(0.4, 1.0)))
@settings(deadline=None)
def test_a_further_point_never_takes_area_away(found, point):
    assert hypervolume([*found, point], REFERENCE) >= hypervolume(found, REFERENCE) - 1e-12


def test_the_hypervolume_agrees_with_random_points():
    rng = np.random.default_rng(0)
    found = [Point(*row) for row in rng.uniform([0.4, 0.3], [0.95, 1.1], (12, 2)).tolist()]
    drawn = rng.uniform([0.5, 0.0], [1.0, 1.0], (40_000, 2))
    is_covered = np.any([(drawn[:, 0] <= p.utility) & (drawn[:, 1] >= p.leakage) for p in found], axis=0)
    share, box = hypervolume(found, REFERENCE) / 0.5, is_covered.mean()
    assert abs(share - box) < 5 * math.sqrt(box * (1 - box) / len(drawn))


def test_what_is_not_known_is_never_optimal_and_covers_nothing():
    found = [Point(0.8, 0.6), Point(math.nan, 0.5), Point(0.9, math.nan)]
    assert are_optimal(found) == [True, False, False]
    assert hypervolume(found, REFERENCE) == pytest.approx(0.3 * 0.4)
    assert are_optimal([]) == [] and hypervolume([], REFERENCE) == 0.0
