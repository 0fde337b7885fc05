"""Records on the host or on the device, losses in bfloat16, schedules: the same step, wherever and however it runs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from unpaid import Unpaid

from privsyn_jax.privacy.clipping import clipped_grad_sum
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.settings import TrainingSettings
from privsyn_jax.training import feed, loop
from privsyn_jax.training.placement import automatic_microbatch_size, place
from privsyn_jax.training.state import initial_state, with_level
from privsyn_jax.training.step import DPStep, computed_in, many_steps
from privsyn_jax.types import UserError

NUM_ROWS, CLIP_NORM = 21, 0.7
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
ROWS = np.random.default_rng(0).normal(size=(NUM_ROWS, 5)).astype(np.float32)
PARAMS = {"private": {"w": jnp.full((5, 3), 0.1), "b": jnp.zeros(3)}, "public": {}}


def loss(params, example, key):
    """Uses its key."""
    return jnp.sum(
        jnp.tanh(example["x"] @ params["private"]["w"] + params["private"]["b"]) * jax.random.normal(key, (3,))
    )


def convolving_loss(params, example, key):
    del key
    kernel = params["private"]["w"].reshape(5, 1, 3)
    out = jax.lax.conv_general_dilated(
        example["x"][None, :, None], kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return jnp.sum(jnp.sin(out + params["private"]["b"][None, None]))


LEVEL = Level(1, sampling_rate=0.5, expected_batch_size=10.0, noise_multiplier=0.5, l2_clip_norm=CLIP_NORM)


def make_step(private_loss=loss, optimizer=OPTIMIZER, **changes) -> DPStep:
    return DPStep(private_loss, optimizer, **{"microbatch_size": 4, "ema_decay": 0.9, **changes})


def start():
    return initial_state(jax.tree.map(jnp.copy, PARAMS), OPTIMIZER, LEVEL)


def run(step, records, compile_steps, num_steps=5, steps_per_dispatch=2, **level):
    logs = []
    state = loop.fit(
        step,
        start(),
        records,
        key=jax.random.key(3),
        spending=Unpaid(LEVEL._replace(**level), num_steps, steps_per_dispatch),
        hooks=[lambda state, log: logs.append(log) if log else None],
        compile_steps=compile_steps,
    )
    return jax.device_get(state), jax.tree.map(lambda *values: np.concatenate(values), *logs)


def assert_close(one, other, rtol=1e-5):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=1e-6)


def on_disk(folder) -> np.memmap:
    array = np.memmap(folder / "rows", np.float32, "w+", shape=ROWS.shape)
    array[:] = ROWS
    return array


@pytest.mark.parametrize(
    ("private_loss", "rate", "microbatch_size"),
    [(loss, 0.5, 4), (loss, 1.0, NUM_ROWS), (loss, 2.0**-32, 4), (convolving_loss, 0.5, 4)],
    ids=["half, several slices", "everyone, exactly one slice", "nobody", "convolution"],
)
def test_records_on_the_host_give_the_result_of_records_on_the_device(private_loss, rate, microbatch_size, tmp_path):
    step = make_step(private_loss, microbatch_size=microbatch_size)
    fed, resident = (
        run(step, {"x": on_disk(tmp_path)}, feed.many_steps, sampling_rate=rate),
        run(step, {"x": jnp.asarray(ROWS)}, many_steps, sampling_rate=rate),
    )
    assert_close(fed, resident)
    sizes = resident[1]["batch_size"]
    assert {0.5: len(set(sizes.tolist())) > 2, 1.0: (sizes == NUM_ROWS).all(), 2.0**-32: not sizes.any()}[rate]


def test_the_next_batch_is_drawn_before_the_step_that_precedes_it_is_queued(monkeypatch):
    order, functions = [], []
    step = make_step()
    jax.clear_caches()  # jit of a function of a module shares its cache with every other jit of it
    monkeypatch.setattr(jax, "jit", functools.partial(noting_jit, order, functions))
    _, logs = run(step, {"x": ROWS}, feed.many_steps, num_steps=3, steps_per_dispatch=3)
    assert len(set(logs["batch_size"].tolist())) > 1
    assert [function._cache_size() for function in functions] == [1] * 4  # one compilation for batches of any size
    draws = [place for place, name in enumerate(order) if name == "draw"]
    updates = [place for place, name in enumerate(order) if name == "finish"]
    assert len(draws) == len(updates) == 3
    assert draws[1] < updates[0] and draws[2] < updates[1]
    assert "add_slice" not in order[: draws[1]]


real_jit = jax.jit


def noting_jit(order, functions, function, **arguments):
    compiled = real_jit(function, **arguments)
    functions.append(compiled)

    def call(*inputs):
        order.append(function.__name__)
        return compiled(*inputs)

    return call


def test_placement_follows_the_loss_and_the_settings():
    records, on_device, conv = {"x": ROWS}, make_step(), make_step(convolving_loss)
    where = lambda step, **settings: place(step, PARAMS, records, TrainingSettings(**settings))[1]  # noqa: E731
    assert where(on_device) is many_steps
    assert where(on_device, records_on="host") is feed.many_steps
    assert where(conv) is feed.many_steps  # XLA's loops are slow with convolutions on CPU
    assert where(conv, records_on="device") is many_steps
    with pytest.raises(UserError, match=r"^training.num_devices is 99: this machine has \d+$"):
        where(on_device, num_devices=99)


def test_a_microbatch_on_an_accelerator_holds_nearly_every_draw(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert automatic_microbatch_size(256) == 320  # four standard deviations
    assert automatic_microbatch_size(256, num_devices=4) == 96


@pytest.mark.parametrize("method", ["vmap", "ghost"])
def test_a_loss_in_bfloat16_is_clipped_and_summed_in_float32(method):
    low = computed_in("bfloat16", loss)
    assert loss_dtype(low) == jnp.float32
    norms = []
    for row in range(4):
        alone = jnp.arange(4) != row
        result = clipped_grad_sum(
            low, PARAMS, {"x": jnp.asarray(ROWS[:4])}, alone, jax.random.key(0), l2_clip_norm=0.1, method=method
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(result.grad_sum)} == {jnp.dtype("float32")}
        norms.append(np.sqrt(sum(np.sum(np.square(np.float64(leaf))) for leaf in jax.tree.leaves(result.grad_sum))))
        assert int(result.nonprivate_clipped_count) == 1
    assert max(norms) <= 0.1 and min(norms) > 0.1 * (1 - 1e-5)


def loss_dtype(private_loss):
    return jax.eval_shape(private_loss, PARAMS, {"x": jnp.asarray(ROWS[0])}, jax.random.key(0)).dtype


def test_the_levels_of_a_run_need_one_compilation_and_are_what_the_steps_run_with():
    size = 20_000

    def flat_loss(params, example, key):
        return 0.0 * jnp.sum(params["private"]["w"]) * example["x"][0]

    step = make_step(flat_loss, optimizer=optax.sgd(1.0))
    levels = [Level(1, 0.5, 10.0, 3.0, 1.0), Level(1, 0.25, 5.0, 3.0, 2.0), Level(1, 1.0, 20.0, 1.0, 2.0)]
    state = initial_state({"private": {"w": jnp.zeros(size)}, "public": {}}, step.optimizer, levels[0])
    compiled, positions, sizes = many_steps(step, 1), [np.zeros(size)], []
    for level in levels:
        state, log = compiled(with_level(state, level), {"x": jnp.asarray(ROWS)}, jax.random.key(0))
        positions.append(np.array(state.params["private"]["w"]))
        sizes.append(int(log["batch_size"][0]))
    assert compiled._cache_size() == 1
    for noise, level in zip(np.diff(positions, axis=0), levels, strict=True):
        stddev = level.noise_multiplier * level.l2_clip_norm / level.expected_batch_size
        assert abs(noise.std() - stddev) <= 5 * stddev / math.sqrt(2 * size)
    assert sizes[2] == NUM_ROWS and sizes[1] < sizes[2]


def test_draws_are_averaged_before_clipping():
    """The same sum as of a loss that averages by hand; its sensitivity is that of one draw."""
    inputs = (PARAMS, {"x": jnp.asarray(ROWS)}, jnp.zeros(NUM_ROWS, bool), jax.random.key(5))

    def by_hand(params, example, key):
        return sum(loss(params, example, draw_key) for draw_key in jax.random.split(key, 3)) / 3

    averaged = clipped_grad_sum(loss, *inputs, l2_clip_norm=CLIP_NORM, num_draws=3)
    assert_close(averaged, clipped_grad_sum(by_hand, *inputs, l2_clip_norm=CLIP_NORM, method="vmap"))
    one_draw = clipped_grad_sum(loss, *inputs, l2_clip_norm=CLIP_NORM)
    assert float(averaged.nonprivate_norm_sum) < 0.9 * float(one_draw.nonprivate_norm_sum)
