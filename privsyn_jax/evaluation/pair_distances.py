"""Rows of the metrics of pairs and triples of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation import associations, fidelity
from privsyn_jax.evaluation.encode import Encoded, Levels, Tables
from privsyn_jax.evaluation.on_host import host_correlation, host_pair_counts
from privsyn_jax.evaluation.ordering import Ordered, average_ranks
from privsyn_jax.evaluation.rows import Rows

MAX_TRIPLES = 64


def add_pairwise(rows: Rows, all_levels: Sequence[Levels], tables: Tables[Encoded]) -> dict[str, Any]:
    """Adds `pairwise_total_variation`, the mean over pairs, and `cramers_v_difference` over pairs of categories.

    Args:
      rows: where to add them.
      all_levels: one per column.
      tables: encoded with all_levels.

    Returns:
      {"columns": [D names], "synthetic": [D][D], "reference": [D][D]}: of every pair, its total
      variation against real train.
    """
    names = [levels.column.name for levels in all_levels]
    num_codes = tuple(levels.num_codes for levels in all_levels)
    train, test, synthetic = (pair_counts(table.codes, num_codes) for table in tables)
    matrices = [
        np.asarray(fidelity.pairwise_total_variation(train, other, num_codes), np.float64)
        for other in (synthetic, test)
    ]
    if len(names) < 2:
        rows.skip("pairwise_total_variation", "the table has one column only")
    else:
        above = np.triu_indices(len(names), k=1)
        rows.add("pairwise_total_variation", *(matrix[above].mean() for matrix in matrices))
    of_synthetic, of_test = (matrix.tolist() for matrix in matrices)
    categorical = [i for i, levels in enumerate(all_levels) if not levels.is_numeric]
    if len(categorical) < 2:
        rows.skip("cramers_v_difference", "fewer than two columns are categorical")
    else:
        found = (np.asarray(associations.cramers_v(pairs, num_codes), float) for pairs in (train, test, synthetic))
        square = np.ix_(categorical, categorical)
        _add_difference(
            rows, "cramers_v_difference", *(matrix[square] for matrix in found),
            undefined="no pair of columns has two categories in every table",
        )  # fmt: skip
    return {"columns": names, "synthetic": of_synthetic, "reference": of_test}


def add_associations(
    rows: Rows,
    all_levels: Sequence[Levels],
    tables: Tables[Encoded],
    ordered: Mapping[int, Ordered],
    target: str | None,
) -> None:
    """Adds mean absolute differences of correlations and names the constant columns that have none.

    `correlation_difference` (Pearson) and `spearman_difference` are over pairs of numeric or binary columns,
    `correlation_ratio_difference` over each numeric column given each categorical one. Ranks are among all values of a
    column that are present; a pair then counts the rows where both are.

    Args:
      rows: where to add them.
      all_levels: one per column.
      tables: encoded with all_levels.
      ordered: the numeric columns in order, by position.
      target: a target with two classes joins the correlations as 0/1.
    """
    chosen = [i for i, levels in enumerate(all_levels) if levels.is_numeric or _is_binary(levels, target)]
    numbers = Tables(*(_as_numbers(all_levels, table, chosen) for table in tables))
    if len(chosen) < 2:
        for metric in ("correlation_difference", "spearman_difference"):
            rows.skip(metric, "fewer than two columns are numeric or binary")
    else:
        for described, table in zip(("real", "real held-out", "synthetic"), numbers, strict=True):
            for i in np.flatnonzero(_is_constant(table)):
                reason = f"constant or missing in the whole {described} table: its correlations are undefined"
                rows.skip("correlation_difference", reason, column=all_levels[chosen[i]].column.name)
        ranks = Tables(*(_as_ranks(table, which, chosen, ordered) for which, table in enumerate(numbers)))
        for metric, values in (("correlation_difference", numbers), ("spearman_difference", ranks)):
            _add_difference(
                rows, metric, *map(correlations, values), undefined="no pair of columns varies in every table"
            )
    categorical = [i for i, levels in enumerate(all_levels) if not levels.is_numeric]
    if not (ordered and categorical):
        return rows.skip("correlation_ratio_difference", "no numeric or no categorical column")
    num_codes = tuple(all_levels[i].num_codes for i in categorical)
    is_numeric = [all_levels[i].is_numeric for i in chosen]
    found = (
        np.asarray(associations.correlation_ratio(
            jnp.asarray(table.codes[:, categorical]), standardised(values[:, is_numeric]), num_codes
        ), float)
        for table, values in zip(tables, numbers, strict=True)
    )  # fmt: skip
    reason = "no numeric column varies in every table"
    _add_difference(rows, "correlation_ratio_difference", *found, is_symmetric=False, undefined=reason)


def add_triples(rows: Rows, all_levels: Sequence[Levels], tables: Tables[Encoded], *, seed: int) -> None:
    """Adds `triple_total_variation`: the mean over all triples of columns, or over MAX_TRIPLES drawn by the seed."""
    if len(all_levels) < 3:
        return rows.skip("triple_total_variation", "the table has fewer than three columns")
    sizes = np.array([levels.occurs.sum() for levels in all_levels], np.int32)
    triples = associations.sample_triples(len(all_levels), MAX_TRIPLES, seed)
    num_cells = 1 << int(np.prod(np.sort(sizes)[-3:].astype(np.int64)) - 1).bit_length()  # few different programs
    train, test, synthetic = (jnp.asarray(occurring_codes(all_levels, table)) for table in tables)
    of_synthetic, of_test = (
        np.asarray(associations.triple_total_variation(train, other, sizes, triples, num_cells), float)
        for other in (synthetic, test)
    )
    rows.add("triple_total_variation", of_synthetic.mean(), of_test.mean())


def pair_counts(codes: np.ndarray, num_codes: tuple[int, ...]) -> np.ndarray:
    """`fidelity.pair_counts` as NumPy array: counted on the host where JAX has a CPU only, else by matrix products."""
    if jax.default_backend() == "cpu":
        return host_pair_counts(codes, num_codes)
    return np.asarray(fidelity.pair_counts(jnp.asarray(codes), num_codes))


def correlations(values: np.ndarray) -> np.ndarray:
    """`fidelity.correlation` of float64 [n, d], as float64 [d, d]: on the host where JAX has a CPU only."""
    if jax.default_backend() == "cpu":
        return host_correlation(values)
    return np.asarray(fidelity.correlation(standardised(values)), np.float64)


def occurring_codes(all_levels: Sequence[Levels], table: Encoded) -> np.ndarray:
    """Codes without the gaps of levels that occur in no table, int32 [D, n]."""
    codes = np.empty(table.codes.shape[::-1], np.int32)
    for i, levels in enumerate(all_levels):
        codes[i] = (np.cumsum(levels.occurs, dtype=np.int32) - 1)[table.codes[:, i]]
    return codes


def standardised(values: np.ndarray) -> jnp.ndarray:
    """Columns [n, d] with mean 0 and variance 1, in double precision and then float32; NaN stays, constants are 0."""
    result = np.empty(values.shape, np.float32)
    for i in range(values.shape[1]):  # a column at a time: small enough for the cache, and no copies of the table
        column = np.ascontiguousarray(values[:, i])
        is_present = ~np.isnan(column)
        present = column if is_present.all() else column[is_present]
        if len(present) and present.min() < present.max():
            centred = column - present.mean()
            result[:, i] = centred / (present.std() or 1.0)
        else:
            result[:, i] = np.where(is_present, 0.0, np.nan)
    return jnp.asarray(result)


def _add_difference(rows, metric, train, test, synthetic, *, is_symmetric=True, undefined):
    """Mean absolute difference of matrices over the pairs defined in all of them."""
    differences = np.stack([np.abs(synthetic - train), np.abs(test - train)])
    counted = np.isfinite(differences).all(axis=0)
    if is_symmetric:
        counted &= np.triu(np.ones(counted.shape, bool), k=1)
    if not counted.any():
        return rows.skip(metric, undefined)
    rows.add(metric, *differences[:, counted].mean(axis=1))


def _is_binary(levels: Levels, target: str | None) -> bool:
    """Whether a categorical column has a natural 0/1 reading: boolean, or a target of two classes."""
    if levels.column.kind == "boolean":
        return True
    return not levels.is_numeric and levels.column.name == target and len(levels.categories) == 2


def _as_numbers(all_levels, table, chosen):
    """Scaled numbers and 0/1 codes of the chosen columns, float64 [n, len(chosen)], NaN if missing."""
    numbers = np.empty((len(table.codes), len(chosen)), order="F")
    for position, i in enumerate(chosen):
        codes = table.codes[:, i]
        numbers[:, position] = table.scaled[:, i] if all_levels[i].is_numeric else np.where(codes <= 1, codes, np.nan)
    return numbers


def _as_ranks(numbers, which, chosen, ordered):
    """Ranks of the chosen columns of one table, by its place in Tables; 0/1 columns are their own but for scale."""
    ranks = numbers.copy(order="F")
    for position, i in enumerate(chosen):
        if i in ordered:
            ranks[:, position] = average_ranks(ordered[i].positions[which], ordered[i].counts[which])
    return ranks


def _is_constant(values):
    """Columns with fewer than two different values, bool [d]."""
    largest, smallest = (extreme.reduce(values, axis=0) for extreme in (np.fmax, np.fmin))  # NaN if all are
    return ~(largest > smallest)
