"""Bayesian networks over codes: sampling, likelihood and marginals are those of the joint distribution."""

import itertools

import jax
import numpy as np
import pytest

from privsyn_jax.models.code_network import marginal, network_generator, network_params

SIZES = (3, 2, 4, 2)
RECORDS = np.array(list(itertools.product(*map(range, SIZES))), np.int32)


def joint_of(seed):
    return np.random.default_rng(seed).dirichlet(np.full(len(RECORDS), 0.5)).reshape(SIZES)


def saturated(joint):
    """Every column given all earlier ones, in the order 2, 0, 3, 1: the joint distribution itself."""
    order = (2, 0, 3, 1)
    given = {}
    for place, column in enumerate(order):
        parents = order[:place]
        kept = np.einsum(joint, range(4), (*parents, column))
        given[column] = (parents, kept)
    return network_params(order, given)


GENERATOR = network_generator(SIZES, calibrate=None)


def test_the_network_of_all_conditionals_is_the_joint_distribution():
    joint = joint_of(0)
    params = saturated(joint)
    nats = jax.jit(jax.vmap(GENERATOR.negative_log_likelihood, in_axes=(None, 0, None)))(params, RECORDS, None)
    np.testing.assert_allclose(np.exp(-np.asarray(nats)), joint.ravel(), rtol=1e-4, atol=1e-7)
    for columns in [(0,), (3, 1), (1, 2, 0), (0, 1, 2, 3)]:
        expected = np.einsum(joint, range(4), columns)
        np.testing.assert_allclose(marginal(params, columns, total=10.0), 10 * expected, rtol=1e-5, atol=1e-6)


def test_samples_have_the_marginals_of_the_network():
    joint, size = joint_of(1), 200_000
    codes = GENERATOR.sample(saturated(joint), jax.random.key(3), size, {})
    found = np.bincount(np.ravel_multi_index(tuple(codes.T), SIZES), minlength=joint.size) / size
    deviation = (found - joint.ravel()) / np.sqrt(np.maximum(joint.ravel(), 1e-9) * (1 - joint.ravel()) / size)
    assert np.abs(deviation[joint.ravel() > 1e-4]).max() < 5
    assert found[joint.ravel() < 1e-12].sum() == 0


def test_a_row_of_parents_that_nobody_had_is_drawn_by_the_columns_own_marginal():
    counts = np.array([[0.0, 0.0], [3.0, 1.0], [0.0, 4.0]])
    params = network_params(
        (0, 1, 2, 3), {0: ((), np.ones(3)), 1: ((0,), counts), 2: ((), np.ones(4)), 3: ((), np.ones(2))}
    )
    np.testing.assert_allclose(params["public"]["tables"]["1"], [[3 / 8, 5 / 8], [0.75, 0.25], [0, 1]])


@pytest.mark.parametrize("columns", [(0, 3), (3,), (1, 0)])
def test_columns_without_parents_are_independent(columns):
    params = GENERATOR.init(jax.random.key(0))
    uniform = np.full([SIZES[column] for column in columns], 1 / np.prod([SIZES[column] for column in columns]))
    np.testing.assert_allclose(marginal(params, columns), uniform, rtol=1e-6)
