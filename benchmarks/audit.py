"""What audits find: on right mechanisms, on broken ones, and how near a bound comes to its claim.

python benchmarks/audit.py --json docs/results/audit.json [--quick]

Prints a Markdown table and writes it beside the JSON of every value. Trained is a model of three parameters on eight
random records and the canaries, by the step, loop, sampler and ledger of a real run; no private record is read.
Parts:
  right     20 runs of every claim, by vmap; "above" counts those whose 95 % lower bound exceeds it, of which chance
            may give 5 %
  broken    the faults of tests/broken_steps.py; each must be above its claim
  one run   the share of the claim that one run with many canaries reaches, every record drawn or 6 % of them
  one step  the share that a step repeated with and without one canary reaches
  bought    what configs/adult_NAME.py buys before training or in its place, from random rows of Adult's schema; with
            half the noise too
  votes     a step of configs/adult_pate_gan.py; with half the noise, and with teachers that count twice, too
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from adult import cpu_model

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import broken_steps  # noqa: E402  # type: ignore[import-not-found]

from privsyn_jax.audit_purchases import audit_purchases  # noqa: E402
from privsyn_jax.audit_training import NUM_OPPOSING, judge_training, observe, repeat_step  # noqa: E402
from privsyn_jax.audit_votes import audit_votes  # noqa: E402
from privsyn_jax.data.adult import read_schema  # noqa: E402
from privsyn_jax.evaluation.audit import AuditResult  # noqa: E402
from privsyn_jax.plan import Plan, make_plan  # noqa: E402
from privsyn_jax.privacy.noise import HostNoise  # noqa: E402
from privsyn_jax.settings import DataSettings, Settings, settings_from_dict  # noqa: E402
from privsyn_jax.types import Column, Generator, Schema  # noqa: E402

DELTA, NUM_RECORDS, SEED = 1e-5, 1000, 0
SCHEMA = Schema((Column("sex", "categorical", categories=("f", "m")),), NUM_RECORDS)
ADULT = read_schema(DataSettings(name="adult"))
POINTS = Generator(
    init=lambda key: {"private": {"w": jnp.zeros(3)}, "public": {}},
    private_loss=lambda params, example, key: jnp.sum(jnp.square(params["private"]["w"] - example)),
    public_loss=None,
    calibrate=None,
    sample=lambda params, key, num_samples, conditions: jnp.zeros((num_samples, 3)),
    exact_conditions=lambda indices: (),
)
RECORDS = np.random.default_rng(SEED).normal(size=(8, 3)).astype(np.float32)

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="audits of right and of broken training")
    parser.add_argument("--json", required=True, help="where to write every value; the table goes beside it, as .md")
    parser.add_argument("--quick", action="store_true", help="fewer runs and canaries: other numbers")
    options = parser.parse_args()
    rows: list[Row] = []
    for part in (right, broken, one_run, one_step, bought, votes):
        for row in part(options.quick):
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
            write(options, rows)
    print(table(rows))


def right(quick: bool) -> Iterator[Row]:
    for epsilon in (0.5, 1.0, 2.0):
        for rate in (1.0, 0.5, 0.06):
            started, settings = time.perf_counter(), make_settings(epsilon, rate)
            results = [
                judge_training(one, delta=DELTA)
                for one in trained(settings, seeds=4 if quick else 20, num_canaries=200 if quick else 1000)
            ]
            yield row(f"right, sampling rate {rate:g}", results, started)
    for rate in (0.9, 0.06):
        started = time.perf_counter()
        found = one_step_of(make_settings(1.0, rate), 2000 if quick else 16_000, NUM_OPPOSING)
        yield row(f"right, one step, opposing records, sampling rate {rate:g}", [found], started)


def broken(quick: bool) -> Iterator[Row]:
    canaries, repeats = (200, 4000) if quick else (1000, 16_000)
    whole, half, most = make_settings(1.0, 1.0), make_settings(1.0, 0.5), make_settings(1.0, 0.9)
    for name in ("without_noise", "without_clipping", "with_one_noise_key"):
        for rate, settings in ((1.0, whole), (0.5, half)):
            started = time.perf_counter()
            (seen,) = trained(settings, seeds=1, num_canaries=canaries, alter=getattr(broken_steps, name))
            yield row(f"{words(name)}, one run, sampling rate {rate:g}", [judge_training(seen, delta=DELTA)], started)
    started = time.perf_counter()
    found = one_step_of(whole, repeats, 0, alter=broken_steps.with_half_the_noise)
    yield row("with half the noise, one step, every record drawn", [found], started)
    size = round(0.9 * (NUM_OPPOSING + 1))
    found = one_step_of(
        most, repeats, NUM_OPPOSING, alter=lambda step: broken_steps.with_batches_of_fixed_size(step, size)
    )
    yield row("with batches of fixed size, opposing records, sampling rate 0.9", [found], started)


def one_run(quick: bool) -> Iterator[Row]:
    plans = [(4.0, 1.0, 4, 1000), (4.0, 1.0, 4, 4000), (2.0, 1.0, 4, 4000), (1.0, 1.0, 4, 10_000)]
    plans += [(1.0, 0.06, 40, 4000), (8.0, 0.06, 40, 4000)]
    for epsilon, rate, num_steps, size in [(4.0, 1.0, 4, 400)] if quick else plans:
        started = time.perf_counter()
        (seen,) = trained(make_settings(epsilon, rate, num_steps), seeds=1, num_canaries=size)
        what = f"one run, sampling rate {rate:g}, {num_steps} steps"
        yield row(what, [judge_training(seen, delta=DELTA)], started)


def one_step(quick: bool) -> Iterator[Row]:
    for epsilon in (1.0, 4.0):
        started, settings = time.perf_counter(), make_settings(epsilon, 1.0, 1)
        found = one_step_of(settings, 4000 if quick else 40_000, 0)
        yield row("one step, every record drawn", [found], started)


def bought(quick: bool) -> Iterator[Row]:
    repeats = 100 if quick else 2000
    for name, epsilon in (
        ("fitted_marginals", 1.0),
        ("fitted_marginals", 4.0),
        ("bayesian_network", 4.0),
        ("tvae", 4.0),
    ):
        settings, plan = of_adult(name, epsilon)
        for fault, make_noise in (("", HostNoise), (", with half the noise", broken_steps.HalfHostNoise)):
            started, common = time.perf_counter(), {"key": jax.random.key(SEED), "num_repeats": repeats}
            for found in audit_purchases(settings, ADULT, plan, make_noise=make_noise, **common):
                yield row(f"`{name}` at epsilon {epsilon:g}: {found.name}{fault}", [found], started)


def votes(quick: bool) -> Iterator[Row]:
    settings, plan = of_adult("pate_gan", 20.0)
    for fault in ("", "with_half_the_noise_of_votes", "with_two_votes_of_each_teacher"):
        started, alter = time.perf_counter(), getattr(broken_steps, fault) if fault else lambda step: step
        repeats, key = 100 if quick else 8000, jax.random.key(SEED)
        found = audit_votes(settings, plan, key=key, num_repeats=repeats, alter=alter)
        yield row(f"one step of votes at epsilon 20{', ' * bool(fault)}{words(fault)}", [found], started)


def of_adult(name: str, epsilon: float) -> tuple[Settings, Plan]:
    config = importlib.import_module(f"configs.adult_{name}").get_config()
    config.privacy.epsilon = epsilon
    settings = settings_from_dict(config.to_dict())
    return settings, make_plan(settings, ADULT)


def make_settings(epsilon: float, rate: float, num_steps: int = 4) -> Settings:
    return settings_from_dict(
        {
            "privacy": {"epsilon": epsilon, "delta": DELTA, "budget": dict.fromkeys(("transform", "marginals"), 0.0)},
            "transform": {"edges": "public"},
            "training": {
                "expected_batch_size": round(rate * NUM_RECORDS),
                "num_steps": num_steps,
                "steps_per_dispatch": num_steps,
            },
        }
    )


def trained(settings: Settings, *, seeds: int, num_canaries: int, **options: Any) -> list[Any]:
    keys = [jax.random.key(SEED + seed) for seed in range(seeds)]
    plan: Plan = make_plan(settings, SCHEMA)
    return observe(settings, plan, POINTS, RECORDS, keys=keys, num_canaries=num_canaries, **options)


def one_step_of(settings: Settings, repeats: int, opposing: int, **options: Any) -> AuditResult:
    key, plan = jax.random.key(1000 + SEED), make_plan(settings, SCHEMA)
    return repeat_step(settings, plan, key=key, num_opposing=opposing, num_repeats=repeats, **options)


def row(workload: str, results: list[AuditResult], started: float) -> Row:
    bounds, claimed = [result.lower_bound for result in results], results[0].claimed_epsilon
    return {
        "workload": workload,
        "contestant": f"claims epsilon {claimed:.3f}",
        "metric": "lower_bound",
        "value": statistics.median(bounds),
        "ratio_to": "claim",
        "ratio": statistics.median(bounds) / claimed,
        "largest": max(bounds),
        "runs": len(results),
        "above": sum(result.is_violated for result in results),
        "canaries": results[0].num_canaries,
        "seconds": round(time.perf_counter() - started, 1),
    }


def words(name: str) -> str:
    return name.replace("_", " ")


def write(options: argparse.Namespace, rows: list[Row]) -> None:
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version()}
    load, date = os.getloadavg()[2], datetime.now(UTC).date().isoformat()
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"host": {**host, "load_of_15_minutes": load}, "date": date, "seed": SEED, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
    path.with_suffix(".md").write_text(
        "# What audits find\n\n```bash\n"
        f"python benchmarks/audit.py --json docs/results/{path.name}{' --quick' * options.quick}\n```\n\n"
        f"{date}, {host['cpu_count']} cores of {host['cpu']}, other work at the same time ({load:.1f} processes wanted "
        f"to run on average); seed {SEED}; delta {DELTA:g}; 95 % lower bounds.\n"
        "What is trained and measured is in the benchmark's first lines. An audit refutes a claim or does not; it "
        f"proves none.\n\n{table(rows)}\n"
    )


def table(rows: list[Row]) -> str:
    heads = ["what", "claimed epsilon", "lower bound (median)", "÷ claim", "largest", "runs above", "canaries", "s"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for found in rows:
        cells = [found["workload"], found["contestant"].split()[-1], f"{found['value']:.2f}", f"{found['ratio']:.2f}"]
        cells += [f"{found['largest']:.2f}", f"{found['above']} of {found['runs']}", str(found["canaries"])]
        lines.append(f"| {' | '.join([*cells, format(found['seconds'], '.0f')])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
