"""UCI Adult through the whole path, at several epsilons and seeds, beside the real training data.

python benchmarks/adult.py --data-dir FOLDER --json docs/results/adult.json [--epsilons 1] [--quick]

Prints a Markdown table (mean and standard deviation over seeds) and writes every single value as JSON. Each run is a
process of its own, so that its peak memory is its own. Noise and sampling are seeded here (privacy.seed), so that the
table can be made again; such runs are for measurement and never for release.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

EPSILONS = ("0.5", "1", "2", "inf")
SEEDS = (0, 1, 2)
COLUMNS = (
    "logistic_regression_accuracy",
    "logistic_regression_f1",
    "logistic_regression_auc",
    "boosting_auc",
    "pairwise_total_variation",
    "mean_emd",
    "worst_emd",
    "epsilon_spent",
    "training_seconds",
    "run_seconds",
    "peak_memory_gib",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="UCI Adult through the whole path")
    parser.add_argument("--data-dir", required=True, help="folder with adult.data and adult.test")
    parser.add_argument("--json", required=True, help="where to write every value")
    parser.add_argument("--epsilons", default=",".join(EPSILONS), help="comma-separated; default: all")
    parser.add_argument("--quick", action="store_true", help="epsilon 1, one seed, the smoke configuration")
    options = parser.parse_args()
    rows, references = [], {}
    for epsilon in ("1",) if options.quick else options.epsilons.split(","):
        for seed in SEEDS[:1] if options.quick else SEEDS:
            values, reference = one_run(options.data_dir, epsilon, seed, smoke=options.quick)
            references.update(reference)
            rows += [
                {"workload": f"epsilon={epsilon}", "contestant": "autoregressive", "metric": name, "value": value,
                 "seed": seed, "ratio_to": None}
                for name, value in values.items()
            ]  # fmt: skip
            print(f"epsilon {epsilon}, seed {seed}: {values}", file=sys.stderr, flush=True)
            write(options.json, rows, references)
    print(table(rows, references))


def one_run(data_dir: str, epsilon: str, seed: int, *, smoke: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Runs launch.run in a process of its own; returns its metrics and those of the real data."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        started = time.perf_counter()
        command = [
            sys.executable, "-m", "launch.run", f"--config=configs/adult_autoregressive.py{':smoke' if smoke else ''}",
            f"--config.data.dir={data_dir}", f"--config.privacy.epsilon={epsilon}", f"--config.privacy.seed={seed}",
            f"--config.seed={seed}", f"--workdir={workdir}",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        metrics = json.loads((workdir / "private/evaluation/metrics.json").read_text())
        privacy = json.loads((workdir / "release/privacy_report.json").read_text())
        timing = json.loads((workdir / "private/timing.json").read_text())
    whole = {row["metric"]: row for row in metrics if row["column"] is None}
    emd = {row["column"]: row for row in metrics if row["metric"] == "emd"}
    values = {name: whole[name]["value"] for name in COLUMNS if name in whole}
    reference = {name: whole[name]["reference"] for name in COLUMNS if name in whole}
    values["worst_emd"] = max(row["value"] for row in emd.values())
    reference["worst_emd"] = max(row["reference"] for row in emd.values())
    values["epsilon_spent"] = privacy["epsilon"] if privacy["epsilon"] is not None else float("inf")
    values["training_seconds"] = timing["training"]
    values["run_seconds"] = seconds
    # The largest of the finished processes so far: every run here does the same work.
    values["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return values, reference


def write(path: str, rows: list[dict], references: dict[str, float]) -> None:
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version()}
    content = {"host": host, "date": datetime.now(UTC).date().isoformat(), "rows": rows, "real_data": references}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=1, default=str).replace("Infinity", "null") + "\n")


def table(rows: list[dict], references: dict[str, float]) -> str:
    """Markdown: one line per epsilon, mean ± standard deviation over seeds; the last line is the real data."""
    lines = ["| epsilon | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for workload in dict.fromkeys(row["workload"] for row in rows):
        cells = []
        for name in COLUMNS:
            values = np.array([row["value"] for row in rows if (row["workload"], row["metric"]) == (workload, name)])
            spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 and np.isfinite(values).all() else ""
            cells.append(f"{values.mean():.4g}{spread}")
        lines.append(f"| {workload.removeprefix('epsilon=')} | " + " | ".join(cells) + " |")
    real = [f"{references[name]:.4g}" if name in references else "" for name in COLUMNS]
    return "\n".join([*lines, "| real data | " + " | ".join(real) + " |"])


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
