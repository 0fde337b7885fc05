"""Clipping: what one record can move, what padding cannot, and jax_privacy as the oracle."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax_privacy
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privsyn_jax.privacy.clipping import ClippedSum, clipped_grad_sum, num_parameters
from privsyn_jax.privacy.microbatch import microbatched_grad_sum

BATCH, SIZE = 6, 17
PARAMS = {"private": {"w": jnp.zeros((3, 4)), "b": jnp.zeros(5)}, "public": {"root": jnp.zeros(5)}}


def linear_loss(params, example, key):
    """Its gradient is the example itself: the first 12 numbers to "w", the rest to "b"."""
    del key
    private = params["private"]
    return jnp.sum(private["w"].ravel() * example[:12]) + jnp.sum(private["b"] * example[12:])


@jax.jit
def clipped(examples, is_padding, l2_clip_norm):
    return clipped_grad_sum(linear_loss, PARAMS, examples, is_padding, jax.random.key(0), l2_clip_norm=l2_clip_norm)


def flat_sum(result: ClippedSum) -> np.ndarray:
    """float64 [SIZE], in the order of the example."""
    return np.concatenate([np.asarray(result.grad_sum[name], np.float64).ravel() for name in ("w", "b")])


def oracle(examples: np.ndarray, l2_clip_norm: float) -> np.ndarray:
    """float64 sum of clipped rows; rows that are not finite are left out."""
    rows = np.asarray(examples, np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows * np.minimum(1.0, l2_clip_norm / np.maximum(norms, 1e-300))).sum(axis=0)


def only(*positions: int) -> np.ndarray:
    """Padding mask that keeps these positions."""
    return ~np.isin(np.arange(BATCH), positions)


def largest_move(total, examples: np.ndarray) -> float:
    """Largest L2 norm by which removing any one record moves `total(examples, is_padding)`."""
    everyone = total(examples, only(*range(BATCH)))
    moves = [np.linalg.norm(everyone - total(examples, ~only(removed))) for removed in range(BATCH)]
    return float(np.max(moves))  # NaN counts as a move


extreme = st.floats(width=32) | st.sampled_from([0.0, 1e-30, 1e-10, 1e10, 1e19, 3e38, math.nan, math.inf, -math.inf])
batches = hnp.arrays(np.float32, (BATCH, SIZE), elements=extreme, fill=st.sampled_from([np.float32(0), np.float32(1)]))


@settings(max_examples=60, deadline=None)
@given(batches, st.sampled_from([1e-3, 1.0, 1e4]))
def test_removing_a_record_moves_the_sum_by_at_most_the_clip_norm(examples, clip_norm):
    move = largest_move(lambda rows, mask: flat_sum(clipped(rows, mask, clip_norm)), examples)
    assert move <= clip_norm * (1 + 1e-5)  # the last digits are the float32 rounding of the other records' sum


def per_leaf(rows, mask):
    """Broken: every leaf clipped on its own, so the whole reaches sqrt(2) times the bound."""
    parts = [oracle(rows[~mask][:, part], 1.0) for part in (slice(0, 12), slice(12, None))]
    return np.concatenate(parts)


def unclipped(rows, mask):
    """Broken: no clipping."""
    return rows[~mask].sum(axis=0)


def masked_by_zero(rows, mask):
    """Broken: a zero weight does not remove a NaN."""
    return np.where(np.isfinite(rows).all(axis=1) & ~mask, 1.0, 0.0) @ rows


@pytest.mark.parametrize("broken", [per_leaf, unclipped, masked_by_zero])
def test_the_sensitivity_check_sees_a_broken_clipper(broken):
    examples = np.full((BATCH, SIZE), 2.0)
    if broken is masked_by_zero:
        examples = np.where(np.arange(BATCH)[:, None] == 3, np.nan, examples / 100)
    with np.errstate(invalid="ignore"):
        assert not largest_move(broken, examples) <= 1 + 1e-5


@pytest.mark.parametrize("size", [1, 100, 300_000])
@pytest.mark.parametrize("draw", ["equal", "heavy"])
def test_the_float64_norm_of_a_contribution_never_exceeds_the_bound(size, draw):
    rng = np.random.default_rng(size)
    example = np.full(size, 0.1) if draw == "equal" else rng.standard_cauchy(size) * 50 + 1.0
    example = (example / np.linalg.norm(example) * 7.0).astype(np.float32)

    @jax.jit
    def total(l2_clip_norm):
        return clipped_grad_sum(
            lambda params, example, key: jnp.sum(params["private"] * example),
            {"private": jnp.zeros(size)},
            jnp.asarray(example)[None],
            jnp.zeros(1, bool),
            jax.random.key(0),
            l2_clip_norm=l2_clip_norm,
        ).grad_sum

    for clip_norm in (0.1, 1.0, 1.7, 3.3):
        norm = np.linalg.norm(np.asarray(total(clip_norm), np.float64)) / np.float64(clip_norm)
        assert 1 - 1e-5 < norm <= 1.0


def test_a_gradient_within_the_bound_is_passed_on_bit_for_bit():
    examples = np.random.default_rng(0).normal(size=(BATCH, SIZE)).astype(np.float32)
    for position in range(BATCH):
        result = clipped(examples, only(position), 100.0)
        assert np.array_equal(flat_sum(result).astype(np.float32), examples[position])
        assert int(result.nonprivate_clipped_count) == 0


@pytest.mark.parametrize("content", [1.0, -1e30, 3e38, math.inf, math.nan])
def test_padding_content_changes_nothing_bit_for_bit(content):
    examples = np.random.default_rng(1).normal(size=(BATCH, SIZE)).astype(np.float32)
    is_padding = only(0, 2, 3)
    plain = clipped(np.where(is_padding[:, None], np.float32(0), examples), is_padding, 1.0)
    filled = clipped(np.where(is_padding[:, None], np.float32(content), examples), is_padding, 1.0)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(filled), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    np.testing.assert_allclose(flat_sum(filled), oracle(examples[~is_padding], 1.0), rtol=1e-5)


def test_counts_of_what_was_clipped_and_what_was_dropped():
    examples = np.full((BATCH, SIZE), 0.01, np.float32)
    examples[1] = 5.0
    examples[2, 3] = np.nan
    examples[3, 0] = np.inf
    examples[4] = np.nan
    result = clipped(examples, ~only(4), 1.0)  # the last NaN is padding
    assert int(result.nonprivate_clipped_count) == 1
    assert int(result.nonprivate_nonfinite_count) == 2
    assert float(result.nonprivate_norm_sum) == pytest.approx(math.sqrt(SIZE) * (5.0 + 2 * 0.01), rel=1e-5)
    np.testing.assert_allclose(flat_sum(result), oracle(examples[[0, 1, 5]], 1.0), rtol=1e-5)


def test_only_private_parameters_are_differentiated():
    def loss(params, example, key):  # its gradient with respect to "root" is infinite
        return linear_loss(params, example, key) + jnp.sum(jnp.sqrt(params["public"]["root"]))

    examples, nobody = jnp.full((BATCH, SIZE), 0.1), jnp.zeros(BATCH, bool)
    total = jax.jit(functools.partial(clipped_grad_sum, loss))
    result = total(PARAMS, examples, nobody, jax.random.key(0), l2_clip_norm=1.0)
    assert jax.tree.structure(result.grad_sum) == jax.tree.structure(PARAMS["private"])
    assert int(result.nonprivate_nonfinite_count) == 0
    np.testing.assert_allclose(flat_sum(result), BATCH * 0.1, rtol=1e-6)
    assert num_parameters(PARAMS["private"]) == SIZE


def test_the_weighted_sum_asks_for_full_float32_precision():
    # By default, accelerators round the operands of a matmul to 10 or 7 bits: a clipped gradient may end above C.
    jaxpr = jax.make_jaxpr(clipped.__wrapped__)(jnp.zeros((BATCH, SIZE)), jnp.zeros(BATCH, bool), 1.0)
    products = [equation for equation in jaxpr.eqns if equation.primitive.name == "dot_general"]
    assert len(products) == 2
    for equation in products:
        assert equation.params["precision"] == (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)


NUM_RECORDS, MICROBATCH, CAPACITY = 14, 4, 16
RECORDS = np.random.default_rng(2).normal(0, 2, (NUM_RECORDS, SIZE)).astype(np.float32)
RECORDS[5, 2] = np.nan
RECORDS[13] = np.nan  # never drawn below: pads


def dict_loss(params, example, key):
    return linear_loss(params, example["x"], key)


@jax.jit
def microbatched(indices, batch_size):
    return microbatched_grad_sum(
        dict_loss,
        PARAMS,
        {"x": jnp.asarray(RECORDS)},
        indices,
        batch_size,
        jax.random.key(0),
        l2_clip_norm=1.0,
        microbatch_size=MICROBATCH,
    )


@pytest.mark.parametrize("batch_size", [0, 1, 3, 4, 7, 8, 13])
def test_microbatches_equal_the_whole_under_one_compilation(batch_size):
    drawn = np.random.default_rng(batch_size).permutation(NUM_RECORDS - 1)[:batch_size]
    results = [
        microbatched(np.resize(np.append(drawn, [pad] * CAPACITY), CAPACITY).astype(np.int32), np.int32(batch_size))
        for pad in (0, 13)
    ]
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    np.testing.assert_allclose(flat_sum(results[0]), oracle(RECORDS[drawn], 1.0), rtol=1e-5, atol=1e-6)
    assert int(results[0].nonprivate_nonfinite_count) == (5 in drawn)
    assert int(results[0].nonprivate_clipped_count) == batch_size - (5 in drawn)
    assert microbatched._cache_size() == 1


def test_a_capacity_that_would_count_records_twice_is_refused():
    with pytest.raises(ValueError, match="capacity 15 must be a multiple of microbatch_size 4"):
        microbatched(np.zeros(CAPACITY - 1, np.int32), np.int32(3))


def test_every_example_has_a_key_of_its_own():
    def loss(params, example, key):  # the gradient of example i is its own draw, in place i
        return jnp.sum(params["private"] * example) * jax.random.uniform(key)

    total = jax.jit(functools.partial(microbatched_grad_sum, loss, l2_clip_norm=10.0, microbatch_size=2))
    result = total({"private": jnp.zeros(8)}, jnp.eye(8), jnp.arange(8), jnp.int32(8), jax.random.key(0))
    assert len(np.unique(np.asarray(result.grad_sum))) == 8


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")
def test_clipped_sum_equals_jax_privacy():
    model = nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(3)])
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(12, 5)).astype(np.float32), rng.integers(0, 3, 12)
    private = jax.jit(model.init)(jax.random.key(3), features[0])["params"]

    def loss(private, feature, label):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply({"params": private}, feature), label)

    def private_loss(params, example, key):
        del key
        return loss(params["private"], *example)

    ours = jax.jit(functools.partial(clipped_grad_sum, private_loss))(
        {"private": private}, (features, labels), jnp.zeros(12, bool), jax.random.key(0), l2_clip_norm=2.0
    )
    oracle_sum = jax_privacy.clipped_grad(loss, l2_clip_norm=2.0, batch_argnums=(1, 2), keep_batch_dim=False)
    theirs = jax.jit(oracle_sum)(private, features, labels)
    assert 0 < int(ours.nonprivate_clipped_count) < 12
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours.grad_sum, theirs)
