"""The tables of a study's page: cells of text, with the keys by which the page filters their rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from privsyn_jax.report.numbers import MISSING, finite_or_none, format_number
from privsyn_jax.report.tables import in_words
from privsyn_jax.study.cells import Cell, Cells, Row, with_interval
from privsyn_jax.study.comparison import SIGNIFICANT
from privsyn_jax.study.plan import Study

_TEST_HEADER = ("difference (95 % interval)", "p (Holm)", "p", "p (Wilcoxon)", "effect size", "seeds")
_CONFIGURATION = ("model", "contestant", "epsilon", "epsilon_spent")


class Table(NamedTuple):
    """Columns from `numeric_from` on hold numbers; a line is (keys, cells)."""

    caption: str
    header: Sequence[str]
    lines: Sequence[tuple[Mapping[str, str], Sequence[str]]]
    numeric_from: int


def epsilon_text(epsilon: float) -> str:
    """A level of the study, as it was asked for."""
    return f"{epsilon:g}" if math.isfinite(epsilon) else "∞"


def keys_of(row: Mapping[str, Any]) -> dict[str, str]:
    """What the page filters by: those of model, other (a second model), contestant, epsilon and metric that it has."""
    keys = {name: str(row[name]) for name in ("model", "other", "contestant", "metric") if name in row}
    return {**keys, "epsilon": epsilon_text(row["epsilon"])}


def verdict(row: Mapping[str, Any]) -> str:
    """Of a test: "higher" or "lower" where it is significant, "no" where it is not, "" where it could not be made."""
    p_holm = finite_or_none(row["p_holm"])
    if p_holm is None:
        return ""
    return "no" if p_holm >= SIGNIFICANT else "higher" if row["difference"] > 0 else "lower"


def with_ends(row: Mapping[str, Any], name: str, low: str, high: str) -> str:
    """A number and its interval, where it has one."""
    if finite_or_none(row.get(low)) is None:
        return format_number(row.get(name))
    return f"{format_number(row[name])} ({format_number(row[low])} to {format_number(row[high])})"


def means_table(cells: Cells, study: Study) -> Table:
    """Every metric of every configuration that has a finished run."""
    columns = (*study.metrics, "epsilon_spent", "seconds")
    lines = []
    for model in study.models:
        for cell in itertools.starmap(Cell, itertools.product([model], study.contestants_of(model), study.epsilons)):
            num_seeds = sum(map(math.isfinite, cells.values(cell, "seconds")))
            if num_seeds:
                found = [with_interval("mean", cells.values(cell, column)) for column in columns]
                values = [with_ends(row, "mean", "mean_low", "mean_high") for row in found]
                lines.append((keys_of(cell._asdict()), [*_names(cell._asdict(), study), str(num_seeds), *values]))
    header = (*_name_header(study), "seeds", *map(in_words, columns))
    return Table("Means over seeds, with 95 % intervals", header, lines, len(_name_header(study)))


def frontier_table(rows: Sequence[Row], study: Study) -> Table:
    lines = [
        (
            keys_of(row),
            [
                *_names(row, study),
                str(row["modality"]),
                str(row["data"]),
                "yes" if row["is_optimal"] else "no",
                *(with_ends(row, name, f"{name}_low", f"{name}_high") for name in ("utility", "leakage")),
            ],
        )
        for row in rows
    ]
    header = (*_name_header(study), "modality", "data", "Pareto-optimal", "utility", "leakage")
    return Table("Utility and leakage, with 95 % intervals", header, lines, len(header) - 2)


def real_table(rows: Sequence[Row], study: Study) -> Table:
    """Synthetic records against real ones."""
    header = (*_name_header(study), "metric", "significant", "real", "synthetic", *_TEST_HEADER)
    lines = [
        _tested(row, [*_names(row, study), in_words(row["metric"])], [row["real"], row["synthetic"]]) for row in rows
    ]
    return Table("Trained on synthetic records against trained on real ones", header, lines, len(header) - 8)


def models_table(rows: Sequence[Row]) -> Table:
    """Models against each other, as the baseline contestant runs them."""
    header = ("model", "minus", "epsilon", "metric", "significant", *_TEST_HEADER)
    lines = [
        _tested(row, [row["model"], row["other"], epsilon_text(row["epsilon"]), in_words(row["metric"])], [])
        for row in rows
    ]
    return Table("Models against each other", header, lines, 5)


def comparison_table(rows: Sequence[Row], study: Study) -> Table:
    """Contestants against the baseline."""
    header = (*_name_header(study), "metric", "significant", study.baseline, "contestant's", *_TEST_HEADER)
    lines = [
        _tested(row, [*_names(row, study), in_words(row["metric"])], [row["baseline"], row["value"]]) for row in rows
    ]
    return Table(f"Differences to the baseline: {study.baseline}", header, lines, len(header) - 8)


def tradeoff_table(rows: Sequence[Row], study: Study) -> Table:
    """Whatever columns the rows have; NAME_low and NAME_high stand with NAME."""
    columns = dict.fromkeys(column for row in rows for column in row if column not in _CONFIGURATION)
    values = [name for name in columns if not _is_end(name, columns)]
    lines = [
        (
            keys_of(row),
            [
                *_names(row, study),
                "∞" if finite_or_none(row["epsilon_spent"]) is None else format_number(row["epsilon_spent"]),
                *(with_ends(row, name, f"{name}_low", f"{name}_high") for name in values),
            ],
        )
        for row in rows
    ]
    header = (*_name_header(study), "epsilon spent", *map(in_words, values))
    return Table("Privacy spent, utility, leakage and gaps between groups", header, lines, len(_name_header(study)))


def runs_table(runs: Sequence[Row], study: Study) -> Table:
    columns = (*study.metrics, "epsilon_spent", "seconds")
    lines = [
        (
            keys_of(row),
            [*_names(row, study), str(row["seed"]), *(format_number(row.get(column)) for column in columns)],
        )
        for row in runs
    ]
    header = (*_name_header(study), "seed", *map(in_words, columns))
    return Table("Every finished run", header, lines, len(_name_header(study)))


def _tested(row: Row, names: Sequence[str], values: Iterable[Any]) -> tuple[dict[str, str], list[str]]:
    """A line of a test; what is significant says so in words."""
    found = verdict(row)
    cells = [
        *map(format_number, values),
        with_ends(row, "difference", "low", "high"),
        *(format_number(row[name]) for name in ("p_holm", "p_value", "wilcoxon", "effect", "num_seeds")),
    ]
    words = f"yes, {found}" if found in ("higher", "lower") else found or MISSING
    return {**keys_of(row), "verdict": found}, [*names, words, *cells]


def _name_header(study: Study) -> tuple[str, ...]:
    return ("model", "contestant", "epsilon") if len(study.contestants) > 1 else ("model", "epsilon")


def _names(row: Mapping[str, Any], study: Study) -> list[str]:
    """Cells under `_name_header`."""
    names = [row["model"], row["contestant"]] if len(study.contestants) > 1 else [row["model"]]
    return [*map(str, names), epsilon_text(row["epsilon"])]


def _is_end(name: str, columns: Iterable[str]) -> bool:
    """Whether it is an end of the interval of another column."""
    return any(name in (f"{other}_low", f"{other}_high") for other in columns)
