"""Disentanglement of a beta-VAE by the weight of its divergence: mutual information gap on generated shapes.

python benchmarks/disentanglement.py --json docs/results/disentanglement.json [--quick]

Trains `models.beta_vae` without labels and without privacy (plain Adam) on `data.shapes`, for several values of beta
and seeds, and prints a Markdown table, also written beside the JSON of every value. The gap is that of the posterior's
means over images that were not trained on; of untrained networks it is given too, as is what a pixel's reconstruction
costs: a large beta buys independent latents with poor images. Nothing here is private, so nothing is protected.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from adult import cpu_model

from privsyn_jax.data.shapes import FACTORS, KINDS, shapes
from privsyn_jax.evaluation.disentanglement import mutual_information_gap
from privsyn_jax.models import beta_vae
from privsyn_jax.types import Images

SIDE, BATCH_SIZE, LEARNING_RATE = 16, 64, 1e-3
NUM_TRAIN, NUM_TEST = 20_000, 5000
NETWORK = {"latent_dim": 8, "channels": (32, 32), "conditional": False}
BETAS, SEEDS, NUM_STEPS = (1.0, 4.0, 8.0), (0, 1), 2000


def main() -> None:
    parser = argparse.ArgumentParser(description="mutual information gap of a beta-VAE")
    parser.add_argument("--json", required=True, help="where to write every value; the table goes beside it, as .md")
    parser.add_argument("--quick", action="store_true", help="two values of beta, one seed, few steps")
    options = parser.parse_args()
    betas, seeds, num_steps = ((1.0, 4.0), SEEDS[:1], 300) if options.quick else (BETAS, SEEDS, NUM_STEPS)
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        rows += measure(None, seed, 0)
        for beta in betas:
            started = time.perf_counter()
            rows += measure(beta, seed, num_steps)
            print(f"beta {beta:g}, seed {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    write(options, rows, num_steps)
    print(table(rows))


def measure(beta: float | None, seed: int, num_steps: int) -> list[dict[str, Any]]:
    """Rows of one network; beta None: as it is before training."""
    settings = {"image_shape": (SIDE, SIDE, 1), "num_classes": len(KINDS), **NETWORK}
    generator = beta_vae.make(kl_weight=beta or 0.0, **settings)
    params = generator.init(jax.random.fold_in(jax.random.key(seed), 0))
    if num_steps:
        images, _ = shapes(NUM_TRAIN, SIDE, seed=2 * seed)
        params = train(generator, params, images, num_steps, seed)
    held_out, factors = shapes(NUM_TEST, SIDE, seed=2 * seed + 1)
    encode = jax.jit(jax.vmap(beta_vae.make_encoder(**settings), in_axes=(None, 0)))
    means, log_variances = (np.asarray(part, np.float64) for part in encode(params, held_out))
    mean_gap, gaps = mutual_information_gap(means, factors)
    divergences = 0.5 * (means**2 + np.exp(log_variances) - log_variances - 1)
    values = {
        "gap": mean_gap,
        **{f"gap of {name}": gap for name, gap in zip(FACTORS, gaps, strict=True)},
        "divergence": divergences.sum(axis=1).mean(),
        "used latents": int((divergences.mean(axis=0) > 0.1).sum()),
        "reconstruction": reconstruction(generator, params, held_out, beta or 0.0, divergences, seed),
    }
    contestant = "untrained" if beta is None else f"beta {beta:g}"
    return [
        {"workload": f"shapes {SIDE}x{SIDE}", "contestant": contestant, "metric": metric, "value": float(value),
         "seed": seed, "ratio_to": None}
        for metric, value in values.items()
    ]  # fmt: skip


def train(generator, params, images: Images, num_steps: int, seed: int):
    """The parameters after plain Adam. A loop in Python: on CPU a convolution in a loop of XLA is far slower."""
    optimizer, rng, key = optax.adam(LEARNING_RATE), np.random.default_rng(seed), jax.random.key(seed)

    @jax.jit
    def step(private, state, batch, key):
        keys = jax.random.split(key, BATCH_SIZE)
        losses = jax.vmap(generator.private_loss, in_axes=(None, 0, 0))
        grads = jax.grad(lambda private: losses({"private": private, "public": {}}, batch, keys).mean())(private)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(private, updates), state

    private, state = params["private"], optimizer.init(params["private"])
    for number in range(1, num_steps + 1):
        rows = rng.integers(0, len(images.labels), BATCH_SIZE)
        batch = Images(images.pixels[rows], images.labels[rows])
        private, state = step(private, state, batch, jax.random.fold_in(key, number))
    return {"private": private, "public": {}}


def reconstruction(generator, params, images: Images, beta: float, divergences: np.ndarray, seed: int) -> float:
    """Mean negative log likelihood in nats of an image given its latent, of one draw."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2**31), len(images.labels))
    losses = jax.jit(jax.vmap(generator.private_loss, in_axes=(None, 0, 0)))(params, images, keys)
    return float(np.mean(losses) - beta * divergences.sum(axis=1).mean())


def write(options: argparse.Namespace, rows: list[dict[str, Any]], num_steps: int) -> None:
    host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version()}
    host["jax"] = importlib.metadata.version("jax")
    date = datetime.now(UTC).date().isoformat()
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "date": date, "num_steps": num_steps, "rows": rows}, indent=1) + "\n")
    path.with_suffix(".md").write_text(
        f"# Disentanglement of a beta-VAE\n\n```bash\npython benchmarks/disentanglement.py --json {options.json}"
        f"{' --quick' * options.quick}\n```\n\n{date}, {host['cpu_count']} cores of {host['cpu']}, no GPU; "
        f"{num_steps} steps of {BATCH_SIZE} images of {SIDE} x {SIDE} pixels. Means over "
        f"{len({row['seed'] for row in rows})} seeds, ± their standard deviation. What is measured, and how, is in the "
        f"benchmark's first lines; every value is in `{path.name}`.\n\n{table(rows)}\n"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """A line per contestant: the gap (1 is best), that of each factor, the divergence and the reconstruction (nats)."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines = [f"| {' | '.join(['', *metrics])} |", "|---" * (len(metrics) + 1) + "|"]
    for contestant in dict.fromkeys(row["contestant"] for row in rows):
        own = [row for row in rows if row["contestant"] == contestant]
        found = {metric: [row["value"] for row in own if row["metric"] == metric] for metric in metrics}
        cells = [f"{np.mean(found[metric]):.{1 if metric in metrics[-3:] else 2}f}" for metric in metrics]
        cells[0] += f" ± {np.std(found[metrics[0]], ddof=1):.2f}" if len(found[metrics[0]]) > 1 else ""
        lines.append(f"| {contestant} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
