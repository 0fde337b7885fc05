"""What test_parallel.py runs in processes of its own, with several virtual devices each.

python steps_over_devices.py OUT: everything on 8 devices of one process.
python steps_over_devices.py OUT PROCESS PORT: process 0 or 1 of two.
Results go to the file OUT as a pickled dict.
"""

import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from privsyn_jax.plan import Plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.sampling import exact_sampling_rate
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.privacy.secret import Secret
from privsyn_jax.settings import Settings, TrainingSettings
from privsyn_jax.training import dp_sgd
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.training.parallel import AXIS, WRAPPERS, DataParallel
from privsyn_jax.training.state import TrainState, initial_state
from privsyn_jax.training.step import DPStep, Shard, many_steps, repeated
from privsyn_jax.types import Generator

CASES = {  # rows, sampling rate, numbers of devices
    "rows not a multiple of the devices": (21, 0.5, (1, 2, 8)),
    "fewer rows than devices": (5, 0.5, (8,)),
    "one row": (1, 1.0, (8,)),
    "empty batches": (21, 2.0**-32, (8,)),
    "everyone": (21, 1.0, (8,)),
}
DISPATCHES, STEPS_PER_DISPATCH = 3, 2
CLIP_NORM, NOISE_MULTIPLIER, EXPECTED_BATCH_SIZE = 3.0, 2.0, 8.0
NOISE_SIZE, SEED = 20_000, 7
LEVEL = Level(1, 0.5, EXPECTED_BATCH_SIZE, NOISE_MULTIPLIER, CLIP_NORM)
OPTIMIZER, SGD = optax.sgd(0.1, momentum=0.9), optax.sgd(1.0)

num_traces, compilations = 0, []


def key() -> jax.Array:
    return jax.random.key(SEED)


def table(num_rows: int) -> dict[str, np.ndarray]:
    features = np.random.default_rng(0).normal(size=(num_rows, 3)).astype(np.float32)
    return {"features": features, "number": np.arange(num_rows, dtype=np.int32)}


def regression_loss(params, example, key):
    """Uses its key, and has a gradient even for a row of zeros, as it fills up a device's part."""
    global num_traces
    num_traces += 1
    private = params["private"]
    output = private["w"] @ example["features"] + private["b"] + params["public"]["root"]
    return jnp.sum(jnp.square(output - 0.1 * jax.random.normal(key, (4,)))) * (1 + example["number"])


def counting_loss(params, example, key):
    """Its gradient is one at the record's own number: the sum tells how often each record was taken."""
    del key
    return params["private"]["count"][example["number"]]


def flat_loss(params, example, key):
    """Its gradient is zero: what moves the parameters is noise alone."""
    del key
    return 0.0 * jnp.sum(params["private"]["w"]) * example["features"][0]


def make_step(private_loss=regression_loss, optimizer=OPTIMIZER, **changes) -> DPStep:
    return DPStep(private_loss, optimizer, **{"microbatch_size": 4, "ema_decay": 0.9, **changes})


def start(**level) -> TrainState:
    private = {"w": jnp.ones((4, 3)), "b": jnp.ones(4)}
    params = {"private": private, "public": {"root": jnp.arange(4.0)}}
    return initial_state(params, OPTIMIZER, LEVEL._replace(**level))


def start_at_zero(name: str, size: int, **level) -> TrainState:
    return initial_state({"private": {name: jnp.zeros(size)}, "public": {}}, SGD, LEVEL._replace(**level))


def copied(tree):
    """On the host: the state's buffers are donated."""
    return jax.tree.map(np.array, tree)


def dispatched(run, records, **level) -> dict:
    """What comes of a few dispatches, the state carried on, and what they cost."""
    state, logs, later_traces, later_compilations, donated = start(**level), [], 0, 0, []
    for number in range(DISPATCHES):
        before, traces_before, compilations_before = state, num_traces, len(compilations)
        state, log = run(state, records, key())
        donated += [leaf.is_deleted() for leaf in jax.tree.leaves(before)]
        logs.append(copied(log))
        if number > 0:
            later_traces += num_traces - traces_before
            later_compilations += len(compilations) - compilations_before
    return {
        "state": copied(state),
        "logs": jax.tree.map(lambda *values: np.concatenate(values), *logs),
        "later traces": later_traces,
        "later compilations": later_compilations,
        "donated": all(donated),
        "same on every device": same_on_every_device(state),
    }


def same_on_every_device(state: TrainState) -> bool:
    shards = [
        [np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards] for leaf in jax.tree.leaves(state)
    ]
    return all(one == copies[0] for copies in shards for one in copies)


def over_devices(num_devices: int, num_rows: int, wrapper: str) -> DataParallel:
    return DataParallel(tuple(jax.devices()[:num_devices]), num_rows, wrapper)


def results_of_cases() -> dict:
    results = {}
    for name, (num_rows, rate, device_counts) in CASES.items():
        step, rows = make_step(), table(num_rows)
        resident = many_steps(step, STEPS_PER_DISPATCH)
        results[name, 1, "resident"] = dispatched(resident, jax.tree.map(jnp.asarray, rows), sampling_rate=rate)
        for num_devices in device_counts:
            for wrapper in WRAPPERS:
                parallel = over_devices(num_devices, num_rows, wrapper)
                run = parallel.many_steps(step, STEPS_PER_DISPATCH)
                results[name, num_devices, wrapper] = dispatched(run, parallel.place(rows), sampling_rate=rate)
    return results


def times_taken(wrapper: str, num_rows: int = 21, num_steps: int = 6) -> dict:
    """How often every record was taken in every step, and the draws of one device."""
    step, state = (
        make_step(counting_loss, SGD, adds_noise=False),
        start_at_zero("count", num_rows, expected_batch_size=1.0),
    )
    parallel, counts, controls = over_devices(8, num_rows, wrapper), [np.zeros(num_rows)], copied(state.controls)
    run, rows = parallel.many_steps(step, 1), parallel.place(table(num_rows))
    for _ in range(num_steps):
        state, _ = run(state, rows, key())
        counts.append(-np.asarray(state.params["private"]["count"]))
    draws = [np.asarray(step.draw(jnp.int32(number), controls, key(), num_rows)) for number in range(num_steps)]
    return {"taken": np.diff(counts, axis=0), "drawn": np.array(draws)}


def noise(wrapper: str | None) -> dict:
    """One step of noise, on 8 devices or on one."""
    step, rows, state = make_step(flat_loss, SGD, microbatch_size=16), table(16), start_at_zero("w", NOISE_SIZE)
    if wrapper is None:
        state, _ = many_steps(step, 1)(state, jax.tree.map(jnp.asarray, rows), key())
    else:
        parallel = over_devices(8, 16, wrapper)
        state, _ = parallel.many_steps(step, 1)(state, parallel.place(rows), key())
    return {"noise": np.asarray(state.params["private"]["w"]), "same on every device": same_on_every_device(state)}


def refusal(function) -> str:
    try:
        function()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def step_that_would_sum_before_clipping():
    """A shard_map with its default check_vma=True, everything else as in `DataParallel`."""
    parallel = over_devices(8, 16, "shard_map")
    step = make_step(shard=Shard(AXIS, 16))
    rows = parallel.place(table(16))
    checked = jax.shard_map(
        lambda state, rows, key: repeated(step, 1)(state, jax.tree.map(lambda array: array[0], rows), key),
        mesh=parallel._mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    jax.jit(checked)(start(), rows, key())


def trained(num_rows: int = 30, **settings) -> dict[str, np.ndarray]:
    """dp_sgd.train from end to end."""
    generator = Generator(
        init=lambda key: {"private": {"w": jax.random.normal(key, (3,))}, "public": {}},
        private_loss=lambda params, example, key: jnp.sum(
            jnp.square(params["private"]["w"] - example - jax.random.normal(key, (3,)))
        ),
        public_loss=None,
        calibrate=None,
        sample=lambda *_: None,
        exact_conditions=lambda *_: (),
    )
    plan = Plan(
        epsilon=1.0,
        delta=1e-5,
        category_delta=0.0,
        releases=(),
        levels=(Level(3, exact_sampling_rate(10, num_rows), 10.0, 1.0, 1.0),),
        num_groups=1,
        adaptive=None,
        warnings=(),
    )
    params, _ = dp_sgd.train(
        generator,
        Private(table(num_rows)["features"]),
        None,
        plan=plan,
        settings=Settings(training=TrainingSettings(num_steps=3, steps_per_dispatch=3, **settings)),
        attempt=Attempt(Secret(b"", seed=SEED), Ledger()),
    )
    return copied(params["private"])


def on_eight_devices() -> dict:
    return {
        "cases": results_of_cases(),
        "times taken": {wrapper: times_taken(wrapper) for wrapper in WRAPPERS},
        "noise": {wrapper: noise(wrapper) for wrapper in (None, *WRAPPERS)},
        "check_vma": refusal(step_that_would_sum_before_clipping),
        "trained": {
            "one device": trained(num_devices=1),
            "pmap": trained(),
            "shard_map": trained(num_devices=3, device_wrapper="shard_map"),
        },
        "too many devices": refusal(lambda: trained(num_devices=9)),
        "host and several devices": refusal(lambda: trained(num_devices=2, records_on="host")),
    }


class Watched:
    """An array that remembers which rows were read."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, set()

    def __getitem__(self, rows):
        self.read.update(np.arange(len(self.array))[rows].tolist())
        return self.array[rows]


def in_one_of_two_processes(process: int, port: int) -> dict:
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process, initialization_timeout=60)
    num_rows, results = 21, {}
    for wrapper in WRAPPERS:
        parallel = over_devices(4, num_rows, wrapper)
        run = parallel.many_steps(make_step(), STEPS_PER_DISPATCH)
        rows = {name: Watched(array) for name, array in table(num_rows).items()}
        results[wrapper] = dispatched(run, parallel.place(rows))
        results[wrapper]["read"] = [watched.read for watched in rows.values()]
        own_key = jax.random.key(process)
        results[wrapper]["different keys"] = refusal(lambda run=run, rows=rows, k=own_key: run(start(), rows, k))
    results["left out"] = refusal(lambda: over_devices(2, num_rows, "pmap")) if process == 1 else None
    return results


def main(out: str, process: str = "", port: str = "0") -> None:
    jax.config.update("jax_debug_key_reuse", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compilations.append(name) if "backend_compile" in name else None
    )
    results = in_one_of_two_processes(int(process), int(port)) if process else on_eight_devices()
    Path(out).write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
