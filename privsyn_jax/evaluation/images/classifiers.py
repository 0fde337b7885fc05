"""Downstream classifiers: trained on synthetic or on real images for a fixed number of steps, scored on real ones."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from privsyn_jax.evaluation.images.nets import initial_params
from privsyn_jax.types import Images

BATCH_SIZE = 128
LEARNING_RATE = 2e-3
_WARM_UP = 0.1  # share of the steps over which the learning rate rises
_SCORING_BATCH = 512


def train_classifier(net: nn.Module, images: Images, *, num_steps: int, max_shift: int, key: jax.Array) -> Any:
    """Trains a net by Adam with a cosine learning rate and returns the last parameters.

    The number of steps is fixed beforehand: nothing is stopped early or selected, on test images least of all.

    Args:
      net: float [n, height, width, channels] -> (features, logits), see nets.
      images: any number of them, at least one; every image is seen once before one is seen again.
      num_steps: of BATCH_SIZE images each.
      max_shift: pixels by which every image is shifted at random, up to it in each direction, padded with its edge.
      key: initial weights, order and shifts.

    Returns:
      The parameters.
    """
    init_key, order_key, shift_key = jax.random.split(key, 3)
    seed = np.asarray(jax.random.bits(order_key, (4,)))
    batches = _batches(len(images.labels), num_steps, np.random.default_rng(seed))
    return _trained(net, images, batches, init_key, shift_key, num_steps=num_steps, max_shift=max_shift)


def train_classifiers(net: nn.Module, images: Images, orders: np.ndarray, *, max_shift: int, key: jax.Array) -> Any:
    """Trains c nets, each as `train_classifier` trains one, with its own weights, images and shifts.

    On a CPU one after the other: under `vmap` their convolutions become grouped ones, which XLA is slow at there.
    Elsewhere all at once. The parameters differ by rounding only.

    Args:
      net: as there.
      images: that the orders point into.
      orders: int [c, num_steps, BATCH_SIZE], see `downstream.orders`.
      max_shift: as there.
      key: of weights and shifts; a net's do not depend on how many there are.

    Returns:
      The parameters, stacked: every leaf has c as its first axis.
    """
    init_keys, shift_keys = _keys_of_nets(key, num_nets=len(orders))
    train = _one_after_another if jax.default_backend() == "cpu" else _all_at_once
    return train(net, images, orders, init_keys, shift_keys, max_shift=max_shift)


def predict(net: nn.Module, params: Any, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [n, d] and class probabilities float32 [n, k] of uint8 pixels [n, height, width, channels]."""
    blocks = []
    for start in range(0, len(pixels), _SCORING_BATCH):
        block = np.asarray(pixels[start : start + _SCORING_BATCH])
        padded = np.resize(block, (_SCORING_BATCH, *block.shape[1:]))
        blocks.append([np.asarray(output)[: len(block)] for output in _outputs(params, padded, net=net)])
    features, probabilities = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return features, probabilities


def _batches(num_images: int, num_steps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of every step; all images come once before one comes again."""
    queue = np.zeros(0, np.int64)
    for _ in range(num_steps):
        while len(queue) < BATCH_SIZE:
            queue = np.concatenate([queue, rng.permutation(num_images)])
        yield queue[:BATCH_SIZE]
        queue = queue[BATCH_SIZE:]


def _trained(
    net: nn.Module,
    images: Images,
    batches: Iterable[np.ndarray],
    init_key: jax.Array,
    shift_key: jax.Array,
    *,
    num_steps: int,
    max_shift: int,
) -> Any:
    """The parameters of one net."""
    pixels, labels = np.asarray(images.pixels), np.asarray(images.labels)
    params = initial_params(init_key, net=net, shape=pixels.shape[1:])
    state = params, _optimizer(num_steps).init(params)
    for step, batch in enumerate(batches):
        key = jax.random.fold_in(shift_key, step)
        state = _train_step(state, pixels[batch], labels[batch], key, net=net, num_steps=num_steps, max_shift=max_shift)
    return state[0]


def _one_after_another(net, images, orders, init_keys, shift_keys, *, max_shift):
    """`_trained` of every net, stacked."""
    trained = functools.partial(_trained, net, images, num_steps=orders.shape[1], max_shift=max_shift)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(trained, orders, init_keys, shift_keys))


def _all_at_once(net, images, orders, init_keys, shift_keys, *, max_shift):
    """The same by `vmap`, a step of all nets in one program."""
    pixels, labels, num_steps = np.asarray(images.pixels), np.asarray(images.labels), orders.shape[1]
    params = jax.vmap(lambda key: initial_params(key, net=net, shape=pixels.shape[1:]))(init_keys)
    state = params, jax.vmap(_optimizer(num_steps).init)(params)
    for step, batch in enumerate(orders.swapaxes(0, 1)):
        state = _train_steps(
            state, pixels[batch], labels[batch], shift_keys, step, net=net, num_steps=num_steps, max_shift=max_shift
        )
    return state[0]


def _optimizer(num_steps: int) -> optax.GradientTransformation:
    warm_up = int(_WARM_UP * num_steps)
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, warm_up, num_steps))


@functools.partial(jax.jit, static_argnames=("net", "num_steps", "max_shift"), donate_argnums=0)
def _train_step(state, pixels, labels, key, *, net, num_steps, max_shift):
    params, opt_state = state
    if max_shift:
        pixels = _shifted(pixels, key, max_shift)
    images = _floats(pixels)

    def loss(params):
        _, logits = net.apply(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    updates, opt_state = _optimizer(num_steps).update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


@functools.partial(jax.jit, static_argnames="num_nets")
def _keys_of_nets(key, *, num_nets):
    """(keys of the initial weights, of the shifts), each [num_nets]."""
    return jax.vmap(lambda number: jax.random.split(jax.random.fold_in(key, number)), out_axes=1)(jnp.arange(num_nets))


@functools.partial(jax.jit, static_argnames=("net", "num_steps", "max_shift"), donate_argnums=0)
def _train_steps(state, pixels, labels, shift_keys, step, *, net, num_steps, max_shift):
    """`_train_step` of stacked states, pixels [c, n, height, width, channels], labels [c, n] and keys [c]."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, step))(shift_keys)
    one = functools.partial(_train_step, net=net, num_steps=num_steps, max_shift=max_shift)
    return jax.vmap(one)(state, pixels, labels, keys)


@functools.partial(jax.jit, static_argnames="net")
def _outputs(params, pixels, *, net):
    features, logits = net.apply(params, _floats(pixels))
    return features, jax.nn.softmax(logits)


def _floats(pixels: jax.Array) -> jax.Array:
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def _shifted(pixels: jax.Array, key: jax.Array, max_shift: int) -> jax.Array:
    """Every image [n, h, w, c] shifted by its own whole number of pixels, its edge repeated."""
    padded = jnp.pad(pixels, ((0, 0), (max_shift,) * 2, (max_shift,) * 2, (0, 0)), mode="edge")
    starts = jax.random.randint(key, (len(pixels), 2), 0, 2 * max_shift + 1)

    def cut(image, start):
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), pixels.shape[1:])

    return jax.vmap(cut)(padded, starts)
