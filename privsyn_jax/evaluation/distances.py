"""Fidelity of a synthetic table: the metrics of fidelity.py over all columns and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation import encode, fidelity
from privsyn_jax.evaluation.encode import Encoded, Levels, Tables
from privsyn_jax.evaluation.rows import Rows


def fidelity_rows(
    all_levels: Sequence[Levels], tables: Tables[Encoded], *, target: str | None, seed: int
) -> tuple[Rows, dict[str, Any]]:
    """Distances from the real training table.

    The value is synthetic against real train, the reference real test against real train.

    Args:
      all_levels: one per column.
      tables: encoded with all_levels.
      target: name of the target, or None; a target with two classes joins the correlations as 0/1.
      seed: recorded in the rows.

    Returns:
      (rows, pair errors {"columns", "synthetic", "reference"}: total variation of all pairs as nested
      lists [D][D], 1-way on the diagonal).
    """
    rows = Rows("fidelity", seed)
    names = [levels.column.name for levels in all_levels]
    _add_emd(rows, all_levels, tables)
    _add_histogram_distances(rows, names, tables, max(levels.num_codes for levels in all_levels))
    _add_missing_rates(rows, all_levels, tables)
    _add_correlations(rows, all_levels, tables, target)
    matrices = _pair_matrices(all_levels, tables)
    if len(names) < 2:
        rows.skip("pairwise_total_variation", "the table has one column only")
    else:
        above = np.triu_indices(len(names), k=1)
        rows.add("pairwise_total_variation", *(matrix[above].mean() for matrix in matrices))
    synthetic, reference = (matrix.tolist() for matrix in matrices)
    return rows, {"columns": names, "synthetic": synthetic, "reference": reference}


def _add_emd(rows, all_levels, tables):
    """EMD of each numeric column and its mean."""
    numeric = [i for i, levels in enumerate(all_levels) if levels.is_numeric]
    if not numeric:
        return rows.skip("emd", "the table has no numeric column")
    train, test, synthetic = (jnp.asarray(table.scaled[:, numeric], jnp.float32) for table in tables)
    distances = jax.vmap(fidelity.emd, in_axes=1)
    values, references = np.asarray(distances(train, synthetic)), np.asarray(distances(train, test))
    for i, value, reference in zip(numeric, values, references, strict=True):
        column = all_levels[i].column.name
        rows.add("emd", value, reference, column=column, undefined="a table has no value in this column")
    defined = np.isfinite(values) & np.isfinite(references)
    if defined.any():
        rows.add("mean_emd", values[defined].mean(), references[defined].mean())


def _add_histogram_distances(rows, names, tables, num_codes):
    """Total variation and KL divergence of each column and their means."""
    train, test, synthetic = (encode.level_counts(table.codes, num_codes) for table in tables)
    for metric, distance in (
        ("total_variation", fidelity.total_variation),
        ("kl_divergence", fidelity.kl_divergence),
    ):
        values, references = np.asarray(distance(train, synthetic)), np.asarray(distance(train, test))
        for name, value, reference in zip(names, values, references, strict=True):
            rows.add(metric, value, reference, column=name)
        rows.add(f"mean_{metric}", values.mean(), references.mean())


def _add_missing_rates(rows, all_levels, tables):
    """Absolute difference of the share of missing values, for columns that can or do miss some."""
    for i, levels in enumerate(all_levels):
        if levels.column.nullable or levels.occurs[-1]:
            train, test, synthetic = ((table.codes[:, i] == levels.num_codes - 1).mean() for table in tables)
            column = levels.column.name
            rows.add("missing_rate_difference", abs(synthetic - train), abs(test - train), column=column)


def _add_correlations(rows, all_levels, tables, target):
    """Mean absolute difference of Pearson correlations; names the constant columns that have none."""
    metric = "correlation_difference"
    chosen = [i for i, levels in enumerate(all_levels) if levels.is_numeric or _is_binary(levels, target)]
    if len(chosen) < 2:
        return rows.skip(metric, "fewer than two columns are numeric or binary")
    train, test, synthetic = (_as_numbers(all_levels, table, chosen) for table in tables)
    for described, table in (("real", train), ("real held-out", test), ("synthetic", synthetic)):
        for i in np.flatnonzero(_is_constant(table)):
            reason = f"constant or missing in the whole {described} table: its correlations are undefined"
            rows.skip(metric, reason, column=all_levels[chosen[i]].column.name)
    real = fidelity.correlation(jnp.asarray(train, jnp.float32))
    value, reference = (
        fidelity.correlation_difference(real, fidelity.correlation(jnp.asarray(table, jnp.float32)))
        for table in (synthetic, test)
    )
    rows.add(metric, value, reference, undefined="no pair of columns varies in every table")


def _is_binary(levels: Levels, target: str | None) -> bool:
    """Whether a categorical column has a natural 0/1 reading: boolean, or a target of two classes."""
    if levels.column.kind == "boolean":
        return True
    return not levels.is_numeric and levels.column.name == target and len(levels.categories) == 2


def _as_numbers(all_levels, table, chosen):
    """Scaled numbers and 0/1 codes of the chosen columns, float64 [n, len(chosen)], NaN if missing."""
    is_numeric = np.array([all_levels[i].is_numeric for i in chosen])[None, :]
    codes = table.codes[:, chosen]
    return np.where(is_numeric, table.scaled[:, chosen], np.where(codes <= 1, codes, np.nan))


def _is_constant(values):
    """Columns with fewer than two different values, bool [d]."""
    largest = np.where(np.isnan(values), -np.inf, values).max(axis=0)
    smallest = np.where(np.isnan(values), np.inf, values).min(axis=0)
    return largest <= smallest


def _pair_matrices(all_levels, tables):
    """2-way total variation [D, D] of synthetic and of real test against real train."""
    num_codes = tuple(levels.num_codes for levels in all_levels)
    train, test, synthetic = (fidelity.pair_counts(jnp.asarray(table.codes), num_codes) for table in tables)
    return tuple(
        np.asarray(fidelity.pairwise_total_variation(train, other, num_codes), np.float64)
        for other in (synthetic, test)
    )
