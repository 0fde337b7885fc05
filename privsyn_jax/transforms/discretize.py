"""Tables to integer codes and back, with public grids and, if bought, noisy histograms."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.data.schema import schema_from_dict, schema_to_dict
from privsyn_jax.data.units import unit_names
from privsyn_jax.privacy import release
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.transforms.grid import Grid, make_grid
from privsyn_jax.transforms.units import group_rows
from privsyn_jax.types import CATEGORICAL_KINDS, Schema, UnitRows

_CLEAR_OF_NOISE = 8.0  # standard deviations of a cell's count, that a bin holds


class OneWay(NamedTuple):
    """Released one-way counts of the codes: non-negative, one total; and the noise stddev they came with."""

    counts: list[np.ndarray]
    stddev: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Discretizer:
    """Records <-> int32 codes [n, d] over the schema's modelled columns.

    Attributes:
      schema: with every category known.
      grids: the fine public grid of each modelled column.
      bin_of_cell: int [cells] per column, the code of each cell; monotone over value cells.
      cell_weights: float64 [cells] per column, probability of a cell within its bin.
      one_way: released counts of the codes, or None when no histogram was bought.
    """

    schema: Schema
    grids: tuple[Grid, ...]
    bin_of_cell: tuple[np.ndarray, ...]
    cell_weights: tuple[np.ndarray, ...]
    one_way: OneWay | None

    @property
    def cardinalities(self) -> tuple[int, ...]:
        return tuple(int(bins.max()) + 1 for bins in self.bin_of_cell)

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """int32 [n, d] of a frame that conforms to the schema."""
        cells = encode_cells(self.grids, frame)
        return np.stack([bins[cells[:, j]] for j, bins in enumerate(self.bin_of_cell)], axis=1).astype(np.int32)

    def encode_units(self, frame: pd.DataFrame) -> np.ndarray | UnitRows:
        """One example per unit, which is what is drawn and clipped: `encode`, or the rows of every unit together."""
        codes, schema = self.encode(frame), self.schema
        if schema.rows_per_unit == 1:
            return codes
        return group_rows(codes, pd.factorize(unit_names(frame, schema))[0], schema.rows_per_unit)

    def decode(self, codes: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
        """Frame in canonical dtypes; draws a cell within the bin, then a value within the cell."""
        columns = {}
        for j, grid in enumerate(self.grids):
            cells = self._draw_cells(j, codes[:, j], rng)
            columns[grid.column.name] = grid.draw(cells, rng)
        for column in self.schema.columns:
            if column.kind == "id":
                columns[column.name] = pd.Series(np.arange(1, len(codes) + 1))
        return pd.DataFrame({name: columns[name] for name in self.schema.names})

    def _draw_cells(self, j: int, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        weights, bins = self.cell_weights[j], self.bin_of_cell[j]
        order = np.argsort(bins, kind="stable")
        cumulative = np.cumsum(weights[order])
        start = np.concatenate([[0.0], cumulative])[np.searchsorted(bins[order], codes)]
        total = np.bincount(bins, weights)[codes]
        # Landing in the open interval (start, start + total) keeps the cell inside its own bin.
        position = start + total * np.clip(rng.random(len(codes)), 1e-9, 1 - 1e-9)
        cells = order[np.minimum(np.searchsorted(cumulative, position), len(order) - 1)]
        return cells.astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `from_dict` inverts it. Holds public and released values only."""
        return {
            "schema": schema_to_dict(self.schema),
            "grids": [{"lower": g.lower.tolist(), "upper": g.upper.tolist(), "whole": g.whole} for g in self.grids],
            "bin_of_cell": [bins.tolist() for bins in self.bin_of_cell],
            "cell_weights": [weights.tolist() for weights in self.cell_weights],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Discretizer:
        schema = schema_from_dict(plain["schema"])
        grids = tuple(
            Grid(column, np.array(grid["lower"], float), np.array(grid["upper"], float), grid["whole"], merge=False)
            for column, grid in zip(schema.modelled, plain["grids"], strict=True)
        )
        bins = tuple(np.array(values, dtype=np.int64) for values in plain["bin_of_cell"])
        weights = tuple(np.array(values, dtype=np.float64) for values in plain["cell_weights"])
        return cls(schema, grids, bins, weights, one_way=None)


def encode_cells(grids: tuple[Grid, ...], frame: pd.DataFrame) -> np.ndarray:
    """int32 [n, d] cell numbers."""
    return np.stack([grid.encode(frame[grid.column.name]) for grid in grids], axis=1)


def fit_public(schema: Schema, *, num_bins: int, most_categories: float = math.inf) -> Discretizer:
    """Bins from the schema alone: given edges, else even ones; groups of many categories. Reads no record."""
    grids = tuple(make_grid(column, num_bins) for column in schema.modelled)
    bins = tuple(public_bins(grid, most_categories) for grid in grids)
    return Discretizer(schema, grids, bins, tuple(np.ones(grid.size) for grid in grids), one_way=None)


def public_bins(grid: Grid, most_categories: float) -> np.ndarray:
    """Code of each cell: its own, but for a column with more categories than that, whose groups have one each."""
    column, bins = grid.column, np.arange(grid.size)
    if not column.groups or len(column.values) <= most_categories:
        return bins
    group_of = {value: name for name, members in column.groups for value in members}
    code_of: dict[Any, int] = {}
    for cell, value in enumerate(column.values):
        key = ("group", group_of[value]) if value in group_of else ("category", value)
        bins[cell] = code_of.setdefault(key, len(code_of))
    bins[grid.num_value_cells :] = len(code_of)
    return bins


def fit_purchased(
    schema: Schema,
    frame: pd.DataFrame,
    *,
    num_bins: int,
    num_cells: int,
    noise_multiplier: float,
    noise: HostNoise,
    most_categories: float = math.inf,
) -> tuple[Discretizer, release.Event]:
    """Bins with edges at noisy quantiles, from one noisy histogram of every column's fine grid.

    Everything after the one Gaussian release is post-processing: merging neighbouring cells until a bin
    holds enough of the records (`bin_mass`), the cell weights within a bin, the one-way counts.

    Args:
      frame: private records that conform to the schema.
      num_bins: bins aimed at per numeric column; a cell heavier than 1 / num_bins stays a bin of its own, not counted.
      num_cells: cells of the fine public grid of a numeric column.
      most_categories: see `public_bins`.
      noise_multiplier: of the release (L2 sensitivity: rows per unit * sqrt(number of columns)).
    """
    grids = tuple(make_grid(column, num_cells) for column in schema.modelled)
    cells = encode_cells(grids, frame)
    noisy, stddev, event = release.histograms(
        cells,
        [grid.size for grid in grids],
        noise_multiplier=noise_multiplier,
        noise=noise,
        rows_per_unit=schema.rows_per_unit,
    )
    total = max(1.0, float(np.mean([counts.sum() for counts in noisy])))
    smooth = [release.project_to_counts(counts, total) for counts in noisy]
    bins = tuple(
        _merge(grid, counts, bin_mass(counts, stddev, num_bins)) if grid.merge else public_bins(grid, most_categories)
        for grid, counts in zip(grids, smooth, strict=True)
    )
    weights = tuple(_within_bin(group, counts) for group, counts in zip(bins, smooth, strict=True))
    counts = [np.bincount(group, values) for group, values in zip(bins, smooth, strict=True)]
    spread = [stddev * np.sqrt(np.bincount(group)) for group in bins]
    return Discretizer(schema, grids, bins, weights, OneWay(counts, spread)), event


def buy_categories(
    schema: Schema, frame: pd.DataFrame, *, noise_multiplier: float, delta: float, noise: HostNoise
) -> tuple[Schema, list[release.Event]]:
    """Schema with unknown categories filled in by a thresholded noisy histogram; and the events.

    Values that do not come out are coded as missing, so the columns become nullable. Nothing may come out at all.
    """
    unknown = unknown_columns(schema)
    values = [_values_once_per_unit(frame, name, schema) for name in unknown]
    released, *events = release.categories(
        values, noise_multiplier=noise_multiplier, delta=delta, noise=noise, values_per_unit=schema.rows_per_unit
    )
    found = dict(zip(unknown, released, strict=True))
    columns = tuple(
        dataclasses.replace(column, categories=tuple(found[column.name]), nullable=True)
        if column.name in found
        else column
        for column in schema.columns
    )
    return dataclasses.replace(schema, columns=columns), events


def _values_once_per_unit(frame: pd.DataFrame, name: str, schema: Schema) -> list[Any]:
    """The values of a column, each as often as units hold it."""
    values: Any = frame[name].dropna()
    if schema.rows_per_unit > 1:
        owners = pd.Series(unit_names(frame, schema), index=frame.index)[values.index]
        values = values[~pd.DataFrame({"owner": owners, "value": values}).duplicated()]
    return values.tolist()


def unknown_columns(schema: Schema) -> list[str]:
    """Names of the columns whose categories are not public."""
    return [c.name for c in schema.columns if c.kind in CATEGORICAL_KINDS and c.kind != "boolean" and not c.categories]


def bin_mass(counts: np.ndarray, stddev: float, num_bins: int) -> float:
    """Records that make a bin: an even share of those outside point masses, if it stands out of the noise.

    A column of which most rows have one value, as a capital gain, so has as many bins for the others as any column.

    Args:
      counts: released counts of the cells, non-negative.
      stddev: of the noise of a cell; a bin of fewer than `_CLEAR_OF_NOISE` of it would be told by noise.
    """
    even = float(counts.sum()) / num_bins
    rest = float(counts[counts < even].sum())
    return min(even, max(rest / num_bins, _CLEAR_OF_NOISE * stddev))


def _merge(grid: Grid, counts: np.ndarray, target: float) -> np.ndarray:
    """Code of each cell: heavy cells alone, runs of light neighbours together; missing apart."""
    codes, code, held = np.zeros(grid.size, dtype=np.int64), 0, 0.0
    for cell in range(grid.num_value_cells):
        heavy = counts[cell] >= target
        if cell > 0 and held > 0 and (heavy or held >= target):
            code, held = code + 1, 0.0
        codes[cell] = code
        held += counts[cell]
        if heavy:
            held = max(held, target)
    codes[grid.num_value_cells :] = code + 1
    return codes


def _within_bin(bins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Probability of each cell within its bin; even where the bin is empty."""
    totals = np.bincount(bins, counts)
    sizes = np.bincount(bins)
    return np.where(totals[bins] > 0, counts / np.maximum(totals[bins], 1e-30), 1.0 / sizes[bins])
