"""What a run buys before training: which releases, for which share of the budget, with how much noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from privsyn_jax.models import ONE_SHOT, PRIOR, SUMS_OF_TABLES, USES_MARGINALS, USES_ONE_WAY, USES_PRIOR
from privsyn_jax.one_shot import Buyer, image_buyer, text_buyer
from privsyn_jax.privacy import renyi
from privsyn_jax.privacy.accounting import Event
from privsyn_jax.settings import Settings
from privsyn_jax.transforms.discretize import unknown_columns
from privsyn_jax.transforms.texts import public_transform
from privsyn_jax.types import AnySchema, ImageSchema, Schema, TextSchema, UserError

CATEGORY_DELTA_SHARE = 0.1  # of delta, for values that only one record holds
_SCORE_SHARE = 0.1  # of the marginals' budget, to choose the pairs
_ONE_WAY_SHARE = 0.2  # of the marginals' budget, where no histogram was bought before
_FIRST_SHARE = 0.05  # of all, for columns alone, where the rest is for several together and no histogram was bought
_CHOICE_SHARE = 1 / 3  # of what the rest is, to choose which columns are measured together


@dataclasses.dataclass(frozen=True)
class Release:
    """One release before training: its share of the budget, and its noise.

    Attributes:
      name: as the ledger books it.
      share: of the budget, in the precision that a Gaussian release would have (zero-concentrated privacy adds it up).
      noise_multiplier: of the one Gaussian release with this share.
      kind: "gaussian", or "renyi": choices by exponential mechanisms, or rounds of these and Gaussian releases, which
        together have at most the Renyi divergence that the one Gaussian release has. (Composed as pure mechanisms, by
        their privacy-loss distributions, choices would need a quarter more noise of everything.)
      count: of choices.
      order: of the divergence.
    """

    name: str
    share: float
    noise_multiplier: float
    kind: str = "gaussian"
    count: int = 1
    order: float = 0.0

    @property
    def epsilon_each(self) -> float:
        """Of each choice. An exponential mechanism's divergence of order a is at most a epsilon^2 / 8.

        Source: Cesar and Rogers 2021, "Bounding, Concentrating, and Truncating: Unifying Privacy Loss Composition for
        Data Analytics", on mechanisms of bounded range.
        """
        return 2 / (self.noise_multiplier * math.sqrt(self.count)) if self.noise_multiplier else math.inf

    @property
    def event(self) -> Event:
        if self.kind == "renyi" and self.noise_multiplier:
            divergence = self.order / (2 * self.noise_multiplier**2)
            return {"kind": "renyi", "order": self.order, "epsilon": divergence, "count": 1}
        return {"kind": "gaussian", "noise_multiplier": self.noise_multiplier, "count": 1}


def wanted_releases(settings: Settings, schema: AnySchema) -> tuple[Release, ...]:
    """Every release that this run will make, in order, as if the whole budget were a noise multiplier of 1.

    Raises:
      UserError: a release without a share.
    """
    if isinstance(schema, ImageSchema):
        shares = _image_shares(settings, schema)
    elif isinstance(schema, TextSchema):
        shares = _text_shares(settings, schema)
    else:
        shares = _table_shares(settings, schema)
        total = math.fsum(shares.values())
        if settings.model["name"] not in ONE_SHOT and total >= 1:
            raise UserError(
                f"privacy.budget adds up to {total:g} for model.name={settings.model['name']!r}: leave a share for "
                "training by keeping it below 1"
            )
    choices = len(schema.modelled) - 1 if isinstance(schema, Schema) else 0
    counts = {"tree": choices, "network": choices, "rounds": 1}
    return tuple(
        Release(name, share, share**-0.5, "renyi" if name in counts else "gaussian", counts.get(name, 1))
        for name, share in shares.items()
    )


def scaled(releases: Sequence[Release], scale: float, order: float = 0.0) -> tuple[Release, ...]:
    """The releases where the whole budget is a noise multiplier of `scale`; 0 for no noise."""
    return tuple(
        dataclasses.replace(
            release, noise_multiplier=scale * release.noise_multiplier, order=order if release.kind == "renyi" else 0.0
        )
        for release in releases
    )


def release_events(releases: Sequence[Release], category_delta: float) -> list[Event]:
    events = [release.event for release in releases]
    if category_delta:
        events.append({"kind": "approximate", "epsilon": 0.0, "delta": category_delta, "count": 1})
    return events


def category_delta_of(releases: Sequence[Release], delta: float) -> float:
    """The part of delta that a release of unknown categories or words uses."""
    return CATEGORY_DELTA_SHARE * delta if {"categories", "vocabulary"} & {one.name for one in releases} else 0.0


def best_order(category_delta: float, epsilon: float, delta: float) -> tuple[float, float]:
    """(order, scale) for releases with shares that add up to 1, some of kind "renyi", of the least noise.

    At the order a every share s costs a s / (2 scale^2), of either kind.

    Raises:
      ValueError: epsilon is too small for any order.
    """
    before, found = release_events((), category_delta), []
    for order in renyi.ORDERS:
        budget = renyi.budget(before, order, epsilon, delta)
        if budget > 0:
            found.append((math.sqrt(order / (2 * budget)), float(order)))
    if not found:
        raise ValueError(f"no Renyi divergence is within epsilon {epsilon:g} at delta {delta:g}")
    scale, order = min(found)
    return order, scale


def _image_shares(settings: Settings, schema: ImageSchema) -> dict[str, float]:
    if settings.warm_start.buys:
        _need("warm_start", settings.privacy.budget.warm_start, "for bought images, or change warm_start.images")
    return _stage_shares(image_buyer(settings, schema))


def _text_shares(settings: Settings, schema: TextSchema) -> dict[str, float]:
    shares, budget = {}, settings.privacy.budget
    if settings.tokens.is_bought:
        _need("vocabulary", budget.vocabulary, "to buy words, or set tokens.vocabulary='english'")
        shares["vocabulary"] = budget.vocabulary
    return {**shares, **_stage_shares(text_buyer(settings, public_transform(schema, settings.tokens)))}


def _table_shares(settings: Settings, schema: Schema) -> dict[str, float]:
    budget, name, shares = settings.privacy.budget, settings.model["name"], {}
    unknown = unknown_columns(schema)
    if unknown:
        _need(
            "categories",
            budget.categories,
            f"to learn the categories of column {unknown[0]!r}, or list them in the schema",
        )
        shares["categories"] = budget.categories
    buys_bins = settings.transform.edges == "quantile"
    if buys_bins:
        _need("transform", budget.transform, "for quantile edges, or set transform.edges='public'")
        shares["histograms"] = budget.transform
    if name in ONE_SHOT:
        shares.setdefault("histograms", _FIRST_SHARE)
        return {**shares, **_several_columns(name, 1 - sum(shares.values()), schema)}
    if budget.marginals > 0 and name in USES_MARGINALS and len(schema.modelled) > 1:
        rest = budget.marginals
        if not buys_bins:
            shares["histograms"] = _ONE_WAY_SHARE * budget.marginals
            rest -= shares["histograms"]
        shares |= _several_columns(name, rest, schema)
    if budget.marginals > 0 and name in USES_ONE_WAY and not buys_bins:
        shares["histograms"] = budget.marginals
    if name in SUMS_OF_TABLES:
        _need("marginals", budget.marginals, f"for what model.name={name!r} starts from")
        shares[SUMS_OF_TABLES[name]] = budget.marginals
    if budget.prior > 0 and name in USES_PRIOR:
        shares[PRIOR] = budget.prior
    return shares


def _several_columns(name: str, share: float, schema: Schema) -> dict[str, float]:
    """How a share for tables of several columns is divided."""
    if len(schema.modelled) < 2:
        raise UserError(
            f"model.name={name!r} learns how columns depend on each other and the schema has one column: use another "
            "generator, or add a column"
        )
    if name == "aim":
        return {"rounds": share}
    if name == "mst":
        return {"tree": _CHOICE_SHARE * share, "pair marginals": (1 - _CHOICE_SHARE) * share}
    if name == "bayesian_network":
        return {"network": _CHOICE_SHARE * share, "marginals": (1 - _CHOICE_SHARE) * share}
    return {"pair scores": _SCORE_SHARE * share, "pair marginals": (1 - _SCORE_SHARE) * share}


def _stage_shares(buyer: Buyer | None) -> dict[str, float]:
    return {stage.name: buyer.share * stage.share for stage in buyer.generator.stages} if buyer is not None else {}


def _need(name: str, share: float, purpose: str) -> None:
    if share == 0:
        raise UserError(f"privacy.budget.{name} is 0: give a share {purpose}")
