"""From settings and public facts to every noise level, before a record is read."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from privsyn_jax.models import ONE_SHOT, is_own
from privsyn_jax.privacy import accounting, filters, renyi, schedules, search
from privsyn_jax.privacy.calibration import calibrate_scale
from privsyn_jax.privacy.filters import Filter
from privsyn_jax.privacy.sampling import Sampler, exact_sampling_rate
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.privacy_settings import AdaptiveSettings
from privsyn_jax.releases import Release, best_order, category_delta_of, release_events, scaled, wanted_releases
from privsyn_jax.settings import Settings
from privsyn_jax.types import AnySchema, Schema, TextSchema, UserError, num_units_of
from privsyn_jax.views.plan_table import plan_html
from privsyn_jax.votes import Votes, vote_levels, votes_of

_LEAK_SHARE = 0.05  # of delta, for the reference filter


class AdaptivePlan(NamedTuple):
    """Noise chosen while training: inside which filter, by which rule.

    Attributes:
      rule, filter, num_blocks, largest_ratio, loss_share: see AdaptiveSettings.
      leak: the part of delta that the reference filter uses.
      order, budget: of the Renyi filter (else 0).
    """

    rule: str
    filter: str
    num_blocks: int
    largest_ratio: float
    loss_share: float
    leak: float
    order: float
    budget: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will spend, on what.

    Attributes:
      epsilon: of the whole run (target, or computed from noise_multiplier); inf without noise.
      delta: of the whole run.
      category_delta: the part of delta that releases of unknown categories, or of a vocabulary, use.
      releases: Gaussian releases before training, in order.
      levels: of DP-SGD, in order; with adaptive noise the one level that it is measured by; none for a generator that
        learns from one release.
      num_groups: of the sampler.
      adaptive: how the noise is chosen, or None if it is fixed.
      warnings: sentences for the report.
      rows_per_unit: rows that a unit may own, all of them drawn, clipped and protected as one.
      votes: what a step releases where teachers vote; None for DP-SGD.
    """

    epsilon: float
    delta: float
    category_delta: float
    releases: tuple[Release, ...]
    levels: tuple[Level, ...]
    num_groups: int
    adaptive: AdaptivePlan | None
    warnings: tuple[str, ...]
    rows_per_unit: int = 1
    votes: Votes | None = None

    def release(self, name: str) -> Release | None:
        return next((release for release in self.releases if release.name == name), None)

    @property
    def training_share(self) -> float:
        return 1.0 - sum(release.share for release in self.releases)

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.num_groups)

    @property
    def num_steps(self) -> int:
        return sum(level.num_steps for level in self.levels)

    @property
    def has_noise(self) -> bool:
        return all(part.noise_multiplier > 0 for part in (*self.releases, *self.levels))

    @property
    def expected_batch_size(self) -> float:
        """Of the largest batches."""
        return max((level.expected_batch_size for level in self.levels), default=0.0)

    @property
    def privacy_filter(self) -> Filter | None:
        if self.adaptive is None:
            return None
        return _filter(self.levels[0], self.adaptive)

    @property
    def training_events(self) -> list[accounting.Event]:
        """What training is charged with in all, in the order of the steps."""
        privacy_filter = self.privacy_filter
        if privacy_filter is not None:
            return privacy_filter.events()
        return level_events(self.levels, self.sampler)

    @property
    def release_events(self) -> list[accounting.Event]:
        return release_events(self.releases, self.category_delta)

    def _repr_html_(self) -> str:
        return plan_html(self.to_dict(), has_noise=self.has_noise)

    def to_dict(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        plain |= {"training_share": self.training_share, "num_steps": self.num_steps}
        plain["levels"] = [
            {name: value if math.isfinite(value) else None for name, value in level._asdict().items()}
            for level in self.levels
        ]
        plain["adaptive"] = self.adaptive._asdict() if self.adaptive is not None else None
        plain["votes"] = self.votes._asdict() if self.votes is not None else None
        plain["epsilon"] = self.epsilon if math.isfinite(self.epsilon) else None
        return plain


def make_plan(settings: Settings, schema: AnySchema) -> Plan:
    """Budget shares and schedules to noise: the whole run's epsilon is at most the target and close to it.

    Raises:
      UserError: settings that cannot be met, naming the setting.
    """
    privacy = settings.privacy
    if privacy.adaptive.rule == "loss" and settings.training.num_steps <= privacy.adaptive.num_blocks:
        raise UserError(
            f"training.num_steps is {settings.training.num_steps}, no more than privacy.adaptive.num_blocks = "
            f"{privacy.adaptive.num_blocks}: the rule 'loss' needs blocks of several steps, so lower num_blocks"
        )
    delta = privacy.delta or 1.0 / num_units_of(schema) ** 1.1
    if settings.model["name"] in ONE_SHOT:
        return _plan_for_stages(settings, schema, delta)
    votes = votes_of(settings, num_units_of(schema))
    levels, num_groups = _relative_levels(settings, schema)
    if votes is not None:
        levels = vote_levels(levels, votes)
    wanted = wanted_releases(settings, schema)
    category_delta = category_delta_of(wanted, delta)
    common = {
        "delta": delta,
        "category_delta": category_delta,
        "num_groups": num_groups,
        "warnings": _warnings(settings, schema, delta),
        "rows_per_unit": _rows_per_unit(schema),
        "votes": votes,
    }
    if not privacy.is_private:
        releases = scaled(wanted, 0.0)
        return Plan(epsilon=math.inf, releases=releases, levels=_scaled(levels, 0.0), adaptive=None, **common)
    if privacy.epsilon is None:
        return _plan_for_noise(settings, wanted, levels, common)
    epsilon = privacy.epsilon
    releases = scaled(wanted, search.gaussian_noise_multiplier(epsilon, delta))
    spent = release_events(releases, category_delta)
    try:
        adaptive = None
        if privacy.adaptive.rule and privacy.adaptive.filter == "renyi":
            scale, order, budget = filters.best_renyi_budget(levels[0], spent, epsilon, delta)
            adaptive = _adaptive(privacy.adaptive, order=order, budget=budget)
        else:
            if privacy.adaptive.rule:
                adaptive = _adaptive(privacy.adaptive, leak=_LEAK_SHARE * delta)
                spent = [*spent, filters.leak_event(adaptive.leak)]
            steps = [
                (level.sampling_rate, level.noise_multiplier, event["count"])
                for level, event in zip(levels, level_events(levels, Sampler(num_groups)), strict=True)
            ]
            scale = calibrate_scale(spent, steps, epsilon, delta)
    except ValueError as error:
        raise UserError(
            f"privacy.epsilon is {epsilon:g} and cannot be met ({error}): raise it or change privacy.budget"
        ) from None
    return Plan(epsilon=epsilon, releases=releases, levels=_scaled(levels, scale), adaptive=adaptive, **common)


def _plan_for_stages(settings: Settings, schema: AnySchema, delta: float) -> Plan:
    """All of the budget for what a one-shot generator learns from: noisy sums and, of texts, a bought vocabulary."""
    privacy = settings.privacy
    if privacy.adaptive.rule:
        raise UserError(
            f"privacy.adaptive.rule is {privacy.adaptive.rule!r}, but model.name={settings.model['name']!r} takes no "
            "steps: set the rule to ''"
        )
    wanted, epsilon = wanted_releases(settings, schema), math.inf
    category_delta = category_delta_of(wanted, delta)
    releases = scaled(wanted, 0.0)
    if privacy.is_private and privacy.epsilon is not None:
        epsilon = privacy.epsilon
        try:
            releases = _within(wanted, category_delta, epsilon, delta)
        except ValueError as error:
            raise UserError(f"privacy.epsilon is {epsilon:g} and cannot be met ({error}): raise it") from None
    elif privacy.is_private:
        noise = float(privacy.noise_multiplier or 0.0)
        releases = scaled(wanted, noise, _order_for_noise(noise, delta - category_delta))
        epsilon = accounting.epsilon_of(release_events(releases, category_delta), delta)
    return Plan(
        epsilon=epsilon,
        delta=delta,
        category_delta=category_delta,
        releases=releases,
        levels=(),
        num_groups=1,
        adaptive=None,
        warnings=_warnings(settings, schema, delta),
        rows_per_unit=_rows_per_unit(schema),
    )


def _within(wanted: Sequence[Release], category_delta: float, epsilon: float, delta: float) -> tuple[Release, ...]:
    """The releases, with as little noise as keeps all of them together within (epsilon, delta)."""
    if any(release.kind == "renyi" for release in wanted):
        order, scale = best_order(category_delta, epsilon, delta)
        return scaled(wanted, scale, order)
    steps = [(1.0, release.noise_multiplier, 1) for release in wanted]
    return scaled(wanted, calibrate_scale(release_events((), category_delta), steps, epsilon, delta))


def _order_for_noise(noise: float, delta: float) -> float:
    """The order at which a Gaussian release converts to the least epsilon, for rounds that stand for one."""

    def epsilon_of(order):
        return renyi.epsilon([{"kind": "renyi", "order": order, "epsilon": order / (2 * noise**2), "count": 1}], delta)

    return min(renyi.ORDERS, key=epsilon_of)


def level_events(levels: Sequence[Level], sampler: Sampler) -> list[accounting.Event]:
    """What the levels cost, in order."""
    events, done = [], 0
    for level in levels:
        event = sampler.event(
            sampling_rate=level.sampling_rate,
            noise_multiplier=level.noise_multiplier,
            first_step=done,
            num_steps=level.num_steps,
        )
        done += level.num_steps
        if event is not None:
            events.append(event)
    return events


def _relative_levels(settings: Settings, schema: AnySchema) -> tuple[tuple[Level, ...], int]:
    """Levels whose noise multipliers are relative, and the sampler's number of groups."""
    privacy, training, num_units = settings.privacy, settings.training, num_units_of(schema)
    schedule = privacy.schedule
    batch_size = training.expected_batch_size or max(1, min(2048, num_units // 8))
    l2_clip_norm = privacy.l2_clip_norm if privacy.enabled else math.inf
    num_groups = privacy.num_bands
    if privacy.sampling == "partition":
        num_groups = max(1, round(num_units / batch_size))
    bounds = schedules.boundaries(training.num_steps, training.steps_per_dispatch, schedule.num_levels)
    if schedule.is_constant:
        bounds = [0, training.num_steps]
    lengths = [stop - start for start, stop in itertools.pairwise(bounds)]
    noises = schedules.follow(schedule.noise, schedule.noise_final, bounds)
    clips = schedules.follow(schedule.clip, schedule.clip_final, bounds)
    sizes = schedules.follow(schedule.batch, schedule.batch_final, bounds)
    mean_size = math.fsum(size * length for size, length in zip(sizes, lengths, strict=True)) / training.num_steps
    levels = []
    for length, noise, clip, size in zip(lengths, noises, clips, sizes, strict=True):
        expected = batch_size * size / mean_size
        if expected * num_groups > num_units and privacy.sampling == "poisson":
            grown = "" if schedule.is_constant else f" and grows to {expected:.6g}"
            groups = f" for each of {num_groups} groups" if num_groups > 1 else ""
            raise UserError(
                f"training.expected_batch_size is {batch_size}{grown}{groups}, more than {_figure(schema)} = "
                f"{num_units} in the schema: give a smaller batch"
            )
        rate = exact_sampling_rate(expected * num_groups, num_units)
        if privacy.sampling == "partition":
            expected, rate = num_units / num_groups, 1.0
        levels.append(Level(length, rate, expected, noise, l2_clip_norm * clip))
    return tuple(levels), num_groups


def _scaled(levels: Sequence[Level], scale: float) -> tuple[Level, ...]:
    return tuple(level._replace(noise_multiplier=scale * level.noise_multiplier) for level in levels)


def _adaptive(settings: AdaptiveSettings, *, leak: float = 0.0, order: float = 0.0, budget: float = 0.0):
    share = settings.loss_share if settings.rule == "loss" else 0.0
    return AdaptivePlan(
        settings.rule, settings.filter, settings.num_blocks, settings.largest_ratio, share, leak, order, budget
    )


def _filter(level: Level, adaptive: AdaptivePlan) -> Filter:
    if adaptive.filter == "renyi":
        return filters.RenyiFilter(sampling_rate=level.sampling_rate, order=adaptive.order, budget=adaptive.budget)
    return filters.ReferenceFilter(
        sampling_rate=level.sampling_rate,
        noise_multiplier=level.noise_multiplier,
        num_steps=level.num_steps,
        max_blocks=adaptive.num_blocks,
        leak=adaptive.leak,
    )


def _plan_for_noise(
    settings: Settings, wanted: Sequence[Release], levels: Sequence[Level], common: dict[str, Any]
) -> Plan:
    """privacy.noise_multiplier is given: of the first step, where a schedule changes it."""
    noise, delta = float(settings.privacy.noise_multiplier or 0.0), common["delta"]
    levels, adaptive = _scaled(levels, noise / levels[0].noise_multiplier), None
    steps = level_events(levels, Sampler(common["num_groups"]))
    if settings.privacy.adaptive.rule:
        if settings.privacy.adaptive.filter == "renyi":
            raise UserError(
                "privacy.adaptive.filter='renyi' needs privacy.epsilon, not privacy.noise_multiplier: give epsilon, or "
                "use the filter 'reference'"
            )
        adaptive = _adaptive(settings.privacy.adaptive, leak=_LEAK_SHARE * delta)
        steps.append(filters.leak_event(adaptive.leak))
    epsilon = _epsilon_for_noise(wanted, common["category_delta"], steps, delta, noise)
    releases = scaled(wanted, search.gaussian_noise_multiplier(epsilon, delta))
    spent = release_events(releases, common["category_delta"])
    epsilon = accounting.epsilon_of([*spent, *steps], delta)
    return Plan(epsilon=epsilon, releases=releases, levels=levels, adaptive=adaptive, **common)


def _epsilon_for_noise(
    wanted: Sequence[Release], category_delta: float, steps: list[accounting.Event], delta: float, noise: float
) -> float:
    """Epsilon at which releases with these shares of it and the given training add up to it."""
    unusable = UserError(f"privacy.noise_multiplier is {noise:g}, which gives an epsilon outside 0.01 to 50: change it")
    if accounting.epsilon_rdp(steps, delta) > 100:  # cheap, where the distributions would not fit in memory
        raise unusable

    def excess(log_epsilon):
        epsilon = math.exp(log_epsilon)
        releases = scaled(wanted, search.gaussian_noise_multiplier(epsilon, delta))
        spent = release_events(releases, category_delta)
        return accounting.epsilon_of([*spent, *steps], delta, discretization=accounting.COARSE) - epsilon

    try:
        return math.exp(search.find_root(excess, math.log(1e-2), math.log(50.0), tolerance=1e-3))
    except ValueError:
        raise unusable from None


def _warnings(settings: Settings, schema: AnySchema, delta: float) -> tuple[str, ...]:
    found = []
    if not settings.privacy.enabled:
        found.append("NOT PRIVATE: privacy.enabled is False, so nothing was clipped and no noise was added.")
    elif not settings.privacy.is_private:
        found.append("NOT PRIVATE: epsilon is infinite, so no noise was added.")
    if settings.privacy.noise_seed is not None:
        found.append(
            "SEEDED NOISE: privacy.seed is set, so whoever knows the seed can take the noise away; "
            "do not publish what comes out."
        )
    if isinstance(schema, TextSchema) and settings.tokens.is_a_file:
        found.append(
            f"TOKENIZER TAKEN AS PUBLIC: tokens come from {Path(settings.tokens.vocabulary).name}; if that was made "
            "from the private texts, the guarantee does not cover it."
        )
    if is_own(settings.model["name"]):
        found.append(
            f"GENERATOR TAKEN ON TRUST: model.name is {settings.model['name']!r}; the guarantee covers the records "
            "that reach its private_loss, not what its code reads by itself."
        )
    num_units, figure = num_units_of(schema), _figure(schema)
    if delta >= 1.0 / num_units:
        found.append(
            f"DELTA TOO LARGE: delta = {delta:.3g} is not below 1 / {figure} = {1 / num_units:.3g}, which "
            f"would allow some record to be published in full; use 1 / {figure}^1.1 or less."
        )
    return tuple(found)


def _rows_per_unit(schema: AnySchema) -> int:
    return schema.rows_per_unit if isinstance(schema, Schema) else 1


def _figure(schema: AnySchema) -> str:
    """What the schema calls its figure for the number of units."""
    return "num_units" if isinstance(schema, Schema) and schema.unit_column is not None else "num_records"
