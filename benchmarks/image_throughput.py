"""Images per second of a DP-SGD step of every image generator, beside a plain step of the same network.

python benchmarks/image_throughput.py --json docs/results/image_throughput.json [--models dcgan,diffusion] [--quick]

Both take the same number of random 28 x 28 images per step, in the same microbatches: the private one clips, adds noise
and steps with Adam (gradient method "auto"); the plain one averages gradients and steps with Adam. They take turns,
round by round, in one process; a ratio is the median over rounds of plain over private images per second. Poisson
draws are left out: both are handed the same images. GANs: the critic's step; the generator's is not private and the
same for both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from adult import cpu_model

from privsyn_jax.models import IMAGE_GENERATORS, ONE_SHOT
from privsyn_jax.privacy.sampling import exact_sampling_rate
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.training.state import initial_state
from privsyn_jax.training.step import DPStep
from privsyn_jax.types import Images

SHAPE, NUM_CLASSES, MICROBATCH = (28, 28, 1), 10, 64
SMALLER = {"channels": (32, 64)}  # as the CPU-sized configs have them


def main() -> None:
    parser = argparse.ArgumentParser(description="throughput of DP-SGD on images")
    parser.add_argument("--json", required=True, help="where to write every value")
    parser.add_argument("--models", default=",".join(name for name in IMAGE_GENERATORS if name not in ONE_SHOT))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round, one microbatch")
    options = parser.parse_args()
    if options.quick:
        options.batch_size, options.rounds = MICROBATCH, 1
    rows = []
    for name in options.models.split(","):
        rows += measure(name, options.batch_size, options.rounds)
        host = {"cpu": cpu_model(), "cpu_count": os.cpu_count(), "python": platform.python_version()}
        content = {"host": host, "date": datetime.now(UTC).date().isoformat(), "rows": rows}
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n")
    print("| model | private images/s | plain images/s | plain ÷ private |\n|---|---|---|---|")
    for name in options.models.split(","):
        found = {row["contestant"]: row for row in rows if row["workload"] == name}
        private, plain = found["private"], found["plain"]
        print(f"| {name} | {private['value']:.0f} | {plain['value']:.0f} | {private['ratio']:.2f} |")


def measure(name: str, batch_size: int, rounds: int) -> list[dict]:
    make = IMAGE_GENERATORS[name]
    arguments = {key: value for key, value in SMALLER.items() if key in make.__kwdefaults__}
    generator = make(image_shape=SHAPE, num_classes=NUM_CLASSES, **arguments)
    rng = np.random.default_rng(0)
    images = Images(
        rng.integers(0, 256, (batch_size, *SHAPE), np.uint8), rng.integers(0, NUM_CLASSES, batch_size, np.int32)
    )
    steps = {"private": private_step(generator, images, batch_size), "plain": plain_step(generator, images, batch_size)}
    seconds = {which: [] for which in steps}
    for step in steps.values():
        step()  # compiles
    for number in range(rounds):
        print(f"{name}, round {number}", file=sys.stderr, flush=True)
        for which, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[which].append(time.perf_counter() - started)
    ratio = float(np.median(np.array(seconds["private"]) / np.array(seconds["plain"])))
    return [
        {"workload": name, "contestant": which, "metric": "images_per_second",
         "value": batch_size / float(np.median(found)), "ratio": ratio, "ratio_to": "plain"}
        for which, found in seconds.items()
    ]  # fmt: skip


def private_step(generator, images, batch_size):
    optimizer, key = optax.adam(1e-3), jax.random.key(0)
    step = DPStep(generator.private_loss, optimizer, microbatch_size=MICROBATCH, ema_decay=0.99)
    level = Level(1, exact_sampling_rate(batch_size, 60_000), batch_size, 1.0, 1.0)
    state = initial_state(generator.init(key), optimizer, level)
    clip = jax.jit(step.clipped)
    update = jax.jit(lambda state, total, key: step.update(state, total, jnp.int32(batch_size), key)[0])
    ids, is_padding = jnp.arange(MICROBATCH), jnp.zeros(MICROBATCH, bool)

    def run():
        nonlocal state
        total = None
        for part in microbatches(images, batch_size):
            one = clip(state, part, ids, is_padding, key)
            total = one if total is None else jax.tree.map(jnp.add, total, one)
        state = jax.block_until_ready(update(state, total, jax.random.key(1)))

    return run


def plain_step(generator, images, batch_size):
    optimizer, params = optax.adam(1e-3), generator.init(jax.random.key(0))
    private, opt_state = params["private"], optimizer.init(params["private"])

    @jax.jit
    def gradient(private, part, keys):
        losses = jax.vmap(generator.private_loss, in_axes=(None, 0, 0))
        return jax.grad(lambda private: losses({**params, "private": private}, part, keys).sum())(private)

    @jax.jit
    def update(private, opt_state, total):
        updates, opt_state = optimizer.update(jax.tree.map(lambda leaf: leaf / batch_size, total), opt_state)
        return optax.apply_updates(private, updates), opt_state

    keys = jax.random.split(jax.random.key(2), MICROBATCH)

    def run():
        nonlocal private, opt_state
        total = None
        for part in microbatches(images, batch_size):
            one = gradient(private, part, keys)
            total = one if total is None else jax.tree.map(jnp.add, total, one)
        private, opt_state = jax.block_until_ready(update(private, opt_state, total))

    return run


def microbatches(images, batch_size):
    for start in range(0, batch_size, MICROBATCH):
        yield jax.tree.map(lambda array, start=start: array[start : start + MICROBATCH], images)


if __name__ == "__main__":
    main()
