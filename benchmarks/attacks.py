"""Every attack that needs records only, on what configs release: members against held-out controls.

python benchmarks/attacks.py --data-dir FOLDER --json docs/results/attacks.json --configs adult_ctgan,mnist_dcgan \
    [--epsilons 1,inf] [--seeds 0,1,2] [--quick]

FOLDER holds a folder for every data set, by its name. Each run is a process of its own, without metrics of utility; its
noise is seeded (privacy.seed), so that the table can be made again; such runs are for measurement and never for
release. Rows of configs that are measured replace theirs in the JSON file; the others stay.

Beside the releases of generators stands the worst of all: the training records as they are, attacked in the same way.
An attack that does not find those out says nothing by finding nothing elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from adult import cpu_model

sys.path.insert(0, str(Path(__file__).parents[1]))

from privsyn_jax.evaluation.attacks import report_to_dict
from privsyn_jax.evidence import Finished, open_finished

COPIES = "training records themselves"
SHOWN = ("auc", "advantage", "share_nearer_than_1_percent", "tpr_at_fpr_0.01")  # and the first of an attack's


def main() -> None:
    parser = argparse.ArgumentParser(description="attacks on what configs release")
    parser.add_argument("--data-dir", required=True, help="folder with a folder for every data set, by its name")
    parser.add_argument("--json", required=True, help="where to write every value")
    parser.add_argument("--configs", required=True, help="comma-separated names of configs, without configs/ and .py")
    parser.add_argument("--epsilons", default="1,inf")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--quick", action="store_true", help="the smoke configuration")
    options = parser.parse_args()
    for name in options.configs.split(","):
        for seed in map(int, options.seeds.split(",")):
            for epsilon in options.epsilons.split(","):
                data = name.partition("_")[0]
                with tempfile.TemporaryDirectory() as folder:
                    workdir = Path(folder) / "run"
                    trained(options, name, epsilon, seed, workdir)
                    with open_finished(workdir, {}) as run:
                        write(options.json, data, f"{name}, epsilon {epsilon}", seed, attacked(run, run.synthetic))
                        if not is_known(options.json, data, seed):
                            write(options.json, data, COPIES, seed, attacked(run, run.train))
    print(tables(json.loads(Path(options.json).read_text())["rows"]))


def trained(options: argparse.Namespace, name: str, epsilon: str, seed: int, workdir: Path) -> None:
    command = [
        sys.executable, "-m", "launch.run", f"--config=configs/{name}.py{':smoke' if options.quick else ''}",
        f"--config.data.dir={options.data_dir}/{name.partition('_')[0]}", f"--config.privacy.epsilon={epsilon}",
        f"--config.privacy.seed={1000 + seed}", f"--config.seed={seed}", "--config.evaluation.enabled=False",
        "--config.attacks.enabled=False", f"--workdir={workdir}",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def attacked(run: Finished, released: Any) -> dict[str, Any]:
    """What all attacks found on records that a run released, or might have; see `report_to_dict`."""
    report = run.modality.attack(run.schema, run.train, run.test, released, seed=run.settings.seed)
    return report_to_dict(report)


def is_known(path: str, data: str, seed: int) -> bool:
    rows = json.loads(Path(path).read_text())["rows"]
    return any((row["data"], row["release"], row["seed"]) == (data, COPIES, seed) for row in rows)


def write(path: str, data: str, release: str, seed: int, report: dict[str, Any]) -> None:
    file, mine = Path(path), (data, release, seed)
    rows = json.loads(file.read_text())["rows"] if file.is_file() else []
    rows = [row for row in rows if (row["data"], row["release"], row["seed"]) != mine]
    date = datetime.now(UTC).date().isoformat()
    rows += [
        {"data": data, "release": release, "seed": seed, "date": date, "attack": found["name"], "metric": metric,
         "value": interval["value"], "low": interval["low"], "high": interval["high"],
         "baseline": found["baseline"][metric], "is_detected": found["is_detected"]}
        for found in report["results"] for metric, interval in found["metrics"].items()
    ]  # fmt: skip
    for sentence in report["skipped"]:
        print(f"{release}, seed {seed}: {sentence}", file=sys.stderr, flush=True)
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"host": host, "date": date, "rows": rows}, indent=1) + "\n")


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown, a table for each data set: mean over seeds, and in how many of them the attack found something."""
    return "\n\n".join(
        table([row for row in rows if row["data"] == data]) for data in dict.fromkeys(row["data"] for row in rows)
    )


def table(rows: list[dict[str, Any]]) -> str:
    releases = sorted(dict.fromkeys(row["release"] for row in rows), key=lambda release: release == COPIES)
    lines = [
        f"| {rows[0]['data']} | knowing nothing | " + " | ".join(releases) + " |",
        "|---" * (len(releases) + 2) + "|",
    ]
    for attack, metric in dict.fromkeys((row["attack"], row["metric"]) for row in rows):
        of_metric = [row for row in rows if (row["attack"], row["metric"]) == (attack, metric)]
        is_first = metric == next(row["metric"] for row in rows if row["attack"] == attack)
        if is_first or metric in SHOWN:
            cells = [_cell([row for row in of_metric if row["release"] == release], is_first) for release in releases]
            lines.append(f"| {attack}, {metric} | {of_metric[0]['baseline']:.3g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: list[dict[str, Any]], with_detections: bool) -> str:
    if not rows:
        return ""
    found = sum(row["is_detected"] for row in rows)
    detections = f" (found in {found} of {len(rows)})" if with_detections and found else ""
    return f"{np.mean([row['value'] for row in rows]):.3f}{detections}"


if __name__ == "__main__":
    main()
