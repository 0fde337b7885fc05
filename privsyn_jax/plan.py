"""From settings and public facts to every noise level, before a record is read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.sampling import exact_sampling_rate
from privsyn_jax.settings import Settings
from privsyn_jax.transforms.discretize import unknown_columns
from privsyn_jax.types import Schema, UserError

CATEGORY_DELTA_SHARE = 0.1  # of delta, for values that only one record holds
_SCORE_SHARE = 0.1  # of the marginals' budget, to choose the pairs
_ONE_WAY_SHARE = 0.2  # of the marginals' budget, where no histogram was bought before


@dataclasses.dataclass(frozen=True)
class Release:
    """One Gaussian release before training: its share of the budget and its noise multiplier."""

    name: str
    share: float
    noise_multiplier: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will spend, on what.

    Attributes:
      epsilon: of the whole run (target, or computed from noise_multiplier); inf without noise.
      delta: of the whole run.
      category_delta: the part of delta that releases of unknown categories use.
      releases: Gaussian releases before training, in order.
      sampling_rate, noise_multiplier, num_steps, l2_clip_norm, expected_batch_size: of DP-SGD.
      warnings: sentences for the report.
    """

    epsilon: float
    delta: float
    category_delta: float
    releases: tuple[Release, ...]
    sampling_rate: float
    noise_multiplier: float
    num_steps: int
    l2_clip_norm: float
    expected_batch_size: float
    warnings: tuple[str, ...]

    def release(self, name: str) -> Release | None:
        return next((release for release in self.releases if release.name == name), None)

    @property
    def training_share(self) -> float:
        return 1.0 - sum(release.share for release in self.releases)

    @property
    def training_event(self) -> accounting.Event:
        return _training_event(self.sampling_rate, self.noise_multiplier, self.num_steps)

    @property
    def release_events(self) -> list[accounting.Event]:
        return _release_events(self.releases, self.category_delta)

    def to_dict(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        plain["training_share"] = self.training_share
        for name in ("epsilon", "l2_clip_norm"):
            plain[name] = plain[name] if math.isfinite(plain[name]) else None
        return plain


def make_plan(settings: Settings, schema: Schema) -> Plan:
    """Budget shares to noise: the whole run's PLD epsilon is at most the target and close to it.

    Raises:
      UserError: settings that cannot be met, naming the setting.
    """
    privacy, training = settings.privacy, settings.training
    batch_size = training.expected_batch_size or max(1, min(2048, schema.num_records // 8))
    if batch_size > schema.num_records:
        raise UserError(
            f"training.expected_batch_size is {training.expected_batch_size}, more than num_records = "
            f"{schema.num_records} in the schema: give a smaller batch"
        )
    delta = privacy.delta or 1.0 / schema.num_records**1.1
    sampling_rate = exact_sampling_rate(batch_size, schema.num_records)
    shares = _shares(settings, schema)
    category_delta = CATEGORY_DELTA_SHARE * delta if "categories" in shares else 0.0
    common = {
        "delta": delta,
        "category_delta": category_delta,
        "sampling_rate": sampling_rate,
        "num_steps": training.num_steps,
        "l2_clip_norm": privacy.l2_clip_norm if privacy.enabled else math.inf,
        "expected_batch_size": float(batch_size),
        "warnings": _warnings(settings, schema, delta),
    }
    if not privacy.is_private:
        releases = tuple(Release(name, share, 0.0) for name, share in shares.items())
        return Plan(epsilon=math.inf, releases=releases, noise_multiplier=0.0, **common)

    def step_event(noise):
        return _training_event(sampling_rate, noise, training.num_steps)

    if privacy.epsilon is not None:
        epsilon = privacy.epsilon
        releases = _releases(shares, epsilon, delta)
        spent = _release_events(releases, category_delta)
        whole = accounting.gaussian_noise_multiplier(epsilon, delta)
        share = 1.0 - sum(shares.values())
        guess = accounting.subsampled_guess(sampling_rate, training.num_steps, whole / math.sqrt(share))
        try:
            noise = accounting.smallest_noise(
                lambda noise, grid: accounting.epsilon_of([*spent, step_event(noise)], delta, discretization=grid),
                epsilon,
                guess,
            )
        except ValueError as error:
            raise UserError(
                f"privacy.epsilon is {epsilon:g} and cannot be met ({error}): raise it or change privacy.budget"
            ) from None
    else:
        noise = float(privacy.noise_multiplier or 0.0)
        epsilon = _epsilon_for_noise(shares, category_delta, step_event(noise), delta)
        releases = _releases(shares, epsilon, delta)
        spent = _release_events(releases, category_delta)
        epsilon = accounting.epsilon_of([*spent, step_event(noise)], delta)
    return Plan(epsilon=epsilon, releases=releases, noise_multiplier=noise, **common)


def _shares(settings: Settings, schema: Schema) -> dict[str, float]:
    """Share of the budget of every Gaussian release that this run will make, in order."""
    budget = settings.privacy.budget
    shares = {}
    unknown = unknown_columns(schema)
    if unknown:
        _need(
            "categories",
            budget.categories,
            f"to learn the categories of column {unknown[0]!r}, or list them in the schema",
        )
        shares["categories"] = budget.categories
    if settings.transform.edges == "quantile":
        _need("transform", budget.transform, "for quantile edges, or set transform.edges='public'")
        shares["histograms"] = budget.transform
    if budget.marginals > 0 and len(schema.modelled) > 1:
        rest = budget.marginals
        if settings.transform.edges == "public":
            shares["histograms"] = _ONE_WAY_SHARE * budget.marginals
            rest -= shares["histograms"]
        shares["pair scores"] = _SCORE_SHARE * rest
        shares["pair marginals"] = (1 - _SCORE_SHARE) * rest
    return shares


def _need(name: str, share: float, purpose: str) -> None:
    if share == 0:
        raise UserError(f"privacy.budget.{name} is 0: give a share {purpose}")


def _releases(shares: dict[str, float], epsilon: float, delta: float) -> tuple[Release, ...]:
    whole = accounting.gaussian_noise_multiplier(epsilon, delta)
    return tuple(Release(name, share, whole / math.sqrt(share)) for name, share in shares.items())


def _training_event(sampling_rate: float, noise_multiplier: float, num_steps: int) -> accounting.Event:
    return {
        "kind": "poisson_gaussian",
        "sampling_rate": sampling_rate,
        "noise_multiplier": noise_multiplier,
        "count": num_steps,
    }


def _release_events(releases: tuple[Release, ...], category_delta: float) -> list[accounting.Event]:
    events = [{"kind": "gaussian", "noise_multiplier": release.noise_multiplier, "count": 1} for release in releases]
    if category_delta:
        events.append({"kind": "approximate", "epsilon": 0.0, "delta": category_delta, "count": 1})
    return events


def _epsilon_for_noise(shares: dict[str, float], category_delta: float, step: accounting.Event, delta: float) -> float:
    """Epsilon at which releases with these shares of it and the given training add up to it."""
    unusable = UserError(
        f"privacy.noise_multiplier is {step['noise_multiplier']:g}, which gives an epsilon outside 0.01 to 50: "
        "change it"
    )
    if accounting.epsilon_rdp([step], delta) > 100:  # cheap, where the distributions would not fit in memory
        raise unusable

    def excess(log_epsilon):
        epsilon = math.exp(log_epsilon)
        spent = _release_events(_releases(shares, epsilon, delta), category_delta)
        return accounting.epsilon_of([*spent, step], delta, discretization=accounting.COARSE) - epsilon

    try:
        return math.exp(accounting.find_root(excess, math.log(1e-2), math.log(50.0), tolerance=1e-3))
    except ValueError:
        raise unusable from None


def _warnings(settings: Settings, schema: Schema, delta: float) -> tuple[str, ...]:
    found = []
    if not settings.privacy.enabled:
        found.append("NOT PRIVATE: privacy.enabled is False, so gradients were neither clipped nor noised.")
    elif not settings.privacy.is_private:
        found.append("NOT PRIVATE: epsilon is infinite, so no noise was added.")
    if settings.privacy.noise_seed is not None:
        found.append(
            "SEEDED NOISE: privacy.seed is set, so whoever knows the seed can take the noise away; "
            "do not publish what comes out."
        )
    if delta >= 1.0 / schema.num_records:
        found.append(
            f"DELTA TOO LARGE: delta = {delta:.3g} is not below 1 / num_records = {1 / schema.num_records:.3g}, which "
            "would allow some record to be published in full; use 1 / num_records^1.1 or less."
        )
    return tuple(found)
