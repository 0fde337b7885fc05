"""Downstream models of tables in JAX: one program trains a model on many resamples of its records at once."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import cho_factor, cho_solve

LOGISTIC_STEPS = 100
HIDDEN_DIMS = (64, 64)
BATCH_SIZE = 256
LEARNING_RATE = 2e-3
_NUM_EPOCHS = 10  # over the real training table, between the least and the most steps below
_LEAST_STEPS, _MOST_STEPS = 200, 1500
_DAMPING = 1e-5  # of the mean diagonal entry; keeps a single-precision Cholesky factor finite
_NEVER = -1e9  # logit of a class that no record trained on has
_LEAST_ROWS, _FEATURE_MULTIPLE = 2048, 32  # sizes are rounded up, so that tables alike share one compiled program


class Problem(NamedTuple):
    """Records to learn from and records to judge.

    Attributes:
      features: float32 [n, f].
      labels: int32 [n] classes, or float64 [n] numbers.
      judged: float32 [m, f], features of the records that are predicted.
      resamples: int32 [c, n], the rows that each of c models is trained on, see `resamples`.
      num_classes: k, or 0 for numbers.
      seed: of the initial weights and of the order of the records; shared by the tables that are compared.
      num_steps: of gradient descent on minibatches, see `num_steps`.
    """

    features: np.ndarray
    labels: np.ndarray
    judged: np.ndarray
    resamples: np.ndarray
    num_classes: int
    seed: int
    num_steps: int


def resamples(num_records: int, num_seeds: int, *, seed: int) -> np.ndarray:
    """The rows that each model is trained on, int32 [1 + num_seeds, num_records].

    The first model sees every record once: it gives the score that is reported. The others see bootstrap resamples,
    which stand for other tables of this size from the same source; their scores give the interval.

    Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    drawn = [np.random.default_rng([seed, number]).integers(0, num_records, num_records) for number in range(num_seeds)]
    return np.stack([np.arange(num_records), *drawn]).astype(np.int32)


def num_steps(num_records: int) -> int:
    """Steps of the net, from the size of the real training table: ten epochs, at least 200 and at most 1,500 steps."""
    return int(np.clip(_NUM_EPOCHS * num_records // BATCH_SIZE, _LEAST_STEPS, _MOST_STEPS))


def orders(resampled: np.ndarray, *, num_steps: int, batch_size: int, seed: int) -> np.ndarray:
    """Rows of every minibatch of every model, int32 [c, num_steps, batch_size].

    Args:
      resampled: int [c, n], see `resamples`; a model sees all its rows once before it sees one again.
      num_steps: of gradient descent.
      batch_size: rows of a step.
      seed: of the order; a model's order does not depend on how many there are.
    """
    needed, found = num_steps * batch_size, []
    for model, rows in enumerate(resampled):
        rng = np.random.default_rng([seed, model])
        epochs = [rng.permutation(rows) for _ in range(-(-needed // len(rows)))]
        found.append(np.concatenate(epochs)[:needed].reshape(num_steps, batch_size))
    return np.stack(found)


def logistic_regression(problem: Problem) -> np.ndarray:
    """Multinomial logistic regression with an L2 penalty (C = 1, as scikit-learn's) and a free intercept.

    The loss is convex: weights and order of records do not matter, only the resample. LOGISTIC_STEPS accelerated steps
    on all records, each preconditioned by a fixed upper bound of the curvature; the penalty of two classes is that of
    one vector of weights.

    Returns:
      Class probabilities float32 [c, m, k]; 0 for a class that is absent from what a model was trained on.

    Source: Böhning 1992, "Multinomial Logistic Regression Algorithm", for the bound; O'Donoghue and Candès 2015,
    "Adaptive Restart for Accelerated Gradient Schemes".
    """
    rows, labels, counts = _padded(problem)
    weights, offsets = _fit_logistic(_with_intercept(rows), labels, counts, num_classes=problem.num_classes)
    return _cut(_logistic_probabilities(_with_intercept(_padded_judged(problem)), weights, offsets), problem)


def ridge(problem: Problem) -> np.ndarray:
    """Linear regression in closed form, L2 penalty 1 as scikit-learn's `Ridge`, free intercept.

    Returns:
      Predictions float64 [c, m] in the unit of the labels.
    """
    mean, scale = _label_scale(problem.labels)
    rows, labels, counts = _padded(problem._replace(labels=(problem.labels - mean) / scale))
    weights = _fit_ridge(_with_intercept(rows), labels, counts)
    found = _linear(_with_intercept(_padded_judged(problem)), weights)
    return mean + scale * _cut(found, problem).astype(np.float64)


def mlp(problem: Problem) -> np.ndarray:
    """A net of HIDDEN_DIMS ReLU units by Adam with a cosine learning rate, for a number of steps fixed beforehand.

    Initial weights, order of records and resample differ by model. Nothing is stopped early or chosen by a score.

    Returns:
      Class probabilities float32 [c, m, k], or predictions float64 [c, m] in the unit of the labels.
    """
    is_regression = problem.num_classes == 0
    mean, scale = _label_scale(problem.labels) if is_regression else (0.0, 1.0)
    scaled = (problem.labels - mean) / scale if is_regression else problem.labels
    rows, labels, _ = _padded(problem._replace(labels=scaled))
    root = jax.random.key(problem.seed)  # a model's key does not depend on how many there are
    keys = jax.vmap(lambda number: jax.random.fold_in(root, number))(np.arange(len(problem.resamples)))
    batches = orders(problem.resamples, num_steps=problem.num_steps, batch_size=BATCH_SIZE, seed=problem.seed)
    params = _fit_mlp(rows, labels, batches, keys, num_outputs=problem.num_classes or 1)
    found = _cut(_mlp_outputs(_padded_judged(problem), params), problem)
    if is_regression:
        return mean + scale * found[:, :, 0].astype(np.float64)
    counts = np.stack([np.bincount(problem.labels[rows], minlength=problem.num_classes) for rows in problem.resamples])
    return np.asarray(jax.nn.softmax(np.where(counts[:, None] > 0, found, _NEVER), axis=-1))


def _padded(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features [N, F], labels [N], how often each row is trained on, float32 [c, N]); padding counts 0 times."""
    size = _rounded_rows(len(problem.labels))
    counts = np.zeros((len(problem.resamples), size), np.float32)
    for model, rows in enumerate(problem.resamples):
        counts[model, : len(problem.labels)] = np.bincount(rows, minlength=len(problem.labels))
    kind = np.float32 if problem.num_classes == 0 else np.int32
    labels = np.pad(problem.labels.astype(kind), (0, size - len(problem.labels)))
    return _pad_matrix(problem.features, size), labels, counts


def _padded_judged(problem: Problem) -> np.ndarray:
    return _pad_matrix(problem.judged, _rounded_rows(len(problem.judged)))


def _rounded_rows(count: int) -> int:
    return max(_LEAST_ROWS, 1 << (count - 1).bit_length())


def _pad_matrix(matrix: np.ndarray, num_rows: int) -> np.ndarray:
    num_features = -(-(matrix.shape[1] + 1) // _FEATURE_MULTIPLE) * _FEATURE_MULTIPLE  # one left for an intercept
    padded = np.zeros((num_rows, num_features), np.float32)
    padded[: len(matrix), : matrix.shape[1]] = matrix
    return padded


def _with_intercept(rows: np.ndarray) -> np.ndarray:
    """The last feature, which is padding, set to 1."""
    rows[:, -1] = 1.0
    return rows


def _cut(found: jax.Array, problem: Problem) -> np.ndarray:
    """Without the padding of the judged records, the second axis."""
    return np.asarray(found)[:, : len(problem.judged)]


def _label_scale(labels: np.ndarray) -> tuple[float, float]:
    return float(labels.mean()), float(labels.std()) or 1.0


def _curvature(features, counts, penalty):
    """Sum of outer products of the rows, weighted, plus the penalty on all weights but the intercept; [F, F]."""
    gram = jnp.matmul(features.T, counts[:, None] * features, precision="highest")
    free = jnp.full(len(gram), penalty).at[-1].set(0.0)
    return gram + jnp.diag(free + _DAMPING * jnp.trace(gram) / len(gram))


@functools.partial(jax.jit, static_argnames="num_classes")
def _fit_logistic(features, labels, counts, *, num_classes):
    """(weights [c, F, k], 0 or _NEVER for each class [c, k])."""
    is_class = jax.nn.one_hot(labels, num_classes)
    is_present = counts @ is_class > 0
    penalties = jnp.where(is_present.sum(axis=1) <= 2, 2.0, 1.0)
    # One after the other: a weighted copy of the features for each model would not fit.
    bounds = jax.lax.map(lambda model: _curvature(features, 0.5 * model[0], model[1]), (counts, penalties))

    def fit(counts, bound, penalty, is_present):
        factor = cho_factor(bound)
        offset = jnp.where(is_present, 0.0, _NEVER)
        penalised = jnp.full((features.shape[1], 1), penalty).at[-1].set(0.0)

        def step(state, _):
            weights, ahead, pace = state
            errors = jax.nn.softmax(features @ ahead + offset[None, :]) - is_class
            gradient = features.T @ (counts[:, None] * errors) + penalised * ahead
            moved = ahead - cho_solve(factor, gradient)
            is_uphill = jnp.vdot(gradient, moved - weights) > 0
            next_pace = jnp.where(is_uphill, 1.0, 0.5 + jnp.sqrt(0.25 + pace**2))
            momentum = jnp.where(is_uphill, 0.0, (pace - 1.0) / next_pace)
            return (moved, moved + momentum * (moved - weights), next_pace), None

        start = jnp.zeros((features.shape[1], num_classes))
        return jax.lax.scan(step, (start, start, 1.0), length=LOGISTIC_STEPS)[0][0], offset

    return jax.vmap(fit)(counts, bounds, penalties, is_present)


@jax.jit
def _logistic_probabilities(judged, weights, offsets):
    return jax.vmap(lambda weights, offset: jax.nn.softmax(judged @ weights + offset[None, :]))(weights, offsets)


@jax.jit
def _fit_ridge(features, labels, counts):
    """Weights [c, F]."""
    curvatures = jax.lax.map(lambda counts: _curvature(features, counts, 1.0), counts)
    return jax.vmap(lambda h, counts: cho_solve(cho_factor(h), features.T @ (counts * labels)))(curvatures, counts)


@jax.jit
def _linear(judged, weights):
    return jax.vmap(lambda weights: judged @ weights)(weights)


@functools.partial(jax.jit, static_argnames="num_outputs")
def _fit_mlp(features, labels, orders, keys, *, num_outputs) -> Any:
    """Parameters of every model, stacked. One output is a number, several are logits."""
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, orders.shape[1]))

    def loss(params, rows):
        outputs = _apply(params, features[rows])
        if num_outputs == 1:
            return jnp.square(outputs[:, 0] - labels[rows]).mean()
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels[rows]).mean()

    def fit(order, key):
        def step(state, rows):
            params, opt_state = state
            updates, opt_state = optimizer.update(jax.grad(loss)(params, rows), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        params = _initial(key, (features.shape[1], *HIDDEN_DIMS, num_outputs))
        return jax.lax.scan(step, (params, optimizer.init(params)), order)[0][0]

    return jax.vmap(fit)(orders, keys)


def _initial(key, sizes):
    """Weights of every layer by He et al. 2015, biases 0."""
    keys = jax.random.split(key, len(sizes) - 1)
    initializer = jax.nn.initializers.he_normal()
    return [(initializer(k, shape), jnp.zeros(shape[1])) for k, *shape in zip(keys, sizes, sizes[1:], strict=False)]


def _apply(params, features):
    """float [n, F] -> outputs [n, num_outputs]."""
    *hidden, (kernel, bias) = params
    for inner_kernel, inner_bias in hidden:
        features = jax.nn.relu(features @ inner_kernel + inner_bias[None, :])
    return features @ kernel + bias[None, :]


@jax.jit
def _mlp_outputs(judged, params):
    return jax.vmap(_apply, in_axes=(0, None))(params, judged)
