"""The contract of types.Generator, over every entry of models.GENERATORS: a new one is tested by being listed."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privsyn_jax.models import ONE_SHOT, SUMS_OF_TABLES, USES_MARGINALS, USES_ONE_WAY
from privsyn_jax.models import TABLE_GENERATORS as GENERATORS
from privsyn_jax.privacy.microbatch import microbatched_grad_sum
from privsyn_jax.training.marginals import Marginals, Table

CARDINALITIES = (3, 2, 4)
RECORDS = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)
SMALLER = {  # to compile faster
    "aim": (("num_iterations", 50),),
    "autoregressive": (("num_layers", 1), ("num_calibration_rows", 512)),
    "fitted_marginals": (("num_calibration_rows", 512),),
    "mst": (("num_iterations", 50),),
}
CASES = [(name, SMALLER.get(name, ())) for name in GENERATORS] + [
    ("autoregressive", (("variant", "masked_mlp"),)),
    ("table_diffusion", (("kind", "gaussian"),)),
    ("wgan", (("loss", "logistic"), ("penalty_weight", 10.0), ("weight_bound", 0.0))),
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *(str(v) for _, v in case[1] if type(v) is str)]))
def case(request):
    return built(*request.param)


@functools.cache
def built(name, arguments):
    """(generator, jitted init, jitted per-record losses and gradients)."""
    generator = GENERATORS[name](cardinalities=CARDINALITIES, **dict(arguments))
    if name in ONE_SHOT:
        return generator, jax.jit(generator.init), None
    value_and_grad = jax.value_and_grad(
        lambda private, public, example, key: generator.private_loss(
            {"private": private, "public": public}, example, key
        )
    )
    batched = jax.jit(jax.vmap(value_and_grad, in_axes=(None, None, 0, None)))
    return generator, jax.jit(generator.init), batched


@pytest.fixture
def trained_case(case):
    """Of a generator that learns from records step by step."""
    if case[2] is None:
        pytest.skip("takes no steps")
    return case


def same(left, right):
    """Whether two trees are equal bit for bit."""
    equal = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), left, right)
    return all(jax.tree.leaves(equal))


def test_init_is_a_function_of_the_key(case):
    _, init, _ = case
    params = init(jax.random.key(0))
    assert set(params) == {"private", "public"}
    assert same(params, init(jax.random.key(0)))
    assert not params["private"] or not same(params, init(jax.random.key(1)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params["private"]))


def test_loss_of_every_record_is_a_finite_scalar_and_so_is_its_gradient(trained_case):
    generator, init, batched = trained_case
    params = init(jax.random.key(0))
    single = jax.eval_shape(generator.private_loss, params, jnp.asarray(RECORDS[5]), jax.random.key(0))
    assert single.shape == () and single.dtype == jnp.float32
    losses, grads = batched(params["private"], params["public"], RECORDS, jax.random.key(0))
    assert losses.shape == (len(RECORDS),) and np.isfinite(losses).all()
    assert jax.tree.structure(grads) == jax.tree.structure(params["private"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_no_record_sees_its_batch_mates(trained_case):
    _, init, batched = trained_case
    params = init(jax.random.key(0))
    mates = np.roll(RECORDS, 7, axis=0)
    mates[5] = RECORDS[5]
    one, other = (batched(params["private"], params["public"], batch, jax.random.key(0)) for batch in (RECORDS, mates))
    pick = functools.partial(jax.tree.map, lambda leaf: leaf[5])
    assert same(pick(one), pick(other))


def test_only_private_parameters_get_gradients(trained_case):
    generator, init, _ = trained_case
    params = init(jax.random.key(0))
    sum_of = functools.partial(microbatched_grad_sum, generator.private_loss, l2_clip_norm=1.0, microbatch_size=8)
    indices = jnp.arange(24, dtype=jnp.int32)
    total = jax.eval_shape(sum_of, params, jnp.asarray(RECORDS), indices, jnp.int32(24), jax.random.key(0))
    assert jax.tree.structure(total.grad_sum) == jax.tree.structure(params["private"])


def test_samples_are_codes_of_the_columns_and_a_function_of_the_key(case):
    generator, init, _ = case
    params = init(jax.random.key(0))
    for num_samples in (1, 300):
        rows = generator.sample(params, jax.random.key(2), num_samples, {})
        assert rows.shape == (num_samples, 3) and np.issubdtype(rows.dtype, np.integer)
        assert (rows >= 0).all() and (rows < np.array(CARDINALITIES)).all()
    again = generator.sample(params, jax.random.key(2), 300, {})
    np.testing.assert_array_equal(rows, again)
    assert (rows != generator.sample(params, jax.random.key(3), 300, {})).any()
    assert len(np.unique(rows, axis=0)) > 3


def test_conditions_named_exact_hold(case):
    generator, init, _ = case
    params = init(jax.random.key(0))
    for number in (0, 1, 2, 3):
        for columns in itertools.combinations(range(3), number):
            exact = generator.exact_conditions(columns)
            assert set(exact) <= set(columns)
            if exact:
                rows = generator.sample(params, jax.random.key(4), 40, {column: 1 for column in exact})
                assert (rows[:, list(exact)] == 1).all()


def test_what_reads_no_record_is_finite_and_leaves_private_parameters_alone(case):
    generator, init, _ = case
    params = init(jax.random.key(0))
    if generator.public_loss is not None:
        assert np.isfinite(generator.public_loss(params, jax.random.key(0)))
    if generator.calibrate is not None:
        one_way = [np.full(size, 100.0 / size) for size in CARDINALITIES]
        tables = {(0, 2): Table(np.ones((3, 4)), 3.0)}
        marginals = Marginals(one_way, [np.full(size, 3.0) for size in CARDINALITIES], tables)
        calibrated = generator.calibrate(params, marginals, jax.random.key(0))
        assert jax.tree.structure(calibrated) == jax.tree.structure(params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(calibrated))
        assert same(calibrated["private"], params["private"])
        assert same(calibrated, generator.calibrate(params, marginals, jax.random.key(0)))


def test_those_generators_that_are_calibrated_buy_what_they_are_calibrated_with():
    calibrated = {name for name in GENERATORS if built(name, SMALLER.get(name, ()))[0].calibrate is not None}
    assert calibrated - SUMS_OF_TABLES.keys() == USES_MARGINALS | USES_ONE_WAY
    assert calibrated & SUMS_OF_TABLES.keys() == {"ctgan"}
    assert not USES_MARGINALS & USES_ONE_WAY
