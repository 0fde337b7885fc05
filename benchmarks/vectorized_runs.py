"""Many seeds of a training run on UCI Adult, together in one program by vmap, and one after the other.

python benchmarks/vectorized_runs.py --data-dir FOLDER --json docs/results/vectorized_runs.json [--quick]

Prints a Markdown table and writes every value as JSON. What is timed is what `launch.study` does of a run before it is
sampled: buying bins, compiling, training; each contestant in a process of its own, so that its peak memory is its own.
Contestants take turns, and the ratio is of the medians of wall-clock seconds. "one by one" is a worker of a study that
shares compiled programs through a cache on disk, filled beforehand; "one by one, compiling" has no such cache.
Processes start and read the table before the clock starts. Noise is seeded: such runs are for measurement only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adult import cpu_model

NUM_RUNS = 32
CONTESTANTS = ("vmap", "one by one", "one by one, compiling")


@dataclasses.dataclass(frozen=True)
class Workload:
    """Changes to a configuration of Adult, by dotted path."""

    name: str
    config: str
    changes: dict[str, Any]
    repeats: int


_PUBLIC = {"transform.edges": "public", "privacy.budget.marginals": 0.0, "model.column_order": ()}
_SMALL = {"model.hidden_dims": (32,), "model.latent_dim": 4}
WORKLOADS = (
    Workload(
        "VAE of width 32, batch 64, 200 steps",
        "adult_tvae",
        {**_PUBLIC, **_SMALL, "training.num_steps": 200, "training.expected_batch_size": 64},
        repeats=3,
    ),
    Workload(
        "VAE, batch 256, 200 steps",
        "adult_tvae",
        {**_PUBLIC, "training.num_steps": 200, "training.expected_batch_size": 256},
        repeats=3,
    ),
    Workload(
        "VAE, batch 256, 200 steps, purchased bins",
        "adult_tvae",
        {"training.num_steps": 200, "training.expected_batch_size": 256},
        repeats=1,
    ),
    Workload(
        "transformer, batch 2048, 20 steps",
        "adult_autoregressive",
        {**_PUBLIC, "training.num_steps": 20},
        repeats=1,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="many training runs in one program")
    parser.add_argument("--data-dir", required=True, help="folder with adult.data and adult.test")
    parser.add_argument("--json", required=True, help="where to write every value")
    parser.add_argument("--quick", action="store_true", help="4 runs of the first workload, once")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--workload", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--num-runs", type=int, default=NUM_RUNS, help="runs that are compared")
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(measure(WORKLOADS[options.workload], options)))
        return
    num_runs = 4 if options.quick else options.num_runs
    rows = []
    for number, workload in enumerate(WORKLOADS[:1] if options.quick else WORKLOADS):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
        for _ in range(1 if options.quick else workload.repeats):
            for name in CONTESTANTS:
                found[name].append(in_process(number, name, num_runs, options))
                print(workload.name, name, found[name][-1], file=sys.stderr, flush=True)
        rows += rows_of(workload, found)
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version(), "runs": num_runs}
    content = {"host": host, "date": datetime.now(UTC).date().isoformat(), "rows": rows}
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(content, indent=1) + "\n")
    print(table(rows))


def in_process(number: int, contestant: str, num_runs: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--data-dir", options.data_dir, "--json", "", "--workload", str(number)]
    command += ["--contestant", contestant, "--num-runs", str(num_runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(workload: Workload, options: argparse.Namespace) -> dict[str, float]:
    """Seconds and memory of one contestant, in this process."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import importlib

    from privsyn_jax.run import prepare
    from privsyn_jax.settings import settings_from_dict
    from privsyn_jax.study.jobs import read_records, share_compiled_programs
    from privsyn_jax.study.plan import override
    from privsyn_jax.workdir import plain

    config = importlib.import_module(f"configs.{workload.config}").get_config().to_dict()
    changes = {**workload.changes, "data.dir": options.data_dir}
    runs = [
        plain(settings_from_dict(override(config, {**changes, "seed": n, "privacy.seed": 1000 + n})).to_dict())
        for n in range(options.num_runs)
    ]
    first = settings_from_dict(runs[0])
    schema, _ = prepare(first)  # finds the noise, which all runs share
    records = read_records(first.data, schema)
    with tempfile.TemporaryDirectory() as folder:
        if options.contestant == "one by one":
            share_compiled_programs(folder)
            one_by_one(runs[:1], records, Path(folder) / "before")
        started, cpu = time.perf_counter(), time.process_time()
        work = together if options.contestant == "vmap" else one_by_one
        work(runs, records, Path(folder) / "private")
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_memory_gib": memory}


def one_by_one(runs: list[dict[str, Any]], records: Any, folder: Path) -> None:
    from privsyn_jax.learn import learn
    from privsyn_jax.run import prepare
    from privsyn_jax.settings import settings_from_dict
    from privsyn_jax.training.attempt import open_attempt
    from privsyn_jax.training.processes import Leader

    for number, settings in enumerate(runs):
        checked = settings_from_dict(settings)
        schema, plan = prepare(checked)
        private = folder / str(number)
        private.mkdir(parents=True)
        with open_attempt(private, checked, leader=Leader(), announce=print) as attempt:
            learn(records.train, schema, plan, checked, attempt)


def together(runs: list[dict[str, Any]], records: Any, folder: Path) -> None:
    from privsyn_jax.study.together import make_ready, train

    alike: dict[tuple[int, ...], list[Any]] = {}
    for number, settings in enumerate(runs):
        private = folder / str(number)
        private.mkdir(parents=True)
        ready = make_ready(settings, records, private, runs)
        alike.setdefault(ready.bought.transform.cardinalities, []).append(ready)
    for part in alike.values():
        train(part)


def rows_of(workload: Workload, found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    medians = {
        name: {metric: statistics.median(one[metric] for one in values) for metric in values[0]}
        for name, values in found.items()
    }
    rows = []
    for name, values in medians.items():
        rows += [
            {"workload": workload.name, "contestant": name, "metric": metric, "value": value, "ratio_to": None}
            for metric, value in values.items()
        ]
        rows += [
            {"workload": workload.name, "contestant": "vmap", "metric": metric, "ratio_to": name,
             "value": medians["vmap"][metric] / values[metric]}
            for metric in values if name != "vmap"
        ]  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A line per workload and contestant; the ratio is of vmap to it."""
    lines = ["| | | seconds | processor seconds | peak memory, GiB | vmap / it, seconds |", "|---|---|---|---|---|---|"]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        part = [row for row in rows if row["workload"] == workload]
        for name in CONTESTANTS:
            own = {row["metric"]: row["value"] for row in part if row["contestant"] == name and row["ratio_to"] is None}
            ratio = [row["value"] for row in part if row["ratio_to"] == name and row["metric"] == "seconds"]
            cells = [f"{own['seconds']:.1f}", f"{own['cpu_seconds']:.1f}", f"{own['peak_memory_gib']:.2f}"]
            lines.append(f"| {workload} | {name} | {' | '.join(cells)} | {f'{ratio[0]:.2f}' if ratio else ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
