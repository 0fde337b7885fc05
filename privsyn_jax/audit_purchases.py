"""Audit of what a generator of tables buys before training, or in its place: bought again and again, on public rows.

Half of the times one canary is among the rows: a unit with all the rows that it may have. The score is the likelihood
of all that was released, if the canary was among them to if it was not (`privacy.replay`), whatever bins, pairs or
parents were chosen on the way; no attack on the released values is better. No private record is read.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

from privsyn_jax.audit_training import one_run_method
from privsyn_jax.evaluation.audit import AuditResult, audit_result, repeated_bound
from privsyn_jax.modalities.tables import buy, fit_transform
from privsyn_jax.models import SUMS_OF_TABLES
from privsyn_jax.plan import Plan
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
) -> AuditResult:
    """Lower bound on epsilon of what is bought, against what the ledger charges for it; where `why_not` is silent.

    Of generators that buy sums of their own (`SUMS_OF_TABLES`), the histogram of all columns is audited.

    Args:
      plan: with noise.
      num_repeats: half of them with the canary.
      make_noise: from a seed; another one sees whether the audit finds what is wrong with it.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    seeds, ledgers = rng.integers(2**62, size=num_repeats).tolist(), []
    without, with_canary = public_tables(settings, schema)

    def purchase(frame: pd.DataFrame, noise: HostNoise) -> None:
        ledgers.append(Ledger())
        mechanism = fit_transform if settings.model["name"] in SUMS_OF_TABLES else buy
        mechanism(Private(frame), schema, plan, settings, ledgers[-1], noise)

    scores = np.zeros(num_repeats)
    for number, seed in enumerate(tqdm(seeds, desc="buying", disable=None)):
        tables = (with_canary, without) if number % 2 else (without, with_canary)
        nats = log_likelihood_ratio(purchase, *tables, noise=make_noise(seed))
        scores[number] = nats if number % 2 else -nats
    is_gaussian = one_run_method(ledgers[0]) == "gaussian"
    bound = repeated_bound(
        scores[1::2],
        scores[::2],
        delta=plan.delta,
        confidence=confidence,
        method="gaussian" if is_gaussian else "approximate",
        threshold=0.0 if is_gaussian else None,
    )
    return audit_result(
        "what is bought",
        claimed_epsilon=ledgers[0].epsilon(plan.delta),
        delta=plan.delta,
        lower_bound=bound,
        confidence=confidence,
        num_canaries=num_repeats,
    )


def public_tables(settings: Settings, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random rows, each of a unit of its own, without and with a canary: as many equal rows as a unit may have."""
    public, rng = fit_public(schema, num_bins=settings.transform.num_bins), np.random.default_rng(settings.seed)
    codes = rng.integers(public.cardinalities, size=(NUM_BACKGROUND + 1, len(public.cardinalities)))
    places = np.append(np.arange(NUM_BACKGROUND), [NUM_BACKGROUND] * schema.rows_per_unit)
    table = public.decode(codes.astype(np.int32), rng).iloc[places].reset_index(drop=True)
    return table.iloc[:NUM_BACKGROUND], table
