"""Audit of what a generator of tables buys before training, or in its place: bought again and again, on public rows.

Half of the times one canary is among the rows: a unit with all the rows that it may have. The score is the likelihood
of all that was released, if the canary was among them to if it was not (`privacy.replay`), whatever bins, pairs or
parents were chosen on the way; no attack on the released values is better. No private record is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

from privsyn_jax.evaluation.audit import AuditResult, audit_result, repeated_bound
from privsyn_jax.modalities.tables import buy, fit_transform
from privsyn_jax.models import SUMS_OF_TABLES
from privsyn_jax.plan import Plan
from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.accounting import Event
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.replay import log_likelihood_ratio
from privsyn_jax.settings import Settings
from privsyn_jax.transforms.discretize import fit_public, unknown_columns
from privsyn_jax.types import AnySchema, Schema

NUM_BACKGROUND = 64  # random rows beside the canary


def why_not(schema: AnySchema, plan: Plan) -> str:
    """Why the purchases of these settings cannot be audited, in words; empty where they can."""
    if not isinstance(schema, Schema):
        return "audits of purchases are of tables"
    if unknown_columns(schema):
        return f"the categories of column {unknown_columns(schema)[0]!r} are bought, so there are no public rows"
    if plan.release("rounds") is not None:
        return "rounds that choose by what earlier ones released take minutes, and thousands of repetitions too long"
    return "" if plan.release("histograms") is not None else "no counts are bought"


def audit_purchases(
    settings: Settings,
    schema: Schema,
    plan: Plan,
    *,
    key: jax.Array,
    num_repeats: int,
    confidence: float = 0.95,
    make_noise: Callable[[int], HostNoise] = HostNoise,
) -> list[AuditResult]:
    """Lower bounds on epsilon of what is bought, against what the ledger charges for it; where `why_not` is silent.

    First of the counts that are bought, given what was chosen by exponential mechanisms: whatever that is, they are
    Gaussian releases, whose trade-offs make the bound tight. Where there are choices, then of both together.

    Of generators that buy sums of their own (`SUMS_OF_TABLES`), the histogram of all columns is audited.

    Args:
      plan: with noise.
      num_repeats: half of them with the canary.
      confidence: of each bound.
      make_noise: from a seed; another one sees whether the audit finds what is wrong with it.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    seeds, ledgers = rng.integers(2**62, size=num_repeats).tolist(), []
    without, with_canary = public_tables(settings, schema)
    is_histogram_alone = settings.model["name"] in SUMS_OF_TABLES

    def purchase(frame: pd.DataFrame, noise: HostNoise) -> None:
        ledgers.append(Ledger())
        mechanism = fit_transform if is_histogram_alone else buy
        mechanism(Private(frame), schema, plan, settings, ledgers[-1], noise)

    nats = []
    for number, seed in enumerate(tqdm(seeds, desc="buying", disable=None)):
        tables = (with_canary, without) if number % 2 else (without, with_canary)
        nats.append(log_likelihood_ratio(purchase, *tables, noise=make_noise(seed)))
    signs, events = np.where(np.arange(num_repeats) % 2, 1.0, -1.0), ledgers[0].events
    counts = [event for event in events if event["kind"] == "gaussian"]

    def judge(name: str, scores: np.ndarray, charged: Sequence[Event], method: str) -> AuditResult:
        threshold = 0.0 if method == "gaussian" else None
        common: dict[str, Any] = {"delta": plan.delta, "confidence": confidence}
        bound = repeated_bound(scores[1::2], scores[::2], method=method, threshold=threshold, **common)
        claimed = accounting.epsilon_of(charged, plan.delta)
        return audit_result(name, claimed_epsilon=claimed, lower_bound=bound, num_canaries=num_repeats, **common)

    of_counts = signs * np.array([found.sums for found in nats])
    if not has_choices(plan):
        name = "the histogram that is bought" if is_histogram_alone else "what is bought"
        return [judge(name, of_counts, events, "gaussian")]
    of_choices = signs * np.array([found.choices for found in nats])
    return [
        judge("the counts that are bought", of_counts, counts, "gaussian"),
        judge("what is bought, choices too", of_counts + of_choices, events, "approximate"),
    ]


def has_choices(plan: Plan) -> bool:
    """Whether exponential mechanisms choose what is bought."""
    return any(release.kind != "gaussian" for release in plan.releases)


def public_tables(settings: Settings, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random rows, each of a unit of its own, without and with a canary: as many equal rows as a unit may have."""
    public, rng = fit_public(schema, num_bins=settings.transform.num_bins), np.random.default_rng(settings.seed)
    codes = rng.integers(public.cardinalities, size=(NUM_BACKGROUND + 1, len(public.cardinalities)))
    places = np.append(np.arange(NUM_BACKGROUND), [NUM_BACKGROUND] * schema.rows_per_unit)
    table = public.decode(codes.astype(np.int32), rng).iloc[places].reset_index(drop=True)
    return table.iloc[:NUM_BACKGROUND], table
