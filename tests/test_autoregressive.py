"""The autoregressive generator against brute force on a table small enough to list every record."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chi2

from privsyn_jax.models import autoregressive
from privsyn_jax.models.autoregressive import Layout, MaskedTrunk, TransformerTrunk
from privsyn_jax.models.stratified import inverted
from privsyn_jax.privacy.release import contingency
from privsyn_jax.training.marginals import Marginals, Table

CARDINALITIES = (3, 2, 4)
ORDER = (2, 0, 1)  # column 2 first
LAYOUT = Layout(ORDER, (4, 3, 2))
RECORDS = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)  # all 24
VARIANTS = ("transformer", "masked_mlp")
NUM_LAYERS = {"transformer": 1, "masked_mlp": 2}
TRUNKS = {
    "transformer": TransformerTrunk(LAYOUT, width=8, num_layers=1, num_heads=2, mlp_ratio=2),
    "masked_mlp": MaskedTrunk(LAYOUT, width=8, num_layers=2),
}


def shapes(trunk):
    return jax.eval_shape(trunk.init, jax.random.key(0), jnp.zeros(3, jnp.int32))["params"]


def randomized(params, seed):
    """Every leaf drawn anew, also those that start at zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), params)


@functools.cache
def small_model(variant, **arguments):
    """(generator, fresh params, random params, params -> probability of each of RECORDS)."""
    generator = autoregressive.make(
        cardinalities=CARDINALITIES,
        column_order=ORDER,
        variant=variant,
        width=8,
        num_layers=NUM_LAYERS[variant],
        num_heads=2,
        num_calibration_rows=16384,
        **arguments,
    )
    losses = jax.jit(lambda params: jax.vmap(lambda row: generator.private_loss(params, row, None))(RECORDS))
    fresh = jax.jit(generator.init)(jax.random.key(0))
    params = randomized(fresh, seed=1)
    # As calibration leaves them: the rows of a column act on later columns only.
    column = LAYOUT.column_of_code
    params["public"]["tables"] *= jnp.asarray(column[:, None] < column[None, :], jnp.float32)
    return generator, fresh, params, lambda params: np.exp(-np.asarray(losses(params), np.float64))


def flat(records):
    """Flat codes in model order."""
    return records[:, list(ORDER)] + LAYOUT.offsets


def own(position):
    return LAYOUT.own[position]


def assert_counts_match(counts, expected_probs):
    """Pearson's test; a right sampler fails once in a million."""
    expected = counts.sum() * expected_probs / expected_probs.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < chi2.isf(1e-6, len(counts) - 1)


# ---- causality


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_a_column_ignore_itself_and_later_columns_bit_for_bit(variant):
    trunk = TRUNKS[variant]
    params = randomized(shapes(trunk), seed=2)
    logits = np.asarray(jax.jit(jax.vmap(lambda codes: trunk.apply({"params": params}, codes)))(flat(RECORDS)))
    for position in range(3):
        before = flat(RECORDS)[:, :position]
        values = logits[:, own(position)]
        for prefix in np.unique(before, axis=0):
            same = values[(before == prefix).all(axis=1)]
            assert (same == same[0]).all()
        distinct = len(np.unique(values, axis=0))
        assert distinct == len(np.unique(before, axis=0))  # and do depend on every earlier column


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_of_logits_with_respect_to_later_columns_is_exactly_zero(variant):
    """By the rows of the first layer that only the codes of one column touch."""
    trunk, table = TRUNKS[variant], {"transformer": "embedding", "masked_mlp": "kernel"}[variant]
    params = randomized(shapes(trunk), seed=3)
    layer = params if variant == "transformer" else params["MaskedDense_0"]
    codes = flat(RECORDS)[17]

    def logits(rows):
        first = {**layer, table: rows}
        changed = first if variant == "transformer" else {**params, "MaskedDense_0": first}
        return trunk.apply({"params": changed}, codes)

    jacobian = np.asarray(jax.jit(jax.jacrev(logits))(layer[table]))  # [S, rows, width]
    for position, other in itertools.product(range(3), range(3)):
        influence = np.abs(jacobian[own(position), codes[other]]).sum()
        assert influence > 0 if other < position else influence == 0.0


# ---- the distribution


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_is_the_sum_of_negative_log_conditionals(variant):
    _, _, params, probabilities = small_model(variant)
    trunk, public = TRUNKS[variant], params["public"]
    apply = jax.jit(jax.vmap(lambda codes: trunk.apply({"params": params["private"]}, codes)))
    codes = flat(RECORDS)
    logits = np.asarray(apply(codes) + public["bias"][None] + public["tables"][codes].sum(axis=1), np.float64)
    log_prob = np.zeros(len(RECORDS))
    for position in range(3):
        scores = logits[:, own(position)]
        conditional = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        chosen = codes[:, position] - LAYOUT.offsets[position]
        log_prob += np.log(conditional[np.arange(len(RECORDS)), chosen])
    np.testing.assert_allclose(np.log(probabilities(params)), log_prob, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_probabilities_of_all_records_sum_to_one(variant):
    """Only so if every conditional sums to one over its column's codes and sees no later column."""
    _, fresh, params, probabilities = small_model(variant)
    assert probabilities(params).sum() == pytest.approx(1, abs=1e-5)
    acausal = {**params["public"], "tables": params["public"]["tables"].T}
    assert abs(probabilities({**params, "public": acausal}).sum() - 1) > 1e-3
    np.testing.assert_allclose(probabilities(fresh), 1 / len(RECORDS), rtol=1e-5)  # a new network is uniform


def test_public_bias_sets_the_marginals_of_a_fresh_network():
    _, fresh, _, probabilities = small_model("transformer")
    wanted = np.concatenate([[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 0.25], [0.9, 0.1]])  # in model order
    public = {**fresh["public"], "bias": jnp.log(jnp.asarray(wanted, jnp.float32))}
    table = probabilities({**fresh, "public": public}).reshape(CARDINALITIES)
    np.testing.assert_allclose(table.sum(axis=(0, 1)), wanted[:4], rtol=1e-4)
    np.testing.assert_allclose(table.sum(axis=(1, 2)), wanted[4:7], rtol=1e-4)
    np.testing.assert_allclose(table.sum(axis=(0, 2)), wanted[7:], rtol=1e-4)


def test_column_order_is_undone_in_samples_and_losses():
    """A hand-made rule: column 2 is always 3, column 0 is 1, column 1 tells whether column 0 is 1."""
    generator, fresh, _, probabilities = small_model("transformer")
    bias, tables = np.zeros(9, np.float32), np.zeros((9, 9), np.float32)
    bias[3] = 60  # column 2 comes first: flat codes 0..3
    tables[3, 4 + 1] = 60  # column 0: flat codes 4..6
    tables[4 + 1, 7 + 1] = 60  # column 1: flat codes 7, 8
    params = {**fresh, "public": {"bias": jnp.asarray(bias), "tables": jnp.asarray(tables)}}
    rows = generator.sample(params, jax.random.key(1), 50, {})
    assert np.unique(rows, axis=0).tolist() == [[1, 1, 3]]
    assert RECORDS[probabilities(params).argmax()].tolist() == [1, 1, 3]


# ---- sampling


@pytest.mark.parametrize("variant", VARIANTS)
def test_sampling_frequencies_match_the_model(variant):
    generator, _, params, probabilities = small_model(variant)
    rows = generator.sample(params, jax.random.key(5), 20_000, {})
    counts = np.bincount(np.ravel_multi_index(rows.T, CARDINALITIES), minlength=len(RECORDS))
    assert_counts_match(counts, probabilities(params))
    with pytest.raises(AssertionError):
        assert_counts_match(counts, np.roll(probabilities(params), 1))


def test_samples_have_the_models_frequencies_on_average_and_scatter_less_than_independent_draws():
    generator, _, params, probabilities = small_model("transformer")
    num_rows, num_samples, wanted = 2000, 60, probabilities(params)
    samples = [generator.sample(params, key, num_rows) for key in jax.random.split(jax.random.key(5), num_samples)]
    numbers = [np.ravel_multi_index(sample.T, CARDINALITIES) for sample in samples]
    shares = np.stack([np.bincount(own, minlength=len(RECORDS)) / num_rows for own in numbers])
    error = shares.std(axis=0, ddof=1) / math.sqrt(num_samples)
    assert (np.abs(shares.mean(axis=0) - wanted) < 5 * error + 1e-9).all()
    independent = np.sqrt(wanted * (1 - wanted) / num_rows)
    assert np.median(shares.std(axis=0) / independent) < 0.6  # of all 24 records
    first = np.stack([np.bincount(sample[:, ORDER[0]], minlength=4) for sample in samples]) / num_rows
    expected = np.array([wanted[RECORDS[:, ORDER[0]] == code].sum() for code in range(4)])
    assert (first.std(axis=0) < 0.3 * np.sqrt(expected * (1 - expected) / num_rows)).all()


def test_two_rows_are_no_more_alike_than_chance_has_it():
    """Strata are drawn anew for every column: what a row is in one tells nothing of its neighbour in another."""
    uniform = autoregressive.make(cardinalities=(2, 2, 2), width=4, num_heads=2, num_layers=1)
    params = uniform.init(jax.random.key(0))  # no logit but 0
    samples = [np.asarray(uniform.sample(params, key, 256)) for key in jax.random.split(jax.random.key(6), 200)]
    signs = 2.0 * np.stack(samples) - 1
    for i, j in itertools.combinations(range(3), 2):
        assert abs((signs[:, :-1, i] * signs[:, 1:, j]).mean()) < 5 / math.sqrt(signs[:, 1:, 0].size)


@settings(deadline=None)
@given(
    scores=hnp.arrays(np.float32, (3, 6), elements=st.sampled_from([-1e30, -1e9, -20.0, -3.0, 0.0, 3.0, 20.0])),
    uniform=st.sampled_from([0.0, 1e-30, 1e-7, 0.25, 0.5, 1 - 2.0**-24]),
)
def test_inversion_finds_the_code_at_the_quantile_and_never_one_of_probability_zero(scores, uniform):
    codes = np.asarray(inverted(jnp.asarray(scores), jnp.full(3, uniform, jnp.float32)))
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(scores), axis=-1), np.float64)
    for code, own in zip(codes, probabilities, strict=True):
        assert own[code] > 0
        assert own[:code].sum() <= uniform + 1e-5 and own[: code + 1].sum() >= uniform - 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_conditions_on_first_columns_hold_and_the_rest_follows_them(variant):
    generator, _, params, probabilities = small_model(variant)
    table = probabilities(params).reshape(CARDINALITIES)
    rows = generator.sample(params, jax.random.key(6), 5000, {2: 1, 0: 2})  # the first two in model order
    assert (rows[:, 2] == 1).all() and (rows[:, 0] == 2).all()
    assert_counts_match(np.bincount(rows[:, 1], minlength=2), table[2, :, 1])
    rows = generator.sample(params, jax.random.key(7), 10_000, {2: 0})
    assert (rows[:, 2] == 0).all()
    assert_counts_match(np.bincount(rows[:, 0] * 2 + rows[:, 1], minlength=6), table[:, :, 0].ravel())


@pytest.mark.parametrize(
    ("given", "exact"),
    [((), ()), ((2,), (2,)), ((0,), ()), ((0, 2), (2, 0)), ((1, 2), (2,)), ((0, 1, 2), (2, 0, 1))],
)
def test_exact_conditions_are_those_that_no_free_column_precedes(given, exact):
    assert small_model("transformer")[0].exact_conditions(given) == exact


# ---- calibration

PAIRS = ((0, 1), (1, 2))
TOTAL = 100_000.0
STANDARD_ERROR = 0.5 / np.sqrt(16384)  # of a share of the rows that calibration draws


def random_table(seed):
    return np.random.default_rng(seed).dirichlet(np.full(24, 0.6)).reshape(CARDINALITIES)


def marginals_of(joint, stddev):
    """What a purchase of all one-way tables and of PAIRS gives, up to the noise, which is left out."""
    one_way = [TOTAL * joint.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    two_way = {(i, j): Table(TOTAL * joint.sum(axis=3 - i - j), stddev) for i, j in PAIRS}
    return Marginals(one_way, [np.full(len(counts), stddev) for counts in one_way], two_way)


def largest_gap(left, right):
    """Largest difference of a one-way share or of a share in PAIRS."""
    axes = [(1, 2), (0, 2), (0, 1), *((3 - i - j,) for i, j in PAIRS)]
    left, right = left.reshape(CARDINALITIES), right.reshape(CARDINALITIES)
    return max(np.abs(left.sum(axis=axis) - right.sum(axis=axis)).max() for axis in axes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_calibrated_marginals_meet_the_purchased_ones(variant):
    generator, _, params, probabilities = small_model(variant)
    joint = random_table(seed=0)
    assert largest_gap(probabilities(params), joint) > 0.1  # the random network is far off
    calibrated = generator.calibrate(params, marginals_of(joint, stddev=1.0), jax.random.key(1))
    assert largest_gap(probabilities(calibrated), joint) < 5 * STANDARD_ERROR
    assert probabilities(calibrated).sum() == pytest.approx(1, abs=1e-5)  # still causal
    jax.tree.map(np.testing.assert_array_equal, calibrated["private"], params["private"])


def test_calibration_follows_noisy_tables_no_further_than_their_noise():
    generator, _, params, probabilities = small_model("transformer")
    marginals = marginals_of(random_table(seed=0), stddev=TOTAL)  # noise as large as the table itself
    for table, _ in marginals.tables.values():
        table += TOTAL * np.random.default_rng(1).normal(size=table.shape)
    moved = [
        np.abs(probabilities(own.calibrate(params, marginals, jax.random.key(1))) - probabilities(params)).max()
        for own in (generator, small_model("transformer", prior_strength=100.0)[0])
    ]
    assert moved[0] < 0.03 and moved[1] < 1e-3


def test_calibration_stands_codes_that_nobody_holds_and_negative_counts():
    generator, _, params, probabilities = small_model("transformer")
    joint = random_table(seed=4)
    joint[:, :, 2:] = 0
    joint /= joint.sum()
    marginals = marginals_of(joint, stddev=1.0)
    marginals.tables[1, 2].counts[:, 2:] = -3.0
    calibrated = generator.calibrate(params, marginals, jax.random.key(1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(calibrated))
    assert largest_gap(probabilities(calibrated), joint) < 5 * STANDARD_ERROR


# ---- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"column_order": (0, 1)}, "must be a permutation of the 3 columns"),
        ({"column_order": (0, 1, 1)}, "must be a permutation"),
        ({"width": 10, "num_heads": 4}, "width 10 must be a multiple of num_heads 4"),
        ({"variant": "rnn"}, "must be 'transformer' or 'masked_mlp'"),
        ({"num_heads": 0}, "num_heads 0 must be a whole number, at least 1"),
        ({"width": 8.5}, "width 8.5 must be a whole number"),
        ({"prior_strength": 0.0}, "prior_strength 0.0 must be above 0"),
        ({"cardinalities": (9_000, 2_000)}, "11000 codes in all, more than 10000"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        autoregressive.make(**{"cardinalities": CARDINALITIES, **arguments})


def test_calibration_does_not_overshoot_where_many_tables_want_one_code_at_once():
    """Fourteen columns of which each has one frequent code among sixty, all pairs known without noise."""
    num_columns, size, rng = 14, 60, np.random.default_rng(0)
    shares = 1 / np.arange(1, size + 1) ** 2
    shares /= shares.sum()
    common, own = rng.choice(size, 4000, p=shares), rng.choice(size, (4000, num_columns), p=shares)
    codes = np.where(rng.random(own.shape) < 0.9, own, common[:, None])
    one_way = [np.bincount(column, minlength=size).astype(float) for column in codes.T]
    pairs = {
        (i, j): Table(contingency(codes, (size,) * num_columns, (i, j)), 0.0)
        for i, j in itertools.combinations(range(num_columns), 2)
    }
    generator = autoregressive.make(cardinalities=(size,) * num_columns, num_calibration_rows=4096)
    marginals = Marginals(one_way, [np.zeros(size)] * num_columns, pairs)
    params = generator.calibrate(generator.init(jax.random.key(0)), marginals, jax.random.key(1))
    drawn = generator.sample(params, jax.random.key(2), 8192)
    for column, counts in zip(drawn.T, one_way, strict=True):
        share = np.bincount(column, minlength=size) / len(drawn)
        assert 0.5 * np.abs(share - counts / len(codes)).sum() < 0.033
