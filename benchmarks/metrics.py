"""Seconds of all fidelity metrics of a table of a million rows, and the same values from SDMetrics.

python benchmarks/metrics.py --json docs/results/metrics.json [--sdmetrics-python PYTHON] [--quick]

Prints a Markdown table and writes it beside the JSON of every value. Tables are made here by seed: 7 numeric columns
(one misses values) and 8 categorical ones of 2 to 40 strings (one misses values).

  all table metrics   `evaluation.distances.fidelity_rows`, from DataFrames: training and synthetic rows, and a quarter
                      as many held-out ones for the reference; a first call, which compiles, and a second, both
                      after the imports (as SDMetrics is timed)
  equivalents         what SDMetrics has too, on training and synthetic rows only: KSComplement, StatisticSimilarity
                      (mean, std), TVComplement, MissingValueSimilarity, CorrelationSimilarity (Pearson, Spearman),
                      ContingencySimilarity of all pairs

Each contestant has a process of its own; ours uses up to four threads, SDMetrics one; processor seconds are those of
all threads. SDMetrics is handed our bins of numbers for ContingencySimilarity, so that
values compare; binning is not in its time, but is in ours. Values are not compared where definitions differ:
TVComplement leaves missing values out (here they are a level); Spearman's ranks there are of the rows where both
columns are present (here of the column); its std divides by n - 1 (here n), which is below the tolerance. SDMetrics
needs an older pandas than privsyn_jax, hence an interpreter of its own: python -m venv FOLDER && FOLDER/bin/pip install
sdmetrics. Without it, that contestant is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SIZES = (100_000, 1_000_000)
QUICK_SIZES = (20_000,)
SEED = 0
NUMERIC = ("age", "hours", "gain", "score", "weight", "distance", "income")
LEVELS = {"sex": 2, "member": 2, "race": 5, "marital": 7, "work": 8, "job": 14, "school": 16, "country": 40}
MISSING = ("distance", "work")
Values = dict[str, dict[str, float]]  # metric -> column or pair -> value in [0, 1], as SDMetrics gives it


def make_table(num_rows: int, seed: int, shift: float) -> pd.DataFrame:
    """A table of mixed columns that hang together; `shift` moves its distribution."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(shift, 1.0, num_rows)
    noise = lambda: rng.normal(size=num_rows)  # noqa: E731
    columns: dict[str, Any] = {
        "age": (40 + 10 * factor + 8 * noise()).round().clip(17, 90),
        "hours": (40 + 3 * factor + 10 * noise()).round().clip(1, 99),
        "gain": np.where(factor + noise() > 2, np.exp(8 + factor).round(), 0.0).clip(0, 99_999),
        "score": 0.5 + 1e-3 * np.tanh(factor + noise()),
        "weight": rng.gamma(3 + shift, 60_000.0, num_rows).clip(0, 1.5e6),
        "distance": np.where(rng.random(num_rows) < 0.05 + shift / 10, np.nan, np.abs(noise())),
        "income": np.exp(10 + 0.5 * factor + 0.3 * noise()),
    }
    for name, num_levels in LEVELS.items():
        place = (factor + 1.5 * noise() + 4) / 8 * num_levels
        codes = place.astype(int).clip(0, num_levels - 1)
        labels = np.array([f"{name} {level}" for level in range(num_levels)], object)[codes]
        if name in MISSING:
            labels[rng.random(num_rows) < 0.03] = None
        columns[name] = labels
    return pd.DataFrame(columns)


def tables(num_rows: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Training, held-out and synthetic rows."""
    return (
        make_table(num_rows, SEED, 0.0),
        make_table(num_rows // 4, SEED + 1, 0.0),
        make_table(num_rows, SEED + 2, 0.05),
    )


class Laps:
    """Seconds and processor seconds of named parts."""

    def __init__(self):
        self.seconds: dict[str, tuple[float, float]] = {}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        started, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[name] = time.perf_counter() - started, time.process_time() - cpu
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds of fidelity metrics")
    parser.add_argument("--json", required=True, help="where to write every value; the table goes beside it, as .md")
    parser.add_argument("--sdmetrics-python", default=sys.executable, help="an interpreter that can import sdmetrics")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZES[0]} rows only")
    parser.add_argument("--measure", nargs=3, metavar=("CONTESTANT", "ROWS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        contestant, num_rows, folder = options.measure
        print(json.dumps(CONTESTANTS[contestant](int(num_rows), Path(folder))))
        return
    rows: list[dict[str, Any]] = []
    versions = {"pandas": pd.__version__}
    for num_rows in QUICK_SIZES if options.quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            found = {name: in_process(name, num_rows, folder, options) for name in CONTESTANTS}
        versions |= {key: value for one in found.values() if one for key, value in one.get("versions", {}).items()}
        rows += rows_of(num_rows, found)
        print(f"{num_rows} rows done", file=sys.stderr, flush=True)
    write(options, rows, versions)


def in_process(contestant: str, num_rows: int, folder: str, options: argparse.Namespace) -> dict[str, Any] | None:
    python = options.sdmetrics_python if contestant == "SDMetrics" else sys.executable
    if contestant == "SDMetrics" and subprocess.run([python, "-c", "import sdmetrics"], capture_output=True).returncode:
        print(f"{python} cannot import sdmetrics: left out", file=sys.stderr)
        return None
    command = [python, __file__, "--json", "", "--measure", contestant, str(num_rows), folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{contestant} of {num_rows} rows: failed\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _schema_columns():
    from privsyn_jax.types import Column

    numeric = [Column(name, "numeric", nullable=name in MISSING) for name in NUMERIC]  # bounds: the real extremes
    categories = {name: tuple(f"{name} {level}" for level in range(size)) for name, size in LEVELS.items()}
    return numeric + [Column(name, "categorical", categories=categories[name]) for name in LEVELS]


def measure_all(num_rows: int, folder: Path) -> dict[str, Any]:
    """All table metrics, twice."""
    import jax

    from privsyn_jax.evaluation.distances import fidelity_rows
    from privsyn_jax.evaluation.encode import Tables, encode_tables

    frames, laps = tables(num_rows), Laps()

    def everything():
        levels, encoded = encode_tables(_schema_columns(), frames)
        return fidelity_rows(levels, Tables(*encoded), target=None, seed=SEED)[0]

    rows = laps.time("first call", everything)
    laps.time("second call", everything)
    if rows.skipped:
        raise SystemExit(f"not measured: {rows.skipped}")
    return {"seconds": laps.seconds, "num_values": len(rows.metrics), "versions": {"jax": jax.__version__}}


def measure_equivalents(num_rows: int, folder: Path) -> dict[str, Any]:
    """What SDMetrics has too, twice; the bins go to the folder."""
    import privsyn_jax.evaluation.distances  # noqa: F401  imports are not timed, here as for SDMetrics

    train, _, synthetic = tables(num_rows)
    laps, values = Laps(), {}
    for call in ("first call", "second call"):
        values, bins = laps.time(call, lambda: equivalents(train, synthetic))
    np.savez(folder / "bins.npz", train=bins[0], synthetic=bins[1])
    return {"seconds": laps.seconds, "values": values}


def equivalents(train: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[Values, tuple[np.ndarray, np.ndarray]]:
    from privsyn_jax.evaluation import fidelity
    from privsyn_jax.evaluation.column_distances import distribution_distances, moments_of
    from privsyn_jax.evaluation.encode import Tables, encode_tables, level_counts
    from privsyn_jax.evaluation.ordering import average_ranks, order_column
    from privsyn_jax.evaluation.pair_distances import correlations, pair_counts
    from privsyn_jax.evaluation.threads import in_threads

    names, numeric = [*NUMERIC, *LEVELS], range(len(NUMERIC))
    levels, (real, other) = encode_tables(_schema_columns(), (train, synthetic))
    num_codes = tuple(one.num_codes for one in levels)
    ordered = in_threads(lambda i: order_column(Tables(real.scaled[:, i], np.zeros(0), other.scaled[:, i])), numeric)
    smirnov = distribution_distances(ordered)["kolmogorov_smirnov"][:, 0]
    values: Values = {"KSComplement": dict(zip(NUMERIC, (1 - smirnov).tolist(), strict=True))}
    ranks = [np.empty((len(table.codes), len(numeric)), order="F") for table in (real, other)]
    for table, which in zip(ranks, ("train", "synthetic"), strict=True):
        for i, column in enumerate(ordered):
            table[:, i] = average_ranks(getattr(column.positions, which), getattr(column.counts, which))
    moments = [moments_of(table, numeric) for table in (real, other)]
    for statistic, moment in (("mean", "mean"), ("std", "stddev")):
        difference = np.abs(np.diff([np.asarray(getattr(one, moment), float) for one in moments], axis=0)[0])
        values[f"StatisticSimilarity, {statistic}"] = dict(zip(NUMERIC, (1 - difference).tolist(), strict=True))
    histograms = [level_counts(table.codes, max(num_codes)) for table in (real, other)]
    variation = np.asarray(fidelity.total_variation(*histograms), float)
    values["TVComplement"] = {name: 1 - variation[names.index(name)] for name in LEVELS if name not in MISSING}
    missing = [
        counts[range(len(names)), np.array(num_codes) - 1] / len(table.codes)
        for counts, table in zip(histograms, (real, other), strict=True)
    ]
    values["MissingValueSimilarity"] = dict(zip(names, (1 - np.abs(missing[0] - missing[1])).tolist(), strict=True))
    numbers = [table.scaled[:, : len(NUMERIC)] for table in (real, other)]
    for coefficient, pair in (("Pearson", numbers), ("Spearman", ranks)):
        found = [correlations(table) for table in pair]
        similarity = 1 - np.abs(found[1] - found[0]) / 2
        values[f"CorrelationSimilarity, {coefficient}"] = {
            f"{a}, {b}": similarity[NUMERIC.index(a), NUMERIC.index(b)]
            for a, b in itertools.combinations(NUMERIC, 2)
            if coefficient == "Pearson" or not {a, b} & set(MISSING)
        }
    pairs = [pair_counts(table.codes, num_codes) for table in (real, other)]
    variation = np.asarray(fidelity.pairwise_total_variation(*pairs, num_codes), float)
    values["ContingencySimilarity"] = {
        f"{names[i]}, {names[j]}": 1 - variation[i, j] for i, j in itertools.combinations(range(len(names)), 2)
    }
    return values, (real.codes[:, numeric], other.codes[:, numeric])


def measure_sdmetrics(num_rows: int, folder: Path) -> dict[str, Any]:
    import sdmetrics  # pyright: ignore[reportMissingImports]
    from sdmetrics.column_pairs import (  # pyright: ignore[reportMissingImports]
        ContingencySimilarity,
        CorrelationSimilarity,
    )
    from sdmetrics.single_column import (  # pyright: ignore[reportMissingImports]
        KSComplement,
        MissingValueSimilarity,
        StatisticSimilarity,
        TVComplement,
    )

    warnings.simplefilter("ignore")
    train, _, synthetic = tables(num_rows)
    bins = np.load(folder / "bins.npz")
    names = [*NUMERIC, *LEVELS]
    binned = [frame.copy() for frame in (train, synthetic)]
    for frame, codes in zip(binned, (bins["train"], bins["synthetic"]), strict=True):
        frame[list(NUMERIC)] = codes
    laps, values = Laps(), {}

    def of_columns(metric, chosen, **settings):
        return {name: metric.compute(train[name], synthetic[name], **settings) for name in chosen}

    def of_pairs(metric, chosen, frames, **settings):
        pairs = [list(pair) for pair in itertools.combinations(chosen, 2)]
        return {", ".join(pair): metric.compute(*(frame[pair] for frame in frames), **settings) for pair in pairs}

    raw = (train, synthetic)
    spearman = {"coefficient": "Spearman"}
    works = {
        "KSComplement": lambda: of_columns(KSComplement, NUMERIC),
        "StatisticSimilarity, mean": lambda: of_columns(StatisticSimilarity, NUMERIC, statistic="mean"),
        "StatisticSimilarity, std": lambda: of_columns(StatisticSimilarity, NUMERIC, statistic="std"),
        "TVComplement": lambda: of_columns(TVComplement, LEVELS),
        "MissingValueSimilarity": lambda: of_columns(MissingValueSimilarity, names),
        "CorrelationSimilarity, Pearson": lambda: of_pairs(CorrelationSimilarity, NUMERIC, raw, coefficient="Pearson"),
        "CorrelationSimilarity, Spearman": lambda: of_pairs(CorrelationSimilarity, NUMERIC, raw, **spearman),
        "ContingencySimilarity": lambda: of_pairs(ContingencySimilarity, names, binned),
    }  # fmt: skip
    for metric, work in works.items():
        values[metric] = {key: float(value) for key, value in laps.time(metric, work).items()}
    versions = {"sdmetrics": sdmetrics.__version__, "pandas of sdmetrics": pd.__version__}
    return {"seconds": laps.seconds, "values": values, "versions": versions}


CONTESTANTS = {"all table metrics": measure_all, "equivalents": measure_equivalents, "SDMetrics": measure_sdmetrics}


def rows_of(num_rows: int, found: dict[str, dict[str, Any] | None]) -> list[dict[str, Any]]:
    rows = []

    def add(contestant, metric, value, ratio_to=None):
        common = {"workload": f"{num_rows} rows", "contestant": contestant, "metric": metric}
        rows.append({**common, "value": value, "ratio_to": ratio_to})

    for contestant, result in found.items():
        for part, (seconds, cpu_seconds) in (result["seconds"] if result else {}).items():
            add(contestant, f"{part}: seconds", seconds)
            add(contestant, f"{part}: processor seconds", cpu_seconds)
    add("all table metrics", "number of values", found["all table metrics"]["num_values"])  # type: ignore[index]
    ours, theirs = found["equivalents"], found["SDMetrics"]
    if ours and theirs:
        total = np.sum(list(theirs["seconds"].values()), axis=0)
        for index, unit in enumerate(("seconds", "processor seconds")):
            add("SDMetrics", f"total: {unit}", float(total[index]))
            for call, spent in ours["seconds"].items():
                add("equivalents", f"{call}: {unit}", float(total[index] / spent[index]), ratio_to="SDMetrics")
        for metric, values in ours["values"].items():
            gaps = [abs(value - theirs["values"][metric][key]) for key, value in values.items()]
            add("equivalents", f"{metric}: largest difference of {len(gaps)} values", max(gaps), ratio_to="SDMetrics")
    return rows


def write(options: argparse.Namespace, rows: list[dict[str, Any]], versions: dict[str, str]) -> None:
    from adult import cpu_model

    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version(), **versions}
    load, date = os.getloadavg()[2], datetime.now(UTC).date().isoformat()
    content = {"host": {**host, "load_of_15_minutes": load}, "date": date, "seed": SEED, "rows": rows}
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    with_versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    python = " --sdmetrics-python PYTHON" * (options.sdmetrics_python != sys.executable)
    text = f"""# Fidelity metrics of large tables

```bash
python benchmarks/metrics.py --json {options.json}{python}{" --quick" * options.quick}
```

{date}, {host["cpu_count"]} cores of {host["cpu"]}, no GPU; {load:.1f} processes wanted to run on average, this one
included: where that is more than the cores, processor seconds say more than seconds.
{with_versions}. Seed {SEED}.

What is timed, and how, is in the benchmark's first lines; every value is in `{path.name}`. A ratio is SDMetrics' time
divided by ours; differences are of values in [0, 1].

{table(rows)}
"""
    path.with_suffix(".md").write_text(text)
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| table | contestant | metric | value |", "|---|---|---|---|"]
    for row in rows:
        value, metric = row["value"], row["metric"]
        if "difference" in metric:
            shown = f"{value:.1e}"
        elif row["ratio_to"]:
            metric, shown = f"{metric}, SDMetrics ÷ it", f"{value:.1f}×"
        else:
            shown = str(value) if isinstance(value, int) else f"{value:.{2 if value < 10 else 1}f}"
        if not math.isfinite(value):
            raise SystemExit(f"{row} is not finite")
        lines.append(f"| {row['workload']} | {row['contestant']} | {metric} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
