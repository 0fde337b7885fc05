"""What epsilon of a schedule costs to compute, here and by dp-accounting's accountants, and what calibration costs.

python benchmarks/accounting.py --json docs/results/accounting.json [--quick]

Prints Markdown tables and writes every value as JSON. Schedules have 1, 8 or 16 levels of noise, from 1 down to a half,
scaled to epsilon 1 at delta 1e-5. Seconds are processor seconds, with nothing remembered from before.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import dp_accounting
from adult import cpu_model
from dp_accounting import pld, rdp

from privsyn_jax.privacy import accounting, calibration, renyi

DELTA = 1e-5
RATES = (256 / 60_000, 0.06)
STEPS = (1_000, 10_000, 100_000, 1_000_000)
LEVELS = (1, 8, 16)
TARGETS = (0.1, 0.5, 1.0, 2.0, 8.0)
GRIDS = (1e-3, 1e-4, 1e-5)


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds of privacy accounting")
    parser.add_argument("--json", required=True, help="where to write every value")
    parser.add_argument("--quick", action="store_true", help="1000 steps, one level, two targets")
    options = parser.parse_args()
    os.environ["PRIVSYN_CACHE_DIR"] = ""
    composed, calibrated = [], []
    for num_levels in LEVELS[:1] if options.quick else LEVELS:
        for num_steps in STEPS[:1] if options.quick else STEPS:
            composed += compose(num_steps, num_levels)
            print(composed[-6:], file=sys.stderr, flush=True)
    for rate in RATES:
        for target in TARGETS[1:3] if options.quick else TARGETS:
            calibrated += calibrate(rate, target, num_levels=1 if options.quick else 16)
    grids = [row for target in TARGETS for row in compare_grids(target)]
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version()}
    host["dp-accounting"] = importlib.metadata.version("dp-accounting")
    content = {"host": host, "date": datetime.now(UTC).date().isoformat(), "rows": composed + calibrated + grids}
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(content, indent=1) + "\n")
    print(table(composed, ("epsilon", "seconds")), end="\n\n")
    print(table(calibrated, ("seconds", "spent", "scale")), end="\n\n")
    print(table(grids, ("epsilon",)))


def compose(num_steps: int, num_levels: int) -> list[dict]:
    """Epsilon of one schedule, and its cost, by each contestant."""
    levels = schedule(RATES[0], num_steps, num_levels)
    events = calibration.level_events(levels, calibration.calibrate_scale([], levels, 1.0, DELTA))

    def ours():
        forget()
        return accounting.epsilon_of(events, DELTA)

    contestants: dict[str, Callable[[], float]] = {
        "privsyn_jax": ours,
        "dp-accounting PLD": lambda: theirs(pld.PLDAccountant(value_discretization_interval=accounting.FINE), events),
        "dp-accounting RDP": lambda: theirs(rdp.RdpAccountant(renyi.ORDERS), events),
    }
    rows = []
    for name, contestant in contestants.items():
        epsilon, seconds = timed(contestant)
        rows += result(f"steps={num_steps} levels={num_levels}", name, epsilon=epsilon, seconds=seconds)
    return rows


def calibrate(rate: float, target: float, *, num_levels: int) -> list[dict]:
    """The scale of a schedule of 100,000 steps that spends the target, what it spends, and the cost of finding it."""
    levels = schedule(rate, 100_000, num_levels)
    forget()
    scale, seconds = timed(lambda: calibration.calibrate_scale([], levels, target, DELTA))
    spent = accounting.epsilon_of(calibration.level_events(levels, scale), DELTA)
    workload = f"rate={rate:.4g} levels={num_levels} epsilon={target:g}"
    return result(workload, "privsyn_jax", seconds=seconds, spent=spent / target, scale=scale)


def compare_grids(target: float) -> list[dict]:
    """Epsilon of 100,000 equal steps, calibrated to the target, on coarser and finer grids: what rounding adds."""
    levels = schedule(RATES[0], 100_000, 1)
    events = calibration.level_events(levels, calibration.calibrate_scale([], levels, target, DELTA))
    return [
        row
        for grid in GRIDS
        for row in result(
            f"rate={RATES[0]:.4g} levels=1 epsilon={target:g}",
            f"grid {grid:g}",
            epsilon=accounting.epsilon_of(events, DELTA, discretization=grid),
        )
    ]


def schedule(rate: float, num_steps: int, num_levels: int) -> list[calibration.Level]:
    """Levels of equal length, the noise falling geometrically from 1 to a half."""
    cuts = [num_steps * number // num_levels for number in range(num_levels + 1)]
    noises = [0.5 ** (number / max(1, num_levels - 1)) for number in range(num_levels)]
    return [(rate, noise, stop - start) for noise, start, stop in zip(noises, cuts, cuts[1:], strict=False)]


def theirs(accountant: dp_accounting.PrivacyAccountant, events: Sequence[accounting.Event]) -> float:
    for event in events:
        step = dp_accounting.GaussianDpEvent(event["noise_multiplier"])
        accountant.compose(dp_accounting.PoissonSampledDpEvent(event["sampling_rate"], step), event["count"])
    return float(accountant.get_epsilon(DELTA))


def forget() -> None:
    accounting._distributions.cache_clear()
    accounting._total_of.cache_clear()
    calibration._calibrate.cache_clear()


def timed(function: Callable[[], float]) -> tuple[float, float]:
    started = time.process_time()
    value = function()
    return value, time.process_time() - started


def result(workload: str, contestant: str, **metrics: float) -> list[dict]:
    common = {"workload": workload, "contestant": contestant}
    return [{**common, "metric": name, "value": value, "ratio_to": None} for name, value in metrics.items()]


def table(rows: list[dict], metrics: Sequence[str]) -> str:
    """Markdown: a line per workload, a column per contestant and metric."""
    values = {(row["workload"], row["contestant"], row["metric"]): row["value"] for row in rows}
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    columns = [(contestant, metric) for metric in metrics for contestant in contestants]
    heads = [f"{metric}, {contestant}" if len(contestants) > 1 else metric for contestant, metric in columns]
    lines = ["| schedule | " + " | ".join(heads) + " |", "|---" * (len(columns) + 1) + "|"]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        lines.append(f"| {workload} | " + " | ".join(f"{values[workload, *column]:.4g}" for column in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
