"""Shadow generators of UCI Adult trained together, and one after the other; and the attack that needs them.

python benchmarks/shadows.py --data-dir FOLDER --json docs/results/shadows.json [--quick]

Prints a Markdown table and writes it beside the JSON of every value.

  together                `shadows.train_shadows`, groups by vmap, on all cores; traces and compiles
  together, compiled      the same without the groups that compile: the time of the others, times all / others
  one by one              the same with one run in a group and one thread: some of the same training sets, without the
                          first, which compiles; times all / some
  one by one, compiling   the first of these, times all: as processes of their own that share no compiled program

From the first calibration of a network to the last; what is bought before is bought on the host, one after the other
for all contestants alike, and has a line of its own.

The attack is measured from choosing the targets to its results, training included. Processor seconds suffer less from a
busy machine than seconds do. Without --data-dir the table is random rows, and is called so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from adult import cpu_model

sys.path.insert(0, str(Path(__file__).parents[1]))

from privsyn_jax import shadows
from privsyn_jax.data import adult
from privsyn_jax.evaluation.attacks.generator_level import attack_function, choose_targets, make_design
from privsyn_jax.evaluation.attacks.scores import result_to_dict
from privsyn_jax.settings import DataSettings, settings_from_dict

CHEAP = {
    "model": {"name": "autoregressive", "variant": "masked_mlp", "width": 8, "num_layers": 1},
    "transform": {"edges": "quantile", "num_bins": 8, "num_cells": 64},
    "privacy": {"epsilon": 1.0, "delta": 1e-4, "budget": {"marginals": 0.0}},
    "training": {"num_steps": 200, "expected_batch_size": 16, "microbatch_size": 32, "steps_per_dispatch": 50},
}
SMALL_TVAE = {
    **CHEAP,
    "model": {"name": "tvae", "hidden_dims": (16,), "latent_dim": 4},
    "transform": {"edges": "public", "num_bins": 8},
}
WORKLOADS = {"masked MLP of width 8, batch 16, 200 steps": CHEAP, "VAE of width 16, batch 16, 200 steps": SMALL_TVAE}


def main() -> None:
    parser = argparse.ArgumentParser(description="shadow generators together and one by one, and their attack")
    parser.add_argument("--data-dir", default="", help="folder with adult.data and adult.test; default: random rows")
    parser.add_argument("--json", required=True, help="where to write every value; the table goes beside it, as .md")
    parser.add_argument("--quick", action="store_true", help="8 shadows of 200 records and 20 steps")
    options = parser.parse_args()
    schema, auxiliary = read(options.data_dir)
    num_shadows, num_records, alone = (8, 200, 3) if options.quick else (64, 2000, 7)
    rows: list[dict[str, Any]] = []
    attacks: dict[str, list[dict[str, Any]]] = {}
    for name, sections in WORKLOADS.items():
        changes = {"num_steps": 20, "steps_per_dispatch": 10} if options.quick else {}
        settings = settings_from_dict({**sections, "training": {**sections["training"], **changes}})
        targets = choose_targets(schema, auxiliary, key=jax.random.key(1))
        design = make_design(
            schema, auxiliary, targets, num_shadows=num_shadows, num_records=num_records, key=jax.random.key(2)
        )
        rows += compare(name, settings, schema, design.tables, alone)
        found, results = timed(
            lambda settings=settings, targets=targets: shadows.shadow_attack(
                settings, schema, auxiliary, targets, num_shadows=num_shadows, num_records=num_records,
                key=jax.random.key(3),
            )
        )  # fmt: skip
        rows.append({"workload": name, "contestant": "the whole attack", **found})
        attacks[name] = [result_to_dict(result) for result in results]
        write(options, rows, attacks)
    found, results = timed(
        lambda: attack_function(
            lambda records, key: records, schema, auxiliary, choose_targets(schema, auxiliary, key=jax.random.key(1)),
            num_shadows=num_shadows, num_records=num_records, key=jax.random.key(4),
        )
    )  # fmt: skip
    rows.append({"workload": "a generator that copies", "contestant": "the whole attack", **found})
    attacks["a generator that copies"] = [result_to_dict(result) for result in results]
    print(write(options, rows, attacks))


def compare(name: str, settings: Any, schema: Any, tables: list[pd.DataFrame], alone: int) -> list[dict[str, Any]]:
    """Figures of all contestants, for as many runs as there are tables."""
    total = len(tables)
    num_threads = os.cpu_count() or 1
    bought, marks = clocked(settings, schema, tables)
    num_groups = len(marks) - 1
    _, alone_marks = clocked(settings, schema, tables[:alone], at_once=1, num_threads=1)
    contestants = {
        "together": marks[-1] - marks[0],
        "one by one": (alone_marks[-1] - alone_marks[1]) * total / (alone - 1),
        "one by one, compiling": (alone_marks[1] - alone_marks[0]) * total,
    }
    if num_groups > num_threads:
        rest = marks[-1] - marks[num_threads]
        contestants["together, compiled"] = rest * num_groups / (num_groups - num_threads)
    print(f"{name}: {contestants}", file=sys.stderr, flush=True)
    rows = [{"workload": name, "contestant": "purchases", "seconds": bought[0], "cpu_seconds": bought[1]}]
    for contestant, (seconds, cpu_seconds) in contestants.items():
        row = {"workload": name, "contestant": contestant, "seconds": float(seconds), "cpu_seconds": float(cpu_seconds)}
        if contestant.startswith("one by one"):
            whole = contestants["together" if "compiling" in contestant else list(contestants)[-1]]
            ratios = np.asarray(whole) / (seconds, cpu_seconds)
            row |= {"ratio": float(ratios[0]), "cpu_ratio": float(ratios[1])}
        rows.append(row)
    return rows


def clocked(settings: Any, schema: Any, tables: list[pd.DataFrame], **numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and processor seconds of the purchases, [2], and the times when training began and each group ended."""
    marks: list[tuple[float, float]] = []

    def mark(*_: str) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    key = jax.random.key(5)
    shadows.train_shadows(settings, schema, tables, key=key, announce=mark, after_group=mark, **numbers)
    times = np.array(marks)
    return times[1] - times[0], times[1:]


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}, result


def read(data_dir: str) -> tuple[Any, pd.DataFrame]:
    """Schema and records of Adult, or random rows of its columns."""
    data = DataSettings(name="adult", dir=data_dir)
    schema = adult.read_schema(data)
    if data_dir:
        frames: list[pd.DataFrame] = []
        adult.load(data, schema).train.map(frames.append)
        return schema, frames[0]
    rng = np.random.default_rng(0)
    columns = {
        column.name: rng.choice(np.array(column.categories, object), schema.num_records)
        if column.categories
        else rng.integers(int(column.lower or 0), int(column.upper or 0), schema.num_records, endpoint=True)
        for column in schema.columns
    }
    return schema, pd.DataFrame(columns)


def write(options: argparse.Namespace, rows: list[dict[str, Any]], attacks: dict[str, Any]) -> str:
    data = "UCI Adult" if options.data_dir else "random rows in Adult's columns"
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version(), "data": data}
    load, date = os.getloadavg()[2], datetime.now(UTC).date().isoformat()
    content = {"host": {**host, "load_of_15_minutes": load}, "date": date, "rows": rows, "attacks": attacks}
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, "configurations": WORKLOADS}, indent=1) + "\n")
    command = f"{'--data-dir FOLDER ' * bool(options.data_dir)}--json {options.json}{' --quick' * options.quick}"
    text = (
        f"# Shadow generators\n\n```bash\npython benchmarks/shadows.py {command}\n```\n\n"
        f"{date}, {host['cpu_count']} cores of {host['cpu']}, no GPU; {load:.1f} processes wanted to run on average, "
        f"this one included; {data}.\nA ratio is that of 'together, compiled' to 'one by one', and of 'together' to "
        f"'one by one, compiling'. What is timed, and how, is in the benchmark's first lines; configurations and "
        f"every value are in `{path.name}`.\n\n{table(rows)}\n\n{attack_table(attacks)}\n"
    )
    path.with_suffix(".md").write_text(text)
    return text


def table(rows: list[dict[str, Any]]) -> str:
    """A line per workload and contestant."""
    heads = ["workload", "contestant", "s", "processor s", "together ÷ it: s", "processor s"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        ratios = [f"{row[name]:.2f}" if name in row else "" for name in ("ratio", "cpu_ratio")]
        cells = [row["workload"], row["contestant"], f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def attack_table(attacks: dict[str, list[dict[str, Any]]]) -> str:
    lines = ["| generator | attack | verdict |", "|---|---|---|"]
    for name, results in attacks.items():
        lines += [f"| {name} | {result['name']} | {result['verdict']} |" for result in results]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
