"""The content of privacy_report.json: the guarantee, why it holds, and what it rests on."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from typing import Any

from privsyn_jax.explain import unit_lines
from privsyn_jax.modalities import modality_of
from privsyn_jax.plan import Plan
from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.second_opinion import confirm
from privsyn_jax.settings import Settings
from privsyn_jax.types import AnySchema, Schema

_PACKAGES = ("privsyn_jax", "jax", "jaxlib", "flax", "optax", "dp-accounting", "numpy", "pandas", "scikit-learn")

_NOT_COVERED = (
    "Settings chosen by looking at results on the same records: trying several runs and keeping the best is a release "
    "of its own, which this report does not count.",
    "The clock: how long a run takes depends on the number of records and on the batches drawn.",
    "Floating-point arithmetic: sums of gradients or of votes are rounded in float32, noisy counts are float64 numbers "
    "that are not rounded to a grid, and the noise of training comes from a counter-based generator (Threefry, 64-bit "
    "key from the operating system) that is not certified for cryptography.",
)


def privacy_statement(
    ledger: Ledger,
    plan: Plan,
    settings: Settings,
    schema: AnySchema,
    path: Sequence[Mapping[str, Any]],
    *,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The report as strict JSON; epsilon is null where there is no bound.

    Args:
      path: blocks of training steps, see `privacy.spending`.
      warnings: of this run, besides those of the plan.

    Raises:
      RuntimeError: dp-accounting or the Renyi accountant does not agree with epsilon.
    """
    confirm(ledger.events, plan.delta)
    epsilon, rdp = ledger.epsilon(plan.delta), ledger.epsilon_rdp(plan.delta)
    return {
        "private": math.isfinite(epsilon),
        "epsilon": _finite(epsilon),
        "delta": plan.delta,
        "accountant": ledger.accountant,
        "epsilon_rdp": _finite(rdp),
        "neighboring_relation": accounting.NEIGHBORING_RELATION,
        "privacy_unit": schema.privacy_unit,
        **_unit(schema),
        "ledger": [
            {
                **entry,
                "epsilon_alone": _finite(accounting.epsilon_of([entry["event"]], plan.delta)),
                "share": share,
            }
            for entry, share in zip(ledger.to_list(), _shares(ledger, plan), strict=True)
        ],
        "path": [_block(block, plan) for block in path],
        "declared_public": declared_public(schema),
        "not_covered": [*_NOT_COVERED, *_rows_only(schema)],
        "warnings": [*plan.warnings, *warnings, *_above_target(epsilon, plan)],
        "seeded_noise": settings.privacy.noise_seed is not None,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def declared_public(schema: AnySchema) -> list[str]:
    """The facts that the guarantee takes as known to everyone, in sentences."""
    facts = [
        *unit_lines(schema),
        *modality_of(schema).public_facts(schema),
        f"number of training records about {schema.num_records} (a figure; the guarantee does not need it exact)",
    ]
    if isinstance(schema, Schema) and schema.num_units is not None:
        facts.append(f"number of training units (each a {schema.privacy_unit}) about {schema.num_units} (likewise)")
    if schema.declared_public:
        facts.append(f"TAKEN FROM THE ROWS and declared public by the user: {', '.join(schema.declared_public)}")
    columns = schema.columns if isinstance(schema, Schema) else ()
    facts += [
        f"TAKEN FROM THE ROWS and declared public by the user, {column.name!r}: {', '.join(column.declared_public)}"
        for column in columns
        if column.declared_public
    ]
    return facts


def _unit(schema: AnySchema) -> dict[str, Any]:
    """How a unit that may own several rows is told, and how many are read."""
    if not (isinstance(schema, Schema) and schema.unit_column):
        return {}
    return {"unit_column": schema.unit_column, "max_records_per_unit": schema.max_records_per_unit}


def _rows_only(schema: AnySchema) -> list[str]:
    if not (isinstance(schema, Schema) and schema.rows_per_unit > 1):
        return []
    unit = schema.privacy_unit
    return [
        f"What attacks measure: epsilon is for one {unit} with all rows that are read, while the attacks and distances "
        f"of the evaluation work on rows, one at a time, and their intervals take rows as independent of each other."
    ]


def _above_target(epsilon: float, plan: Plan) -> list[str]:
    """A run that repeated steps with other noise has spent more than was planned."""
    if not (math.isfinite(plan.epsilon) and epsilon > plan.epsilon * (1 + 1e-6)):
        return []
    return [
        f"EPSILON ABOVE THE PLAN: {epsilon:.4g} was spent where {plan.epsilon:.4g} was planned, because the run was "
        "interrupted and part of it was drawn again."
    ]


def _block(block: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """A block of the path as strict JSON; under a filter, with what its odometer shows at the end of the block."""
    plain = {**block, "l2_clip_norm": _finite(block["l2_clip_norm"])}
    privacy_filter = plan.privacy_filter
    if privacy_filter is not None:
        spent = block["spent"] * privacy_filter.budget
        plain["epsilon_so_far"] = _finite(privacy_filter.epsilon(spent, plan.release_events, plan.delta))
    return plain


def _shares(ledger: Ledger, plan: Plan) -> list[float]:
    """Share of the budget of every entry; that of training is split by what its entries weigh in the central limit."""
    known = {release.name: release.share for release in plan.releases}
    weights = [_weight(entry.event) if entry.name == "training" else 0.0 for entry in ledger.entries]
    total = math.fsum(weights) or 1.0
    return [
        known.get(entry.name, plan.training_share * weight / total)
        for entry, weight in zip(ledger.entries, weights, strict=True)
    ]


def _weight(event: accounting.Event) -> float:
    """Zero for an event that only takes a part of delta."""
    if event["kind"] == "approximate":
        return 0.0
    if not event.get("noise_multiplier"):
        return 1.0
    rate = event.get("sampling_rate", 1.0)
    return event["count"] * rate**2 * math.expm1(min(700.0, event["noise_multiplier"] ** -2))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
