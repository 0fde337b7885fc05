"""Configs through the whole path, by what benchmarks of a modality measure: shared by images.py and texts.py.

Each run is a process of its own. Rows of configs that are measured replace theirs in the JSON file; the others stay.
Noise is seeded here (privacy.seed), so that the table can be made again; such runs are for measurement and never for
release.
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
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from adult import cpu_model

COST_COLUMNS = ("epsilon_spent", "training_seconds", "run_seconds", "peak_memory_gib")


def main(description: str, columns: Sequence[str]) -> None:
    """Parses the command line, runs, writes and prints.

    Args:
      description: of the program.
      columns: metrics to keep, besides COST_COLUMNS.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data-dir", required=True, help="folder with a folder for every data set, by its name")
    parser.add_argument("--json", required=True, help="where to write every value")
    parser.add_argument("--configs", required=True, help="comma-separated names of configs, without configs/ and .py")
    parser.add_argument("--epsilons", default="0.5,1,2,10,inf")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--size", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--quick", action="store_true", help="the smoke configuration")
    parser.add_argument("--references", default="", help="folder for scores of models trained on real records")
    options = parser.parse_args()
    for name in options.configs.split(","):
        for epsilon in options.epsilons.split(","):
            for seed in map(int, options.seeds.split(",")):
                found = one_run(options, name, epsilon, seed, columns)
                print(f"{name}, epsilon {epsilon}, seed {seed}: {found}", file=sys.stderr, flush=True)
                write(options.json, name, epsilon, seed, found)
    print(table(json.loads(Path(options.json).read_text())["rows"], columns))


def one_run(
    options: argparse.Namespace, name: str, epsilon: str, seed: int, columns: Sequence[str]
) -> dict[str, tuple[float, float | None]]:
    """{metric: (value, the same for real data)} of launch.run in a process of its own."""
    words = ",".join([options.size, f"epsilon={epsilon}", *(["smoke"] if options.quick else [])])
    with tempfile.TemporaryDirectory() as folder:
        workdir, started = Path(folder) / "run", time.perf_counter()
        command = [
            sys.executable, "-m", "launch.run", f"--config=configs/{name}.py:{words}", f"--workdir={workdir}",
            f"--config.data.dir={options.data_dir}/{name.partition('_')[0]}",
            f"--config.privacy.seed={1000 + seed}", f"--config.seed={seed}",
            f"--config.evaluation.references={options.references}",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        metrics = json.loads((workdir / "private/evaluation/metrics.json").read_text())
        privacy = json.loads((workdir / "release/privacy_report.json").read_text())
        timing = json.loads((workdir / "private/timing.json").read_text())
    whole = {row["metric"]: (row["value"], row["reference"]) for row in metrics if row["column"] is None}
    found = {column: whole[column] for column in columns if column in whole}
    found["epsilon_spent"] = (privacy["epsilon"] if privacy["epsilon"] is not None else float("inf"), None)
    found["training_seconds"], found["run_seconds"] = (timing["training"], None), (seconds, None)
    # The largest of the finished processes so far.
    found["peak_memory_gib"] = (resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, None)
    return found


def write(path: str, name: str, epsilon: str, seed: int, found: dict[str, tuple[float, float | None]]) -> None:
    file, workload = Path(path), f"{name}, epsilon {epsilon}"
    rows = json.loads(file.read_text())["rows"] if file.is_file() else []
    rows = [row for row in rows if (row["workload"], row["seed"]) != (workload, seed)]
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version()}
    date = datetime.now(UTC).date().isoformat()
    rows += [
        {"workload": workload, "contestant": name, "metric": metric, "value": value, "real": real, "seed": seed,
         "date": date, "ratio_to": None}
        for metric, (value, real) in found.items()
    ]  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"host": host, "date": date, "rows": rows}
    file.write_text(json.dumps(content, indent=1).replace("Infinity", "null") + "\n")


def table(rows: list[dict], columns: Sequence[str]) -> str:
    """Markdown: one line per workload, mean ± standard deviation over seeds; last the real data."""
    columns = (*columns, *COST_COLUMNS)
    lines = ["| | " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        lines.append(_line(workload, [row for row in rows if row["workload"] == workload], "value", columns))
    for data in dict.fromkeys(row["contestant"].partition("_")[0] for row in rows):
        real = [row for row in rows if row["contestant"].startswith(data)]
        lines.append(_line(f"real {data}", real, "real", columns))
    return "\n".join(lines)


def _line(name: str, rows: list[dict], which: str, columns: Sequence[str]) -> str:
    cells = []
    for column in columns:
        values = [row[which] for row in rows if row["metric"] == column and row[which] is not None]
        spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 and which == "value" else ""
        cells.append(f"{np.mean(values):.4g}{spread}" if values else "")
    return f"| {name} | " + " | ".join(cells) + " |"
