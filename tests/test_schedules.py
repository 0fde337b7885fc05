"""Schedules: what their shapes are, at most 16 levels, and a plan that lands on epsilon whatever they are."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.accounting import epsilon_of
from privsyn_jax.privacy.schedules import MAX_LEVELS, SHAPES, boundaries, follow
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Column, Schema, UserError

SCHEMA = Schema(
    (Column("age", "integer", lower=0, upper=99), Column("sex", "categorical", categories=("f", "m"))), 20_000
)


@pytest.mark.parametrize("name", SHAPES)
@given(final=st.floats(0.05, 1.0))
@settings(deadline=None, max_examples=20)
def test_a_shape_stays_between_its_ends(name, final):
    values = SHAPES[name](np.linspace(0, 1, 101), final)
    assert values.shape == (101,) and values.max() <= 1 + 1e-12 and values.min() >= final - 1e-12
    if name != "constant":
        assert values.max() == pytest.approx(1, abs=0.02) and values.min() == pytest.approx(final, rel=1e-9)


def test_shapes_go_where_their_names_say():
    progress = np.linspace(0, 1, 101)
    values = {name: shape(progress, 0.5) for name, shape in SHAPES.items()}
    for name in ("linear", "exponential", "cosine", "step"):
        assert (
            values[name][0] == 1 and values[name][-1] == pytest.approx(0.5) and np.all(np.diff(values[name]) <= 1e-12)
        )
    assert np.all(np.diff(values["growing"]) > 0)
    assert len(np.unique(values["step"])) == 4
    assert values["warmup_decay"][[0, 20, 100]] == pytest.approx([0.5, 1.0, 0.5])
    assert values["linear"][50] == pytest.approx(0.75) and values["exponential"][50] == pytest.approx(math.sqrt(0.5))


@given(st.integers(1, 10**6), st.integers(1, 100), st.integers(1, 40))
def test_levels_are_at_most_sixteen_and_cover_every_step_once(num_steps, multiple, num_levels):
    bounds = boundaries(num_steps, multiple, num_levels)
    assert bounds[0] == 0 and bounds[-1] == num_steps and bounds == sorted(set(bounds))
    assert len(bounds) - 1 <= min(MAX_LEVELS, num_levels)
    assert all(cut % multiple == 0 for cut in bounds[1:-1])


@pytest.mark.parametrize("name", SHAPES)
def test_a_level_is_the_geometric_mean_of_its_steps(name):
    bounds = boundaries(200, 10, 8)
    steps = SHAPES[name]((np.arange(200) + 0.5) / 200, 0.3)
    for level, (start, stop) in zip(follow(name, 0.3, bounds), itertools.pairwise(bounds), strict=True):
        assert math.log(level) == pytest.approx(np.log(steps[start:stop]).mean())


def planned(schedule, epsilon=1.0, num_steps=300, **privacy):
    sections = {
        "privacy": {"epsilon": epsilon, "delta": 1e-5, "schedule": schedule, **privacy},
        "training": {"num_steps": num_steps, "expected_batch_size": 512},
    }
    return make_plan(settings_from_dict(sections), SCHEMA)


@pytest.mark.parametrize(
    ("schedule", "epsilon"),
    [
        *(({"noise": name, "noise_final": 0.4}, 1.0) for name in SHAPES),
        ({"noise": "growing", "noise_final": 0.2}, 0.5),
        ({"noise": "exponential", "noise_final": 0.1}, 4.0),
        ({"clip": "exponential", "clip_final": 0.3}, 1.0),
        ({"batch": "linear", "batch_final": 4.0}, 1.0),
        ({"noise": "cosine", "clip": "linear", "batch": "step", "batch_final": 3.0}, 2.0),
    ],
)
def test_the_whole_schedule_lands_on_the_target_and_never_above(schedule, epsilon):
    plan = planned(schedule, epsilon)
    spent = epsilon_of([*plan.release_events, *plan.training_events], plan.delta)
    assert 0.995 * epsilon <= spent <= epsilon
    assert sum(event["count"] for event in plan.training_events) == plan.num_steps == 300
    assert len({(level.sampling_rate, level.noise_multiplier) for level in plan.levels}) <= MAX_LEVELS


def test_the_levels_follow_the_shapes_that_were_asked_for():
    plan = planned(
        {"noise": "linear", "noise_final": 0.5, "clip": "exponential", "clip_final": 0.25, "batch": "linear"}
    )
    noise = [level.noise_multiplier for level in plan.levels]
    clip = [level.l2_clip_norm for level in plan.levels]
    size = [level.expected_batch_size for level in plan.levels]
    assert noise[-1] / noise[0] == pytest.approx(0.5, rel=0.1) and clip[-1] / clip[0] == pytest.approx(0.25, rel=0.1)
    assert clip[0] == pytest.approx(1.0, rel=0.1) and max(clip) <= 1.0
    assert np.average(size, weights=[level.num_steps for level in plan.levels]) == pytest.approx(512)
    for level in plan.levels:
        assert level.sampling_rate == pytest.approx(level.expected_batch_size / SCHEMA.num_records, rel=1e-6)
        assert float(level.sampling_rate * 2**32).is_integer()


def test_a_constant_schedule_is_one_level_and_costs_what_it_always_did():
    plan = planned({})
    assert len(plan.levels) == 1 and plan.levels[0].num_steps == 300
    decaying = planned({"noise": "linear", "noise_final": 0.999})
    assert decaying.levels[0].noise_multiplier == pytest.approx(plan.levels[0].noise_multiplier, rel=2e-3)


def test_a_given_noise_multiplier_is_that_of_the_first_level():
    plan = planned({"noise": "linear"}, epsilon=None, noise_multiplier=6.0)
    assert plan.levels[0].noise_multiplier == 6.0 and plan.levels[-1].noise_multiplier < 3.3
    assert plan.epsilon == pytest.approx(
        epsilon_of([*plan.release_events, *plan.training_events], plan.delta), rel=1e-9
    )


def test_a_partition_is_charged_as_passes_without_amplification():
    plan = planned({}, sampling="partition")
    parts = round(SCHEMA.num_records / 512)
    assert plan.num_groups == parts and plan.levels[0].expected_batch_size == SCHEMA.num_records / parts
    assert [event["kind"] for event in plan.training_events] == ["gaussian"]
    assert plan.training_events[0]["count"] == math.ceil(300 / parts)
    # Booked as Poisson sampling, the same noise would seem to cost a fraction of what it does.
    poisson = {**plan.training_events[0], "kind": "poisson_gaussian", "sampling_rate": 1 / parts, "count": 300}
    assert epsilon_of([poisson], 1e-5) < 0.5 * epsilon_of(plan.training_events, 1e-5)


@pytest.mark.parametrize(
    ("privacy", "complaint"),
    [
        ({"schedule": {"noise": "zigzag"}}, r"^privacy\.schedule\.noise is 'zigzag': use 'constant' or"),
        ({"schedule": {"clip_final": 0.0}}, r"^privacy\.schedule\.clip_final is 0\.0: give a ratio"),
        ({"schedule": {"num_levels": 17}}, r"^privacy\.schedule\.num_levels is 17"),
        ({"adaptive": {"rule": "guess"}}, r"^privacy\.adaptive\.rule is 'guess'"),
        ({"adaptive": {"filter": "none"}}, r"^privacy\.adaptive\.filter is 'none'"),
        ({"adaptive": {"rule": "signal"}, "schedule": {"noise": "linear"}}, r"exclude each other"),
        ({"adaptive": {"rule": "signal"}, "epsilon": math.inf}, r"needs noise to choose"),
        ({"adaptive_clip": {"target_quantile": 1.0}}, r"^privacy\.adaptive_clip\.target_quantile is 1\.0"),
        ({"adaptive_clip": {"target_quantile": 0.5}, "schedule": {"clip": "linear"}}, r"exclude each other"),
        ({"num_bands": 4, "schedule": {"noise": "linear"}}, r"^privacy\.num_bands above 1 needs constant"),
        ({"sampling": "shuffle"}, r"^privacy\.sampling is 'shuffle': use 'poisson' or 'partition'"),
        ({"sampling": "partition", "schedule": {"batch": "linear"}}, r"needs a constant schedule"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_by_name(privacy, complaint):
    with pytest.raises(UserError, match=complaint):
        settings_from_dict({"privacy": privacy})


def test_a_batch_that_grows_past_the_table_is_refused():
    sections = {
        "privacy": {"schedule": {"batch": "linear", "batch_final": 9.0}},
        "training": {"expected_batch_size": 15_000},
    }
    with pytest.raises(UserError, match=r"training\.expected_batch_size is 15000 and grows to"):
        make_plan(settings_from_dict(sections), SCHEMA)


def test_without_noise_the_schedule_keeps_its_clipping_norms():
    plan = planned({"clip": "linear"}, epsilon=math.inf)
    assert not plan.has_noise and plan.levels[-1].l2_clip_norm < 0.6
    assert dataclasses.asdict(plan)["epsilon"] == math.inf and plan.to_dict()["epsilon"] is None
