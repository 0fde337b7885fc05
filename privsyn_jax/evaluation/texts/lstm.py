"""A recurrent classifier of texts: trained on synthetic or on real ones for a fixed number of steps."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

NUM_WORDS = 10_000  # besides padding, 0, and words outside the vocabulary, 1
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
_WIDTH = 64
_SCORING_BATCH = 512


class LSTMClassifier(nn.Module):
    """Embedded words, an LSTM (Hochreiter and Schmidhuber 1997), the mean of its outputs beside the last one.

    int32 ids [n, length], 0 after the end of a text -> logits [n, num_classes]. Padding changes nothing; nor does one
    text another.
    """

    num_classes: int

    @nn.compact
    def __call__(self, ids_BxT: jax.Array) -> jax.Array:
        is_word = (ids_BxT > 0).astype(jnp.float32)
        lengths = is_word.sum(axis=1)
        embedded = nn.Embed(NUM_WORDS + 2, _WIDTH)(ids_BxT)
        outputs = _LSTM()(embedded) * is_word[:, :, None]
        mean = outputs.sum(axis=1) / jnp.maximum(lengths, 1.0)[:, None]
        last = jnp.maximum(lengths.astype(jnp.int32) - 1, 0)
        ends = jnp.take_along_axis(outputs, last[:, None, None], axis=1)[:, 0]
        return nn.Dense(self.num_classes)(jnp.concatenate([mean, ends], axis=1))


class _LSTM(nn.Module):
    """Outputs [n, length, _WIDTH] for inputs [n, length, d]; what the gates take of the inputs is one product."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        of_inputs = nn.Dense(4 * _WIDTH)(inputs)
        kernel = self.param("recurrent", nn.initializers.lecun_normal(), (_WIDTH, 4 * _WIDTH))

        def step(carry, of_input):
            cell, output = carry
            i, f, g, o = jnp.split(of_input + output @ kernel, 4, axis=1)
            cell = nn.sigmoid(f + 1.0) * cell + nn.sigmoid(i) * jnp.tanh(g)  # remembers at first
            output = nn.sigmoid(o) * jnp.tanh(cell)
            return (cell, output), output

        start = jnp.zeros((len(inputs), _WIDTH))
        return jax.lax.scan(step, (start, start), of_inputs.swapaxes(0, 1))[1].swapaxes(0, 1)


def train_lstm(net: LSTMClassifier, ids: np.ndarray, labels: np.ndarray, *, num_steps: int, key: jax.Array) -> Any:
    """Trains the net by Adam with a cosine learning rate and returns the last parameters.

    The number of steps is fixed beforehand: nothing is stopped early or selected, on test texts least of all.

    Args:
      net: the classifier.
      ids: int32 [n, length], n at least 1; every text is seen once before one is seen again.
      labels: int32 [n].
      num_steps: of BATCH_SIZE texts each.
      key: initial weights and order.

    Returns:
      The parameters.
    """
    init_key, order_key = jax.random.split(key)
    params = _initial(init_key, net=net)
    state = params, _optimizer(num_steps).init(params)
    rng = np.random.default_rng(np.asarray(jax.random.bits(order_key, (4,))))
    queue = np.zeros(0, np.int64)
    for _ in range(num_steps):
        while len(queue) < BATCH_SIZE:
            queue = np.concatenate([queue, rng.permutation(len(labels))])
        batch, queue = queue[:BATCH_SIZE], queue[BATCH_SIZE:]
        state = _train_step(state, ids[batch], labels[batch], net=net, num_steps=num_steps)
    return state[0]


def train_lstms(net: LSTMClassifier, ids: np.ndarray, labels: np.ndarray, orders: np.ndarray, *, key: jax.Array) -> Any:
    """Trains c nets at once, each as `train_lstm` trains one, with its own weights and texts.

    Args:
      net: as there.
      ids: int32 [n, length] that the orders point into.
      labels: int32 [n].
      orders: int [c, num_steps, BATCH_SIZE], see `downstream.orders`.
      key: initial weights; a net's do not depend on how many there are.

    Returns:
      The parameters, stacked: every leaf has c as its first axis.
    """
    num_nets, num_steps, _ = orders.shape
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(np.arange(num_nets))
    params = jax.vmap(lambda key: _initial(key, net=net))(keys)
    state = params, jax.vmap(_optimizer(num_steps).init)(params)
    for batch in orders.swapaxes(0, 1):
        state = _train_steps(state, ids[batch], labels[batch], net=net, num_steps=num_steps)
    return state[0]


def predict(net: LSTMClassifier, params: Any, ids: np.ndarray) -> np.ndarray:
    """Class probabilities float32 [n, num_classes] of ids [n, length], n at least 1."""
    blocks = []
    for start in range(0, len(ids), _SCORING_BATCH):
        block = ids[start : start + _SCORING_BATCH]
        padded = np.resize(block, (_SCORING_BATCH, block.shape[1]))
        blocks.append(np.asarray(_probabilities(params, padded, net=net))[: len(block)])
    return np.concatenate(blocks)


def _optimizer(num_steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))


@functools.partial(jax.jit, static_argnames="net")
def _initial(key, *, net):
    return net.init(key, jnp.ones((1, 2), jnp.int32))


@functools.partial(jax.jit, static_argnames=("net", "num_steps"), donate_argnums=0)
def _train_step(state, ids, labels, *, net, num_steps):
    params, opt_state = state

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, ids), labels).mean()

    updates, opt_state = _optimizer(num_steps).update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


@functools.partial(jax.jit, static_argnames=("net", "num_steps"), donate_argnums=0)
def _train_steps(state, ids, labels, *, net, num_steps):
    """`_train_step` of stacked states, ids [c, n, length] and labels [c, n]."""
    return jax.vmap(functools.partial(_train_step, net=net, num_steps=num_steps))(state, ids, labels)


@functools.partial(jax.jit, static_argnames="net")
def _probabilities(params, ids, *, net):
    return jax.nn.softmax(net.apply(params, ids))
