"""Ghost clipping as a whole: random programs, what one record can move, rounding, methods and devices."""

import functools
import logging
import math
import subprocess
import sys
import textwrap

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ghost_oracle import BATCH, Case, check, draw, filled, flat, forced, quick_jit
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax import lax
from jax.extend import core

from privsyn_jax.privacy import clipping, ghost
from privsyn_jax.privacy.clipping import ClippedSum, clipped_grad_sum
from privsyn_jax.privacy.microbatch import microbatched_grad_sum

WIDTH, STEPS = 4, 3
NOBODY = np.zeros(BATCH, bool)
POOL = {
    "a": 0.6 * draw(WIDTH, WIDTH),
    "b": 0.6 * draw(WIDTH, WIDTH, seed=1),
    "v": draw(WIDTH),
    "table": draw(5, WIDTH),
    "kernel": 0.5 * draw(3, WIDTH, WIDTH),
    "stack": 0.6 * draw(2, WIDTH, WIDTH),
}
MASK = (np.arange(WIDTH)[:, None] <= np.arange(WIDTH)).astype(np.float32)


def over_time(matrix, h):
    step = lambda carry, h_t: 2 * (jnp.tanh(carry @ matrix + h_t),)  # noqa: E731
    return lax.scan(step, jnp.zeros(WIDTH), h)[1]


# What a line of a program does: (hidden [STEPS, WIDTH], matrix, other matrix, parameters, tokens [STEPS]) -> hidden.
LINES = {
    "dense": lambda h, m, n, p, t: h @ m,
    "bias": lambda h, m, n, p, t: h + p["v"][None],
    "gate": lambda h, m, n, p, t: h * p["v"][None],
    "scale": lambda h, m, n, p, t: h * p["v"][0],
    "tanh": lambda h, m, n, p, t: jnp.tanh(h),
    "residual": lambda h, m, n, p, t: h + jnp.tanh(h @ m),
    "embed": lambda h, m, n, p, t: h + p["table"][t],
    "attend": lambda h, m, n, p, t: jax.nn.softmax(h @ p["table"].T, axis=-1) @ p["table"],
    "look up in a matrix": lambda h, m, n, p, t: h + m[t % WIDTH],
    "conv": lambda h, m, n, p, t: lax.conv_general_dilated(
        h[None], p["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )[0],
    "layers": lambda h, m, n, p, t: lax.scan(lambda h, own: (jnp.tanh(h @ own) + h @ m, None), h, p["stack"])[0],
    "time": lambda h, m, n, p, t: over_time(m, h),
    "remat": lambda h, m, n, p, t: jax.checkpoint(lambda m, h: jnp.sin(h @ m) @ m)(m, h),
    "first step": lambda h, m, n, p, t: h.at[0].set(jnp.tanh(h[0] @ m)),
    "product": lambda h, m, n, p, t: h @ (m @ n),
    "norm": lambda h, m, n, p, t: nn.standardize(h, axis=-1, epsilon=0.1),
    "mix": lambda h, m, n, p, t: jax.nn.softmax((h @ m) @ (h @ n).T / 2, axis=-1) @ h,
    "halves": lambda h, m, n, p, t: jnp.concatenate([h @ m[:, :2], jnp.sin(h @ n[:, 2:])], axis=1),
    "branch": lambda h, m, n, p, t: lax.cond(t[0] > 1, lambda: h @ m, lambda: h @ n),
    "learn": lambda h, m, n, p, t: h @ (m - 0.1 * jax.grad(lambda m: jnp.sum(jnp.tanh(h @ m)))(m)),
    "regularise": lambda h, m, n, p, t: h + 0.1 * jnp.sum(m * n),
}
MATRICES = {
    "a": lambda p: p["a"],
    "b": lambda p: p["b"],
    "transpose": lambda p: p["a"].T,
    "masked": lambda p: p["a"] * MASK,
    "twice": lambda p: 2.0 * p["b"],
    "rows": lambda p: p["table"][:WIDTH],
    "tap": lambda p: p["kernel"][1],
    "layer": lambda p: p["stack"][0],
    "upside down": lambda p: p["b"][::-1],
    "unit": lambda p: p["a"] / jnp.sqrt(jnp.sum(jnp.square(p["a"]))),
    "stopped": lambda p: lax.stop_gradient(p["b"]),
}
program_lines = st.tuples(*(st.sampled_from(sorted(names)) for names in (LINES, MATRICES, MATRICES)))


@settings(max_examples=8, deadline=None)
@given(st.lists(program_lines, min_size=2, max_size=5))
def test_random_programs(program):
    def loss(params, example, key):
        private, h = params["private"], example["h"]
        for line, matrix, other in program:
            h = LINES[line](h, MATRICES[matrix](private), MATRICES[other](private), private, example["tokens"])
        return jnp.sum(jnp.sin(h))

    check(
        Case(
            loss,
            POOL,
            {"h": draw(BATCH, STEPS, WIDTH), "tokens": np.array([[0, 4, 4], [2, 2, 2], [1, 3, 0]], np.int32)},
        )
    )


@functools.partial(quick_jit, static_argnames=("loss", "method", "num_draws", "memory_budget"))
def clipped(
    loss, params, examples, is_padding, *, l2_clip_norm, method="ghost", num_draws=1, memory_budget=2**31
) -> ClippedSum:
    key = jax.random.key(0)
    return clipped_grad_sum(
        loss,
        params,
        examples,
        is_padding,
        key,
        l2_clip_norm=l2_clip_norm,
        method=method,
        num_draws=num_draws,
        memory_budget=memory_budget,
    )


def assert_same(one: ClippedSum, other: ClippedSum) -> None:
    difference = np.linalg.norm(flat(one.grad_sum) - flat(other.grad_sum))
    assert difference <= 1e-5 * np.linalg.norm(flat(one.grad_sum))
    np.testing.assert_allclose(flat(one[1:]), flat(other[1:]), rtol=1e-5)


def assert_equal_bytes(one, other) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


class Everything(nn.Module):
    """Dense layers, a convolution, an embedding, a norm and biases."""

    precision: lax.Precision | None = None

    @nn.compact
    def __call__(self, example):
        pixels = nn.Conv(2, (3, 3), precision=self.precision)(example["image"]).reshape(-1)
        words = nn.Dense(3, precision=self.precision)(nn.Embed(5, 3)(example["tokens"])).reshape(-1)
        hidden = jnp.tanh(nn.LayerNorm()(jnp.concatenate([pixels, words, example["row"]])))
        hidden = nn.Dense(4, precision=self.precision)(hidden)
        return jnp.sum(jnp.sin(hidden) * example["slope"]) + jnp.sum(pixels) * example["push"]


CROWD = 5
EXAMPLES = {
    "image": draw(CROWD, 4, 3, 1),
    "tokens": np.random.default_rng(0).integers(0, 5, (CROWD, 3), np.int32),
    "row": draw(CROWD, 3),
    "slope": draw(CROWD, 4),
    "push": draw(CROWD, seed=1),
}
one_example = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape[1:], array.dtype), EXAMPLES)
EVERYTHING = filled(jax.eval_shape(Everything().init, jax.random.key(0), one_example)["params"])
PARAMS = {"private": EVERYTHING, "public": None}


def everything(params, example, key):
    return Everything().apply({"params": params["private"]}, example)


def only(*positions: int) -> np.ndarray:
    """Padding mask that keeps these positions."""
    return ~np.isin(np.arange(CROWD), positions)


extreme = st.floats(width=32) | st.sampled_from(
    [0.0, 1e-38, 1e-30, 1e-20, 1e-10, 1e10, 1e13, 1e19, 1e25, 3e38, math.nan, math.inf, -math.inf]
)
extremes = {
    name: hnp.arrays(np.float32, EXAMPLES[name].shape, elements=extreme, fill=st.sampled_from([np.float32(1), 0.5]))
    for name in ("image", "row", "slope", "push")
}


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries(extremes), st.sampled_from([1e-3, 1.0, 1e4]))
def test_removing_a_record_moves_the_sum_by_at_most_the_clip_norm(values, clip_norm):
    examples = {**EXAMPLES, **values}
    total = lambda mask: flat(clipped(everything, PARAMS, examples, mask, l2_clip_norm=clip_norm).grad_sum)  # noqa: E731
    crowd = total(only(*range(CROWD)))
    for removed in range(CROWD):
        move = np.linalg.norm(crowd - total(~only(removed)))
        assert move <= clip_norm * (1 + 1e-5)
        assert np.linalg.norm(total(only(removed))) <= clip_norm * (1 + 1e-6)


@pytest.mark.parametrize("content", [1.0, -1e30, 3e38, math.inf, math.nan])
def test_padding_content_changes_nothing_bit_for_bit(content):
    mask = only(0, 2, 3)
    fill = lambda array: np.where(mask.reshape(-1, *[1] * (array.ndim - 1)), np.array(content, array.dtype), array)  # noqa: E731
    filled_up = {name: fill(array) if array.dtype == np.float32 else array for name, array in EXAMPLES.items()}
    plain = clipped(everything, PARAMS, EXAMPLES, mask, l2_clip_norm=0.5)
    assert_equal_bytes(plain, clipped(everything, PARAMS, filled_up, mask, l2_clip_norm=0.5))
    assert_same(plain, clipped(everything, PARAMS, EXAMPLES, mask, l2_clip_norm=0.5, method="vmap"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["image", "row", "slope", "push"])
def test_what_is_not_finite_is_removed_as_by_vmap(name, value):
    array = EXAMPLES[name].copy()
    array.reshape(CROWD, -1)[1, 0] = value
    array.reshape(CROWD, -1)[3, -1] = value
    results = [
        clipped(everything, PARAMS, {**EXAMPLES, name: array}, only(0, 1, 2, 3), l2_clip_norm=0.5, method=method)
        for method in ("ghost", "vmap")
    ]
    assert int(results[0].nonprivate_nonfinite_count) == 2
    assert_same(*results)


def bilinear(params, example, key):
    """Its gradient is the sum over positions of x (outer) g, both given by the example."""
    return jnp.sum((example["x"] @ params["private"]) * example["g"])


def contributions(loss, private, examples, clip_norm) -> tuple[np.ndarray, np.ndarray]:
    """float64 norm of what each example adds, and whether it was dropped."""
    size = len(jax.tree.leaves(examples)[0])
    params, norms, dropped = {"private": private, "public": None}, [], []
    for kept in range(size):
        result = clipped(loss, params, examples, np.arange(size) != kept, l2_clip_norm=clip_norm)
        norms.append(np.linalg.norm(flat(result.grad_sum)))
        dropped.append(int(result.nonprivate_nonfinite_count))
    return np.array(norms), np.array(dropped)


@pytest.mark.parametrize("zero", ["x", "g"])
@pytest.mark.parametrize("positions", [1, 3])
def test_infinity_times_zero_is_not_finite(positions, zero):
    examples = {"x": draw(2, positions, 6), "g": draw(2, positions, 5)}
    examples[zero][0] = 0.0
    examples["g" if zero == "x" else "x"][0, 0, 2] = np.inf
    for method in ("gram", "gradient"):
        with forced(method):
            norms, dropped = contributions(lambda *args: bilinear(*args), np.zeros((6, 5), np.float32), examples, 1.0)
        assert dropped.tolist() == [1, 0] and norms[0] == 0 and norms[1] > 0.99


SCALES = [1e-38, 1e-30, 1e-20, 1e-19, 1e-10, 1.0, 1e10, 9e11, 1.1e12, 1e19, 1e25, 3e37]


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("method", ["gram", "gradient"])
def test_scales_at_which_squares_underflow_or_overflow(method, positions):
    pairs = np.array([(a, b) for a in SCALES for b in SCALES], np.float32)
    x, g = draw(1, positions, 32, scale=0.1), draw(1, positions, 32, scale=0.1, seed=1)
    examples = {"x": pairs[:, :1, None] * x, "g": pairs[:, 1:, None] * g}
    clip_norm, weights = 1e-3, np.zeros((32, 32), np.float32)

    @quick_jit
    def each(examples):
        with forced(method):
            plan = ghost.make_plan(lambda w, x: bilinear({"private": w}, x, None), weights, (examples,))
        gradients = ghost.per_example(plan, weights, (examples,))
        kept = jnp.isfinite(gradients.norms)
        factors = jnp.where(kept, jnp.minimum(1.0, clip_norm / jnp.maximum(gradients.norms, 1e-30)), 0.0)
        return gradients.norms, jax.vmap(gradients.weighted_sum, in_axes=(0, None))(jnp.diag(factors), kept)

    norms, added = each(examples)
    assert np.linalg.norm(flat(added, 1), axis=1).max() <= clip_norm * (1 + 2e-6)
    true = np.float64(pairs).prod(axis=1) * np.linalg.norm(np.einsum("btk,btp->kp", np.float64(x), np.float64(g)))
    moderate = (true > 1e-12) & (true < 1e18) & (pairs.max(axis=1) < 1e12) & (pairs.min(axis=1) > 1e-15)
    np.testing.assert_allclose(np.asarray(norms)[moderate], true[moderate], rtol=1e-5)


def nearly_opposite(positions, rows, cols, closeness, size=8):
    """Positions that all see one activation, and cotangents that nearly add up to nothing."""
    rng = np.random.default_rng(0)
    x = np.broadcast_to(np.abs(rng.normal(size=(size, 1, rows))) * 3 + 1, (size, positions, rows))
    base = np.abs(rng.normal(size=(size, 1, cols))) + 1
    other = base * (1 + closeness * rng.normal(size=base.shape))
    g = np.where(np.arange(positions)[None, :, None] % 2, base, -other)
    return {"x": x.astype(np.float32), "g": g.astype(np.float32)}


@pytest.mark.parametrize("method", ["gram", "gradient"])
def test_cancelling_positions_do_not_lower_the_norm(method):
    clip_norm = 1e-3
    for closeness in (1e-1, 1e-3, 5e-4, 1e-4):
        examples = nearly_opposite(2, 64, 1024, closeness)
        with forced(method):
            norms, _ = contributions(
                lambda *args: bilinear(*args), np.zeros((64, 1024), np.float32), examples, clip_norm
            )
        assert norms.max() <= clip_norm * (1 + 1e-6)
        assert norms.min() > 0


@pytest.mark.parametrize("closeness", [1e-1, 1e-2, 1e-3])
def test_a_lookup_that_cancels_a_product_does_not_lower_the_norm(closeness):
    size, width, vocabulary = 8, 4096, 16
    rng = np.random.default_rng(0)
    g = np.abs(rng.normal(size=(size, 1, width))) + 1
    h = g * (1 + closeness * rng.normal(size=g.shape))
    tokens = np.arange(size, dtype=np.int32)[:, None]
    examples = {
        "g": np.float32(g),
        "h": np.float32(h),
        "tokens": tokens,
        "hot": np.eye(vocabulary, dtype=np.float32)[tokens],
    }

    def tied(params, example, key):
        looked_up = params["private"][example["tokens"]] * example["g"]
        return jnp.sum(looked_up) - jnp.sum((example["h"] @ params["private"].T) * example["hot"])

    with forced("gram"):
        norms, _ = contributions(tied, np.zeros((vocabulary, width), np.float32), examples, 1e-3)
    assert norms.max() <= 1e-3 * (1 + 1e-6)


def test_norms_of_separate_uses_miss_what_they_have_in_common():
    examples = draw(BATCH, 5)
    both = lambda first, second, x: jnp.sum(x @ first) + jnp.sum((2 * x) @ second)  # noqa: E731
    w = jnp.zeros((5, 3))

    def naive(x):
        """Broken: adds the squared norm of each use."""
        grads = jax.grad(both, argnums=(0, 1))(w, w, x)
        return jnp.sqrt(sum(jnp.sum(jnp.square(grad)) for grad in grads))

    truth = np.asarray(jax.vmap(lambda x: jnp.linalg.norm(jax.grad(lambda w: both(w, w, x))(w)))(examples))
    np.testing.assert_allclose(np.asarray(jax.vmap(naive)(examples)) / truth, math.sqrt(5) / 3, rtol=1e-5)  # 25 % low
    for method in ("gram", "gradient"):
        with forced(method):
            plan = ghost.make_plan(lambda w, x: both(w, w, x), w, (examples,))
        np.testing.assert_allclose(ghost.per_example(plan, w, (examples,)).norms, truth, rtol=1e-5)


def test_the_norm_of_many_entries_is_not_too_small():
    examples = {"x": np.full((2, 1, 20_000), 0.1, np.float32), "g": np.full((2, 1, 3), 0.1, np.float32)}
    examples["x"][1] = np.random.default_rng(0).standard_cauchy((1, 20_000))
    private = np.zeros((20_000, 3), np.float32)
    norms, _ = contributions(bilinear, private, examples, 0.7)
    assert norms.max() <= 0.7 and norms.min() > 0.7 * (1 - 1e-5)


def products(jaxpr):
    """Every dot product and convolution, at any depth."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize("method", ["gram", "gradient"])
def test_norms_and_sums_ask_for_full_float32_precision(method):
    # The loss asks for it too, so that a product which does not is one of the norms or sums.
    highest = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
    masked = draw(30, 30), np.float32(np.arange(30)[:, None] <= 15) * np.ones(30, np.float32)[None]

    def asking(precision):
        def loss(params, example, key):
            own, more = params["private"]
            looked_up = jnp.matmul(own["Embed_0"]["embedding"], jnp.ones((3, 2)), precision="highest")
            extra = jnp.matmul(jnp.resize(example["row"], 30), more * masked[1], precision="highest")
            whole = Everything(precision).apply({"params": own}, example)
            return whole + jnp.sum(jnp.sin(extra)) + jnp.sum(looked_up) * example["push"]

        with forced(method):
            return jax.make_jaxpr(functools.partial(clipped_grad_sum, loss, method="ghost", l2_clip_norm=1.0))(
                {"private": (EVERYTHING, masked[0])}, EXAMPLES, only(0, 1), jax.random.key(0)
            ).jaxpr

    precise = list(products(asking(lax.Precision.HIGHEST)))
    assert len(precise) > 12
    assert all(equation.params["precision"] == highest for equation in precise)
    assert any(equation.params["precision"] != highest for equation in products(asking(None)))


@pytest.mark.parametrize("method", ["ghost", "vmap", "microbatch"])
def test_several_draws_are_averaged_before_clipping(method):
    def loss(params, example, key):
        noisy = example["row"] + jax.random.normal(key, (3,))
        return jnp.sum(jnp.sin(noisy @ params["private"]["w"] + params["private"]["b"])) * example["push"]

    params = {"private": {"w": draw(3, 4), "b": draw(4)}, "public": None}
    result = clipped(loss, params, EXAMPLES, only(0, 1, 4), l2_clip_norm=0.3, method=method, num_draws=4)
    total = 0.0
    for i in (0, 1, 4):
        example = {name: EXAMPLES[name][i] for name in ("row", "push")}
        draws = jax.random.split(jax.random.fold_in(jax.random.key(0), i), 4)
        mean = np.mean(
            [flat(jax.grad(lambda p, k=k, e=example: loss({"private": p}, e, k))(params["private"])) for k in draws], 0
        )
        total = total + mean * min(1.0, 0.3 / np.linalg.norm(mean))
    np.testing.assert_allclose(flat(result.grad_sum), total, rtol=1e-4, atol=1e-6)


def elementwise(params, example, key):
    return jnp.sum(jnp.sin(params["private"] * example["row"]))


def test_auto_says_what_it_picks_and_why(caplog):
    caplog.set_level(logging.INFO, logger="privsyn_jax.privacy.clipping")
    whole = lambda loss, private: jax.eval_shape(  # noqa: E731
        lambda examples: clipped_grad_sum(
            loss, {"private": private}, examples, only(0), jax.random.key(0), l2_clip_norm=1.0
        ),
        EXAMPLES,
    )
    whole(elementwise, draw(3))
    assert caplog.messages == [
        f"vmap for {CROWD} examples: no parameter is used in a matrix operation that ghost norms know"
    ]
    caplog.clear()
    whole(everything, EVERYTHING)
    assert caplog.messages[0].startswith("ghost (") and "Conv_0/kernel [3, 3, 1, 2]" in "\n".join(caplog.messages)
    with pytest.raises(ValueError, match="method 'fast' must be one of auto, ghost, microbatch, vmap"):
        clipped_grad_sum(
            elementwise, {"private": draw(3)}, EXAMPLES, only(0), jax.random.key(0), l2_clip_norm=1.0, method="fast"
        )


def dense_only(params, example, key):
    return jnp.sum(
        jnp.sin(jnp.tanh(example["row"] @ params["private"]["w"] + params["private"]["b"]) @ params["private"]["v"])
    )


DENSE = {"private": {"w": draw(3, 4), "b": draw(4), "v": draw(4, 2)}, "public": None}


@pytest.mark.parametrize(
    ("loss", "params", "kept"), [(dense_only, DENSE, 16), (everything, PARAMS, 150)], ids=["dense", "conv"]
)
def test_methods_and_slices_give_one_sum(loss, params, kept, caplog):
    """`kept`: about the bytes per example that the ghost norms need."""
    caplog.set_level(logging.INFO, logger="privsyn_jax.privacy.clipping")
    examples = {
        name: np.concatenate([array, array[:4] / 2 if array.dtype == np.float32 else array[:4]])
        for name, array in EXAMPLES.items()
    }
    run = functools.partial(clipped, loss, params, examples, np.arange(9) == 3, l2_clip_norm=0.5)
    reference = run(method="vmap")
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(params["private"]))
    assert int(reference.nonprivate_clipped_count) > 0
    for method, budget in [("ghost", 2**31), ("microbatch", 5 * size), ("auto", 5 * kept)]:
        caplog.clear()
        assert_same(reference, run(method=method, memory_budget=budget))
        assert ("examples at a time" in caplog.messages[0]) == (budget < 2**31)


def test_models_trained_together_by_vmap():
    others = jax.tree.map(lambda leaf: np.stack([leaf, leaf * 0.7]), DENSE["private"])
    run = functools.partial(clipped, dense_only, examples=EXAMPLES, is_padding=only(0, 1, 2))
    together = jax.vmap(lambda private, norm: run({"private": private}, l2_clip_norm=norm))(
        others, jnp.array([0.5, 0.2])
    )
    for i, norm in enumerate([0.5, 0.2]):
        alone = run({"private": jax.tree.map(lambda leaf, i=i: leaf[i], others)}, l2_clip_norm=norm)
        assert_same(alone, jax.tree.map(lambda leaf, i=i: leaf[i], together))


@pytest.mark.parametrize("method", ["ghost", "auto"])
def test_a_draw_of_any_size_under_one_compilation(method):
    records = {name: jnp.tile(array, (4, *[1] * (array.ndim - 1)))[:14] for name, array in EXAMPLES.items()}

    @jax.jit
    def total(indices, batch_size):
        return microbatched_grad_sum(
            everything,
            PARAMS,
            records,
            indices,
            batch_size,
            jax.random.key(0),
            l2_clip_norm=0.5,
            microbatch_size=4,
            method=method,
        )

    for size in (0, 1, 4, 7, 14):
        drawn = np.random.default_rng(size).permutation(14)[:size]
        result = total(np.resize(np.append(drawn, [0] * 16), 16).astype(np.int32), np.int32(size))
        if size:
            rows = jax.tree.map(lambda array, drawn=drawn: array[drawn], records)
            padded = jax.tree.map(lambda array, size=size: np.resize(array, (14, *array.shape[1:])), rows)
            assert_same(
                clipped(everything, PARAMS, padded, np.arange(14) >= size, l2_clip_norm=0.5, method="vmap"), result
            )
        else:
            assert np.all(flat(result) == 0)
    assert total._cache_size() == 1


def equations(loss, private, examples) -> int:
    """Of norms and sums, at any depth."""

    def count(jaxpr):
        inner = sum(count(inner) for equation in jaxpr.eqns for inner in core.jaxprs_in_params(equation.params))
        return len(jaxpr.eqns) + inner

    total = functools.partial(clipped_grad_sum, loss, method="ghost", l2_clip_norm=1.0)
    return count(jax.make_jaxpr(total)({"private": private}, examples, NOBODY, jax.random.key(0)).jaxpr)


def test_expressions_that_read_one_another_several_times_stay_small():
    def loss(params, example, key, steps):
        w = params["private"]
        for _ in range(steps):
            w = w + 0.1 * w * w
        return jnp.sum(jnp.sin(example @ w))

    few, more = (equations(functools.partial(loss, steps=steps), draw(5, 3), draw(BATCH, 5)) for steps in (3, 6))
    assert more < 2 * few


def test_python_numbers_as_parameters():
    loss = lambda params, x, key: jnp.sum(jnp.sin(x @ params["private"]["w"])) * params["private"]["s"]  # noqa: E731
    run = functools.partial(clipped_grad_sum, loss, {"private": {"w": draw(5, 3), "s": 2.0}}, draw(BATCH, 5), NOBODY)
    assert_same(*(run(jax.random.key(0), l2_clip_norm=1.0, method=method) for method in ("vmap", "ghost")))


DEVICES = """
    import jax, numpy as np, jax.numpy as jnp
    from jax.sharding import PartitionSpec as P
    from privsyn_jax.privacy.clipping import clipped_grad_sum

    rows = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    loss = lambda params, x, key: jnp.sum(jnp.sin(x @ params["private"]))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def over_devices(function, check_vma, out_specs):
        specs = dict(mesh=mesh, in_specs=(P(), P("data")), out_specs=out_specs, check_vma=check_vma)
        return jax.jit(jax.shard_map(function, **specs))(w, rows)

    def naive(w, rows):
        grads = jax.vmap(jax.grad(lambda w, x: loss({"private": w}, x, None)), in_axes=(None, 0))(w, rows)
        return jnp.sqrt(jnp.sum(jnp.square(grads), axis=(1, 2)))

    true = np.asarray(naive(w, rows))
    trap = np.asarray(over_devices(naive, True, P()))  # "norms" of sums over devices: 2, not 16
    assert trap.shape == (2,) and not np.isclose(trap[:, None], true[None], rtol=0.05).any()
    np.testing.assert_allclose(over_devices(naive, False, P("data")), true, rtol=1e-5)

    def ours(w, rows, method="ghost"):
        result = clipped_grad_sum(loss, {"private": w}, rows, jnp.zeros(len(rows), bool), jax.random.key(0),
                                  l2_clip_norm=0.5, method=method)
        return result.grad_sum

    whole = np.asarray(ours(w, rows, "vmap"))
    for method in ("ghost", "auto", "vmap", "microbatch"):
        total = lambda w, rows: jax.lax.psum(ours(w, rows, method), "data")
        np.testing.assert_allclose(over_devices(total, False, P()), whole, rtol=1e-4, atol=1e-5)
        try:
            over_devices(total, True, P())
        except ValueError as error:
            assert "pass check_vma=False to shard_map" in str(error) and "'data'" in str(error), error
        else:
            raise AssertionError(f"{method} was not refused")
    print("trapped", np.abs(trap).max() / true.max())
"""


def test_gradients_that_shard_map_would_sum_first_are_refused(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    script = [sys.executable, "-c", textwrap.dedent(DEVICES)]
    run = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.startswith("trapped")


def test_auto_goes_in_slices_where_activations_outgrow_the_cache(monkeypatch):
    loss = lambda params, x, key: jnp.sum(jnp.sin(x @ params["private"]))  # noqa: E731
    examples = draw(150, 3, 5)
    run = functools.partial(clipped_grad_sum, loss, {"private": draw(5, 4)}, examples, np.arange(150) == 149)
    reference = run(jax.random.key(0), l2_clip_norm=1.0, method="vmap")
    monkeypatch.setattr(clipping, "_CACHE_BYTES", 100 * 8 * 3 * 4)  # of 100 examples; slices of at least 64
    for batch, expected in ((150, 64), (100, 100)):
        keys = jax.random.split(jax.random.key(0), batch)
        choice = clipping.choose(loss, {"private": draw(5, 4)}, examples[:batch], keys)
        assert choice.slice_size == expected
    assert_same(reference, run(jax.random.key(0), l2_clip_norm=1.0, method="auto"))
