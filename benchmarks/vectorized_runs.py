"""Many seeds of a training run on UCI Adult, together in one program by vmap, and one after the other.

python benchmarks/vectorized_runs.py --data-dir FOLDER --json docs/results/vectorized_runs.json [--quick]

Prints a Markdown table and writes it beside the JSON of every value. Without --data-dir the table is a random stand-in
of the same columns and size, and is called so. Timed is what `launch.study` does of a run before it is sampled:
purchases, tracing, compiling, training, the privacy statement; all contestants make the same ones.

  vmap                   `study.together.learn_together`; always compiles
  one by one             a worker of a study, which shares compiled programs through a cache on disk; a run before the
                         clock starts has filled it
  one by one, compiling  the same without a cache

A contestant is a process of its own, so that its peak memory is its own; contestants take turns. A run's figures are
those of its process divided by its number of runs. A step is timed from the second dispatch on, without tracing and
compiling: where training is long, its ratio is what the others tend to. A ratio is the median over rounds of vmap's
figure divided by the contestant's of the same round; processor seconds suffer less from a busy machine than seconds do.
Noise is seeded: such runs are for measurement only.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from adult import cpu_model

CONTESTANTS = ("vmap", "one by one", "one by one, compiling")
METRICS = ("seconds", "cpu_seconds", "step_ms", "step_cpu_ms", "peak_memory_gib")  # of a run, but for the memory
_TEST_ROWS = 16281  # of the published split


@dataclasses.dataclass(frozen=True)
class Workload:
    """Changes to a configuration of Adult, by dotted path; how many runs a contestant does, and how often."""

    name: str
    config: str
    changes: Mapping[str, Any]
    runs: tuple[int, int, int]  # in the order of CONTESTANTS
    rounds: int = 1


_PUBLIC = {"transform.edges": "public", "privacy.budget.marginals": 0.0, "model.column_order": ()}
_TVAE = {"training.num_steps": 200, "training.expected_batch_size": 256}
_SMALL = {"model.hidden_dims": (32,), "model.latent_dim": 4, **_TVAE, "training.expected_batch_size": 64}
_TRANSFORMER = {"training.num_steps": 10, "training.steps_per_dispatch": 2}
WORKLOADS = (
    Workload("VAE of width 32, batch 64, 200 steps", "adult_tvae", {**_PUBLIC, **_SMALL}, (32, 32, 4), rounds=3),
    Workload("VAE, batch 256, 200 steps", "adult_tvae", {**_PUBLIC, **_TVAE}, (16, 16, 2)),
    Workload("VAE, batch 256, 200 steps, bins purchased", "adult_tvae", _TVAE, (12, 12, 2)),
    Workload("transformer, batch 2048, 10 steps", "adult_autoregressive", {**_PUBLIC, **_TRANSFORMER}, (6, 6, 2)),
)
_SHORT = {**_PUBLIC, **_SMALL, "training.num_steps": 60}
QUICK = Workload("VAE of width 32, batch 64, 60 steps", "adult_tvae", _SHORT, (4, 4, 1))


class Clock:
    """A hook that times steps from the second dispatch on, and counts the programs that were trained by."""

    def __init__(self):
        self.seconds = self.cpu_seconds = 0.0
        self.steps = self.programs = 0
        self._before: tuple[float, float] | None = None

    def __call__(self, state: Any, logs: Mapping[str, Any]) -> None:
        now = time.perf_counter(), time.process_time()
        if logs and self._before is not None:
            self.seconds += now[0] - self._before[0]
            self.cpu_seconds += now[1] - self._before[1]
            self.steps += logs["batch_size"].size  # of all runs
        self.programs += not logs
        self._before = now if logs else None


def main() -> None:
    parser = argparse.ArgumentParser(description="many training runs in one program")
    parser.add_argument("--data-dir", default="", help="folder with adult.data and adult.test; default: random rows")
    parser.add_argument("--json", required=True, help="where to write every value; the table goes beside it, as .md")
    parser.add_argument("--quick", action="store_true", help="few runs of a short small model, once")
    parser.add_argument("--measure", nargs=2, metavar=("WORKLOAD", "CONTESTANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    workloads = (QUICK,) if options.quick else WORKLOADS
    if options.measure:
        workload = next(one for one in workloads if one.name == options.measure[0])
        print(json.dumps(measure(workload, options.measure[1], options.data_dir)))
        return
    rows: list[dict[str, Any]] = []
    for workload in workloads:
        rounds = []
        for number in range(workload.rounds):
            rounds.append({name: in_process(workload, name, options) for name in CONTESTANTS})
            print(f"{workload.name}, round {number}: {rounds[-1]}", file=sys.stderr, flush=True)
        rows += rows_of(workload.name, rounds)
        write(options, rows)
    print(table(rows))


def in_process(workload: Workload, contestant: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--json", "", "--data-dir", options.data_dir]
    command += [*(["--quick"] if options.quick else []), "--measure", workload.name, contestant]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{workload.name}, {contestant}: failed\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(workload: Workload, contestant: str, data_dir: str) -> dict[str, float]:
    """Figures of one contestant, in this process."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from privsyn_jax.run import prepare
    from privsyn_jax.settings import settings_from_dict
    from privsyn_jax.study.jobs import read_records, share_compiled_programs
    from privsyn_jax.study.plan import override
    from privsyn_jax.workdir import plain

    num_runs = workload.runs[CONTESTANTS.index(contestant)]
    config = importlib.import_module(f"configs.{workload.config}").get_config().to_dict()
    with tempfile.TemporaryDirectory() as folder:
        changes = {**workload.changes, **({"data.dir": data_dir} if data_dir else stand_in(Path(folder)))}
        runs = [
            plain(settings_from_dict(override(config, {**changes, "seed": n, "privacy.seed": 1000 + n})).to_dict())
            for n in range(num_runs)
        ]
        first = settings_from_dict(runs[0])
        schema, _ = prepare(first)  # finds the noise, which all runs share
        records = read_records(first.data, schema)
        if contestant == "one by one":
            share_compiled_programs(folder)
            one_by_one(runs[:1], schema, records, Path(folder) / "before", Clock())
        clock, work = Clock(), together if contestant == "vmap" else one_by_one
        started, cpu = time.perf_counter(), time.process_time()
        work(runs, schema, records, Path(folder) / "private", clock)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return {
        "seconds": seconds / num_runs,
        "cpu_seconds": cpu_seconds / num_runs,
        "step_ms": 1000 * clock.seconds / clock.steps,
        "step_cpu_ms": 1000 * clock.cpu_seconds / clock.steps,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "runs": num_runs,
        "programs": clock.programs,
    }


def one_by_one(runs: list[dict[str, Any]], schema: Any, records: Any, folder: Path, clock: Clock) -> None:
    from privsyn_jax.learn import learn
    from privsyn_jax.run import prepare
    from privsyn_jax.settings import settings_from_dict
    from privsyn_jax.training.attempt import open_attempt
    from privsyn_jax.training.processes import Leader

    for settings, private in zip(runs, folders_of(runs, folder), strict=True):
        checked = settings_from_dict(settings)
        _, plan = prepare(checked)
        with open_attempt(private, checked, leader=Leader(), announce=lambda message: None) as attempt:
            learn(records.train, schema, plan, checked, attempt, hooks=[clock])


def together(runs: list[dict[str, Any]], schema: Any, records: Any, folder: Path, clock: Clock) -> None:
    from privsyn_jax.study.together import learn_together

    learn_together(runs, schema, records, folders_of(runs, folder), hooks=[clock])


def folders_of(runs: list[dict[str, Any]], folder: Path) -> list[Path]:
    folders = [folder / str(number) for number in range(len(runs))]
    for private in folders:
        private.mkdir(parents=True)
    return folders


def stand_in(folder: Path) -> dict[str, Any]:
    """Settings of a table with Adult's columns and numbers of rows, every value random."""
    from privsyn_jax.data.adult import read_schema
    from privsyn_jax.data.schema import schema_to_dict
    from privsyn_jax.settings import DataSettings

    schema, rng = read_schema(DataSettings(name="adult")), np.random.default_rng(0)
    for name, num_rows in (("train.csv", schema.num_records), ("test.csv", _TEST_ROWS)):
        columns = {
            column.name: rng.choice(column.categories, num_rows)
            if column.categories
            else rng.integers(int(column.lower or 0), int(column.upper or 0), num_rows, endpoint=True)
            for column in schema.columns
        }
        pd.DataFrame(columns).to_csv(folder / name, index=False)
    (folder / "schema.json").write_text(json.dumps(schema_to_dict(schema)))
    paths = {"path": "train.csv", "test_path": "test.csv", "schema": "schema.json"}
    return {"data.name": "csv", **{f"data.{key}": str(folder / name) for key, name in paths.items()}}


def rows_of(workload: str, rounds: list[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    rows = []
    for name in CONTESTANTS:
        found = [one[name] for one in rounds]
        common = {"workload": workload, "contestant": name}
        rows += [
            {**common, "metric": metric, "value": value, "round": number, "ratio_to": None}
            for number, one in enumerate(found)
            for metric, value in one.items()
        ]
        if name != "vmap":
            rows += [
                {
                    "workload": workload, "contestant": "vmap", "metric": metric, "ratio_to": name,
                    "value": statistics.median(one["vmap"][metric] / one[name][metric] for one in rounds),
                }
                for metric in METRICS
            ]  # fmt: skip
    return rows


def write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    data = "UCI Adult" if options.data_dir else "a random stand-in for UCI Adult, of its columns and numbers of rows"
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version(), "data": data}
    load, date = os.getloadavg()[2], datetime.now(UTC).date().isoformat()
    content = {"host": {**host, "load_of_15_minutes": load}, "date": date, "rows": rows}
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    command = f"{'--data-dir FOLDER ' * bool(options.data_dir)}--json {options.json}{' --quick' * options.quick}"
    path.with_suffix(".md").write_text(
        f"# Many training runs in one program\n\n```bash\npython benchmarks/vectorized_runs.py {command}\n```\n\n"
        f"{date}, {host['cpu_count']} cores of {host['cpu']}, no GPU; {load:.1f} processes wanted to run on average, "
        f"this one included; {data}.\nWhat is timed, and how, is in the benchmark's first lines; every value is in "
        f"`{path.name}`.\n\n{table(rows)}\n"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """A line per workload and contestant; the last columns are vmap divided by it."""
    heads = ["workload", "contestant", "runs", "programs", "s per run", "processor s per run", "ms per step of a run"]
    heads += ["processor ms", "peak GiB", "vmap ÷ it: s", "processor s", "processor s of a step"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        part = [row for row in rows if row["workload"] == workload]
        for name in CONTESTANTS:
            own = [row for row in part if row["contestant"] == name and row["ratio_to"] is None]
            found = {row["metric"]: [] for row in own}
            for row in own:
                found[row["metric"]].append(row["value"])
            value = {metric: statistics.median(values) for metric, values in found.items()}
            ratio = {row["metric"]: row["value"] for row in part if row["ratio_to"] == name}
            cells = [*(f"{value[m]:.0f}" for m in ("runs", "programs")), *(f"{value[m]:.2f}" for m in METRICS)]
            cells += [f"{ratio[m]:.2f}" if ratio else "" for m in ("seconds", "cpu_seconds", "step_cpu_ms")]
            lines.append(f"| {workload} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
