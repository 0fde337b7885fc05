"""Rows of the metrics of single columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation import columns, encode, fidelity
from privsyn_jax.evaluation.encode import Encoded, Levels, Tables
from privsyn_jax.evaluation.on_host import host_distances, host_moments
from privsyn_jax.evaluation.ordering import Ordered
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.threads import in_threads

_EMPTY = "a table has no value in this column"


def add_column_distances(
    rows: Rows, all_levels: Sequence[Levels], tables: Tables[Encoded], ordered: Mapping[int, Ordered]
) -> None:
    """Rows of every column: distances of distributions and histograms, differences of moments and of missing rates.

    Adds `emd`, `kolmogorov_smirnov` and `mean_difference`, `stddev_difference`, `skewness_difference`,
    `kurtosis_difference` (absolute, of the column scaled by its public bounds) of numeric columns; `total_variation`,
    `kl_divergence` (real to synthetic), `reverse_kl_divergence` and `jensen_shannon` of all, on the bins of numbers and
    with a level for missing values; `missing_rate_difference` where values can be missing; and the means over columns.

    Args:
      rows: where to add them.
      all_levels: one per column.
      tables: encoded with all_levels.
      ordered: the numeric columns in order, by position.
    """
    if not ordered:
        for metric in ("emd", "mean_emd", "kolmogorov_smirnov", "mean_kolmogorov_smirnov", "mean_difference"):
            rows.skip(metric, "the table has no numeric column")
    else:
        _add_distribution_distances(rows, all_levels, ordered)
        _add_moment_differences(rows, all_levels, tables, list(ordered))
    names = [levels.column.name for levels in all_levels]
    _add_histogram_distances(rows, names, tables, max(levels.num_codes for levels in all_levels))
    _add_missing_rates(rows, all_levels, tables)


def distribution_distances(ordered: Sequence[Ordered]) -> dict[str, np.ndarray]:
    """{"emd", "kolmogorov_smirnov"}: float64 [d, 2] of synthetic and of real test against real train; NaN if empty."""
    if jax.default_backend() == "cpu":
        found = in_threads(
            lambda column: [
                host_distances(column.counts.train, other, column.values)
                for other in (column.counts.synthetic, column.counts.test)
            ],
            ordered,
        )
        distances = np.array(found).reshape(-1, 2, 2)
        return {"emd": distances[..., 0], "kolmogorov_smirnov": distances[..., 1]}
    return device_distances(ordered)


def device_distances(ordered: Sequence[Ordered]) -> dict[str, np.ndarray]:
    """`distribution_distances` by the jitted metrics, a column at a time, padded to one length for one program."""
    length = 1 << max(max(len(column.values) for column in ordered) - 1, 0).bit_length()
    found = {"emd": [], "kolmogorov_smirnov": []}
    for column in ordered:
        counts = Tables(*(jnp.asarray(np.pad(table, (0, length - len(table)))) for table in column.counts))
        widths = jnp.asarray(np.pad(np.diff(column.values), (0, length - max(len(column.values) - 1, 0))), jnp.float32)
        others = (counts.synthetic, counts.test)
        found["emd"].append([columns.wasserstein(counts.train, other, widths) for other in others])
        found["kolmogorov_smirnov"].append([columns.kolmogorov_smirnov(counts.train, other) for other in others])
    return {metric: np.array(pairs, np.float64) for metric, pairs in found.items()}


def moments_of(table: Encoded, numeric: Sequence[int]) -> columns.Moments:
    """Moments of the named numeric columns of one table."""
    if jax.default_backend() == "cpu":
        return host_moments([table.scaled[:, i] for i in numeric])
    return columns.moments(jnp.asarray(table.scaled[:, list(numeric)], jnp.float32))


def _add_distribution_distances(rows, all_levels, ordered):
    for metric, found in distribution_distances(list(ordered.values())).items():
        for i, (value, reference) in zip(ordered, found, strict=True):
            rows.add(metric, value, reference, column=all_levels[i].column.name, undefined=_EMPTY)
        defined = found[np.isfinite(found).all(axis=1)]
        if len(defined):
            rows.add(f"mean_{metric}", *defined.mean(axis=0))
        else:
            rows.skip(f"mean_{metric}", "no numeric column has values in every table")


def _add_moment_differences(rows, all_levels, tables, numeric):
    train, test, synthetic = (moments_of(table, numeric) for table in tables)
    for moment in columns.Moments._fields:
        of_train, of_test, of_synthetic = (np.asarray(getattr(m, moment), float) for m in (train, test, synthetic))
        undefined = _EMPTY if moment in ("mean", "stddev") else "a table has no two different values in this column"
        values, references = np.abs(of_synthetic - of_train), np.abs(of_test - of_train)
        for i, value, reference in zip(numeric, values, references, strict=True):
            name = all_levels[i].column.name
            rows.add(f"{moment}_difference", value, reference, column=name, undefined=undefined)


def _add_histogram_distances(rows, names, tables, num_codes):
    train, test, synthetic = (encode.level_counts(table.codes, num_codes) for table in tables)
    for metric, distance in (
        ("total_variation", fidelity.total_variation),
        ("kl_divergence", fidelity.kl_divergence),
        ("reverse_kl_divergence", lambda real, other: fidelity.kl_divergence(other, real)),
        ("jensen_shannon", columns.jensen_shannon),
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
