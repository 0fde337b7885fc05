"""The price of a DP-SGD step: clipped gradients and whole steps beside their plain counterparts and peers.

python benchmarks/dp_step.py --json docs/results/dp_step.json [--workloads a,b] [--contestants a,b] [--rounds 7]
    [--quick]

Prints a Markdown table and writes every value as JSON. JAX and PyTorch each run in a process of their own, with as many
threads as there are cores, and this process lets one of them work at a time. A round times every contestant of a
workload once, in a new random order, for a step that follows a large one pays for the memory it returned; a ratio is
the median over rounds of the ratio within a round. Time is CPU time of all threads (and wall time); float32 on both
sides; data are random, from a fixed seed. PyTorch's threads are told not to spin while they wait (OMP_WAIT_POLICY is
passive unless the variable is set): on a busy machine spinning cost an LSTM forty times its work.

  plain, torch_plain             gradient of the summed loss; `plain` is the floor that all gradients are compared to
  vmap, microbatch, ghost, auto  `clipped_grad_sum` of this project
  jax_privacy(_microbatch)       `clipped_grad` of jax_privacy, the batch whole or in eighths
  opacus_hooks, opacus_ghost     Opacus, both up to the clipped and summed gradient
  plain_step                     gather of random records, gradient, Adam; as many records as a DP step expects
  dp_step                        `DPStep` as a run places it: Poisson sampling, clipping, noise, Adam, average of
                                 parameters; compared to `plain_step`. Batch sizes vary as drawn, small ones visibly

Memory is that of temporaries and outputs: for JAX by XLA's account of the compiled program, for PyTorch by the running
sum of its allocator's events during one call. They are not the same measure, so PyTorch's is divided by `torch_plain`.
The system's share of CPU time is page faults: both frameworks hand large buffers back to the system after every step.
On a virtual machine they cost as much as the arithmetic. To see a step without them, have the C library keep memory:
GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000:glibc.malloc.arena_max=1
The relative error is the L2 distance to the sum of method `vmap`, with the clip norm at the batch's mean gradient norm.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from adult import cpu_model
from dp_step_workloads import WORKLOADS

PACKAGES = ("numpy", "jax", "flax", "jax_privacy", "torch", "opacus")
# Contestant -> framework, packages it needs, contestant its time is compared to, contestant its memory is compared to.
CONTESTANTS = {
    "plain": ("jax", (), "plain", "plain"),
    **{name: ("jax", (), "plain", "plain") for name in ("vmap", "microbatch", "ghost", "auto")},
    "jax_privacy": ("jax", ("jax_privacy",), "plain", "plain"),
    "jax_privacy_microbatch": ("jax", ("jax_privacy",), "plain", "plain"),
    "torch_plain": ("torch", ("torch",), "plain", "torch_plain"),
    "opacus_hooks": ("torch", ("torch", "opacus"), "plain", "torch_plain"),
    "opacus_ghost": ("torch", ("torch", "opacus"), "plain", "torch_plain"),
    "plain_step": ("jax", (), "plain_step", "plain_step"),
    "dp_step": ("jax", (), "plain_step", "plain_step"),
}
COLUMNS = (
    "CPU time ÷ plain",
    "wall time ÷ plain",
    "memory ÷ plain",
    "compile s",
    "relative error",
    "CPU ms",
    "of it system",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="the price of a DP-SGD step")
    parser.add_argument("--json", required=True, help="where to write every value")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="comma-separated; default: all")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round, an eighth of each batch")
    options = parser.parse_args()
    contestants = chosen("contestants", options.contestants, CONTESTANTS)
    rounds, shrink = (1, 8) if options.quick else (options.rounds, 1)
    rows, times = [], []
    for workload in chosen("workloads", options.workloads, WORKLOADS):
        batch_size = WORKLOADS[workload].batch_size // shrink
        facts, timings = measure(workload, batch_size, with_denominators(contestants), rounds)
        label = workload if shrink == 1 else f"{workload} (batch {batch_size})"
        rows += rows_of(label, facts, timings)
        times += [{"workload": label, "contestant": name, **one} for name in timings for one in timings[name]]
        write(options.json, rows, times)
        print(table(rows), file=sys.stderr, flush=True)
    print(table(rows))


def chosen(what: str, text: str, known: dict[str, Any]) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"--{what}: unknown {unknown}; known are {list(known)}")
    return names


def with_denominators(names: list[str]) -> list[str]:
    """The contestants and those that they are compared to, in the order of CONTESTANTS."""
    needed = {other for name in names for other in (name, *CONTESTANTS[name][2:])}
    return [name for name in CONTESTANTS if name in needed]


class Worker:
    """One framework's process for one workload."""

    def __init__(self, framework: str, workload: str, batch_size: int):
        command = [sys.executable, "-m", "dp_step_workloads.worker", framework, workload, str(batch_size)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
            env={"OMP_WAIT_POLICY": "passive", **os.environ},
        )

    def ask(self, do: str, contestant: str) -> dict[str, Any]:
        """The process' reply; {} when it has died."""
        assert self.process.stdin and self.process.stdout
        try:
            print(json.dumps({"do": do, "contestant": contestant}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {}

    def close(self) -> int:
        """The process' exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait()


Facts = dict[str, dict[str, Any]]  # contestant -> what is measured once, or {"unsupported": reason}
Timings = dict[str, list[dict[str, float]]]  # contestant -> one entry per round


def measure(workload: str, batch_size: int, contestants: list[str], rounds: int) -> tuple[Facts, Timings]:
    """Prepares every contestant, then times them round by round."""
    missing = [package for package in PACKAGES if not version(package)]
    facts: Facts = {}
    for name in contestants:
        if absent := [package for package in CONTESTANTS[name][1] if package in missing]:
            facts[name] = {"unsupported": f"not installed: {absent[0]}"}
    workers = {}
    for framework in ("jax", "torch"):
        names = [name for name in contestants if CONTESTANTS[name][0] == framework and name not in facts]
        if names:
            workers[framework] = prepare(framework, workload, batch_size, names, facts)
    ready = [name for name in contestants if "unsupported" not in facts[name]]
    timings: Timings = {name: [] for name in ready}
    order = np.random.default_rng(0)
    for round_number in range(rounds):
        for name in order.permutation(ready).tolist():
            timing = workers[CONTESTANTS[name][0]].ask("time", name)
            if not timing:
                raise SystemExit(f"{workload}: the process died while timing {name}")
            timings[name].append({"round": round_number, **timing})
            print(f"{workload}, round {round_number}, {name}: {timing}", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.close()
    return {name: facts[name] for name in contestants}, timings


def prepare(framework: str, workload: str, batch_size: int, names: list[str], facts: Facts) -> Worker:
    """A worker in which all contestants are ready; fills `facts`.

    A peer that kills the process (out of memory) is unsupported, and a new process goes on without it. For our own
    contestants, and for the plain ones, that ends the benchmark, as any error of theirs does.
    """
    worker = Worker(framework, workload, batch_size)
    for name in names:
        facts[name] = worker.ask("prepare", name)
        print(f"{workload}, {name}: {facts[name]}", file=sys.stderr, flush=True)
        if not facts[name]:
            code = worker.close()
            if code > 0 or not name.startswith(("jax_privacy", "opacus")):
                raise SystemExit(f"{workload}: {name} failed with exit code {code}, see above")
            facts[name] = {"unsupported": f"unsupported: killed by signal {-code}"}
            rest = [other for other in names if "unsupported" not in facts.get(other, {})]
            return prepare(framework, workload, batch_size, rest, facts)
    return worker


def rows_of(workload: str, facts: Facts, timings: Timings) -> list[dict[str, Any]]:
    """One row per value; ratios of a contestant that could not run are absent, its reason is the row `unsupported`."""
    rows = []

    def add(contestant, metric, value, ratio_to=None):
        rows.append({"workload": workload, "contestant": contestant, "metric": metric, "value": value,
                     "seed": 0, "ratio_to": ratio_to})  # fmt: skip

    for name, known in facts.items():
        _, _, time_base, memory_base = CONTESTANTS[name]
        for metric, value in known.items():
            add(name, metric, value)
        if name not in timings:
            continue
        if "memory_bytes" in known:
            add(name, "memory_ratio", known["memory_bytes"] / facts[memory_base]["memory_bytes"], memory_base)
        add(name, "system_seconds", float(np.median([one["system_seconds"] for one in timings[name]])))
        for clock in ("cpu", "wall"):
            own, base = (np.array([one[f"{clock}_seconds"] for one in timings[key]]) for key in (name, time_base))
            add(name, f"{clock}_seconds", float(np.median(own)))
            for suffix, quantile in (("", 0.5), ("_lower_quartile", 0.25), ("_upper_quartile", 0.75)):
                add(name, f"{clock}_ratio{suffix}", float(np.quantile(own / base, quantile)), time_base)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line per workload and contestant; ratios as median (lower to upper quartile)."""
    values = {(row["workload"], row["contestant"], row["metric"]): row["value"] for row in rows}
    lines = ["| workload | contestant | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for workload, contestant in dict.fromkeys(key[:2] for key in values):
        found = {metric: value for (*place, metric), value in values.items() if place == [workload, contestant]}
        if "unsupported" in found:
            cells = [found["unsupported"]] + [""] * (len(COLUMNS) - 1)
        else:
            cells = [
                *(f"{found[r]:.2f} ({found[r + '_lower_quartile']:.2f}–{found[r + '_upper_quartile']:.2f})"
                  for r in ("cpu_ratio", "wall_ratio")),
                f"{found['memory_ratio']:.2f}" if "memory_ratio" in found else "",
                f"{found['compile_seconds']:.1f}" if "compile_seconds" in found else "",
                f"{found['relative_error']:.1e}" if "relative_error" in found else "",
                f"{1e3 * found['cpu_seconds']:.1f}",
                f"{found['system_seconds'] / found['cpu_seconds']:.0%}",
            ]  # fmt: skip
        lines.append(f"| {workload} | {contestant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(path: str, rows: list[dict[str, Any]], times: list[dict[str, Any]]) -> None:
    host = {
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES"),
        **{package: version(package) for package in PACKAGES},
    }
    content = {"host": host, "date": datetime.now(UTC).date().isoformat(), "rows": rows, "rounds": times}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
