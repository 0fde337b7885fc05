"""What it costs to share a DP-SGD step over 8 virtual CPU devices, beside a plain step shared the same way.

python benchmarks/devices.py --json docs/results/devices.json [--rounds 7]

The work is the same whatever the number of devices, and so are the cores: ideally CPU time would not change. One
process per number of devices; they take turns, round by round. `excess` is the growth of the DP step's CPU time from 1
to 8 devices over the growth of the plain step's (gradient of as many rows, psum, Adam).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from adult import cpu_model

WORKLOADS = ("masked_mlp_2048", "transformer_512")
DEVICES = (1, 8)
STEPS = 5  # per dispatch, and per timing


def main() -> None:
    parser = argparse.ArgumentParser(description="a DP-SGD step shared by virtual devices")
    parser.add_argument("--json", required=True, help="where to write every value")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = []
    for workload in WORKLOADS:
        workers = {count: start(workload, count) for count in DEVICES}
        times = []
        for number in range(options.rounds):
            print(f"{workload}, round {number}", file=sys.stderr, flush=True)
            times.append({count: ask(worker) for count, worker in workers.items()})
        for worker in workers.values():
            worker.communicate()
        rows += summary(workload, times)
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version()}
    content = {"host": host, "date": datetime.now(UTC).date().isoformat(), "rows": rows}
    Path(options.json).write_text(json.dumps(content, indent=1) + "\n")
    print("| workload | wrapper | DP step, 8 ÷ 1 devices | plain step, 8 ÷ 1 | excess |\n|---|---|---|---|---|")
    for workload in WORKLOADS:
        for wrapper in ("pmap", "shard_map"):
            found = {
                row["metric"]: row["value"]
                for row in rows
                if (row["workload"], row["contestant"]) == (workload, wrapper)
            }
            print(f"| {workload} | {wrapper} | {found['dp']:.2f} | {found['plain']:.2f} | {found['excess']:.2f} |")


def summary(workload: str, times: list[dict[int, dict[str, float]]]) -> list[dict]:
    """Medians over rounds of ratios within a round."""
    rows = []
    for wrapper in ("pmap", "shard_map"):
        growth = {
            name: np.array([one[8][f"{name}, {wrapper}"] / one[1][f"{name}, {wrapper}"] for one in times])
            for name in ("dp", "plain")
        }
        growth["excess"] = growth["dp"] / growth["plain"]
        rows += [
            {"workload": workload, "contestant": wrapper, "metric": name, "value": float(np.median(values)),
             "seed": 0, "ratio_to": "1 device"}
            for name, values in growth.items()
        ]  # fmt: skip
    return rows


def start(workload: str, num_devices: int) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    command = [sys.executable, __file__, "--worker", workload]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def ask(worker: subprocess.Popen) -> dict[str, float]:
    assert worker.stdin and worker.stdout
    print("time", file=worker.stdin, flush=True)
    return json.loads(worker.stdout.readline())


def work(workload: str) -> None:
    """Answers every line with the CPU seconds per step of the DP and the plain step, by wrapper."""
    import jax
    from dp_step_workloads import WORKLOADS as KNOWN
    from dp_step_workloads.jax_contestants import JaxContestants

    contestants = JaxContestants(KNOWN[workload], KNOWN[workload].batch_size)
    calls = {}
    for wrapper in ("pmap", "shard_map"):
        calls[f"dp, {wrapper}"] = contestants.shared_step(wrapper, STEPS, plain=False)
        calls[f"plain, {wrapper}"] = contestants.shared_step(wrapper, STEPS, plain=True)
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in sys.stdin:
        seconds = {}
        for name, call in calls.items():
            began = time.process_time()
            jax.block_until_ready(call())
            seconds[name] = (time.process_time() - began) / STEPS
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
    else:
        main()
