"""Fidelity of a synthetic table: metrics of all columns, pairs, triples and of whole records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from privsyn_jax.evaluation.column_distances import add_column_distances
from privsyn_jax.evaluation.encode import Encoded, Levels, Tables
from privsyn_jax.evaluation.ordering import order_column
from privsyn_jax.evaluation.pair_distances import add_associations, add_pairwise, add_triples
from privsyn_jax.evaluation.record_distances import add_record_distances
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.threads import in_threads


def fidelity_rows(
    all_levels: Sequence[Levels], tables: Tables[Encoded], *, target: str | None, seed: int
) -> tuple[Rows, dict[str, Any]]:
    """Distances from the real training table.

    The value is synthetic against real train, the reference real test against real train.

    Args:
      all_levels: one per column.
      tables: encoded with all_levels.
      target: name of the target, or None; a target with two classes joins the correlations as 0/1.
      seed: draws triples of columns, records and directions where not all are used; recorded in the rows.

    Returns:
      (rows, pair errors {"columns", "synthetic", "reference"}: total variation of all pairs as nested
      lists [D][D], 1-way on the diagonal).
    """
    rows = Rows("fidelity", seed)
    numeric = [i for i, levels in enumerate(all_levels) if levels.is_numeric]
    ordered = in_threads(lambda i: order_column(Tables(*(table.scaled[:, i] for table in tables))), numeric)
    ordered = dict(zip(numeric, ordered, strict=True))
    add_column_distances(rows, all_levels, tables, ordered)
    pair_errors = add_pairwise(rows, all_levels, tables)
    add_associations(rows, all_levels, tables, ordered, target)
    add_triples(rows, all_levels, tables, seed=seed)
    add_record_distances(rows, all_levels, tables, seed=seed)
    return rows, pair_errors
