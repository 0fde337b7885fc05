"""Rows of the metrics of whole records."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.encode import Encoded, Levels, Tables
from privsyn_jax.evaluation.propensity import MIN_ROWS_PER_FEATURE, propensity_mse
from privsyn_jax.evaluation.record_vectors import RecordVectors, as_matrix, record_vectors
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.support import NUM_NEIGHBOURS, Support, support_metrics
from privsyn_jax.evaluation.whole_table import maximum_mean_discrepancy, median_distance, sliced_wasserstein

MAX_RECORDS = 10_000  # of each table, for metrics in O(n log n)
MAX_COMPARED = 3_000  # of each table, for metrics that compare every record with every other


def add_record_distances(rows: Rows, all_levels: Sequence[Levels], tables: Tables[Encoded], *, seed: int) -> None:
    """Adds metrics of whole records, on equally many records of each table, so that values and references compare.

    `sliced_wasserstein`, `pmse` and `pmse_ratio` take min(train, test, synthetic, MAX_RECORDS) records of each table,
    `mmd`, `alpha_precision`, `beta_recall`, `density` and `coverage` the first MAX_COMPARED of those. Records are drawn
    without replacement by the seed; tables of one length give the records in the same places.

    Args:
      rows: where to add them.
      all_levels: one per column.
      tables: encoded with all_levels.
      seed: draws records and directions.
    """
    num_records = min(MAX_RECORDS, *(len(table.codes) for table in tables))
    drawn = Tables(*(_draw(all_levels, table, num_records, seed) for table in tables))
    few = Tables(*(RecordVectors(*(block[:MAX_COMPARED] for block in vectors)) for vectors in drawn))
    others = (drawn.synthetic, drawn.test)
    key = jax.random.key(seed)
    train = as_matrix(drawn.train)
    distances = [sliced_wasserstein(train, as_matrix(other), key=jnp.copy(key)) for other in others]
    rows.add("sliced_wasserstein", *distances)
    _add_propensity(rows, drawn)
    _add_compared(rows, few)


def _draw(all_levels, table, num_records, seed):
    chosen = np.random.default_rng(seed).permutation(len(table.codes))[:num_records]
    return record_vectors(all_levels, table, chosen)


def _add_propensity(rows, drawn):
    value, reference = (propensity_mse(drawn.train, other) for other in (drawn.synthetic, drawn.test))
    rows.add("pmse", value.pmse, reference.pmse)
    if not (value.num_features and reference.num_features):
        return rows.skip("pmse_ratio", "all records are equal: there is nothing to tell them apart by")
    num_rows, num_features = 2 * len(drawn.train.numbers), max(value.num_features, reference.num_features)
    rows.add(
        "pmse_ratio", value.ratio, reference.ratio,
        undefined=f"{num_rows} records are fewer than {MIN_ROWS_PER_FEATURE} for each of {num_features} features",
    )  # fmt: skip


def _add_compared(rows, few):
    num_records = len(few.train.numbers)
    others = (few.synthetic, few.test)
    if num_records < 2:
        rows.skip("mmd", "a table has one record only")
    else:
        bandwidth = median_distance(few.train)
        rows.add("mmd", *(maximum_mean_discrepancy(few.train, other, bandwidth) for other in others))
    if num_records <= NUM_NEIGHBOURS:
        for metric in Support._fields:
            rows.skip(metric, f"a table has {num_records} records: more than {NUM_NEIGHBOURS} are needed")
        return
    found = [support_metrics(few.train, other) for other in others]
    for metric in Support._fields:
        rows.add(metric, *(getattr(support, metric) for support in found), higher_is_better=True)
