"""What image generators share: pixels as numbers, layers of one image, and drawing many images.

Networks see images as floats in [-1, 1] with axes [height, width, channels].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.types import Images, Params


def to_signed(pixels: jax.Array, like: Any) -> jax.Array:
    """uint8 pixels as floats in [-1, 1], in the dtype of the parameters `like`, so that a bfloat16 loss stays one."""
    dtype = jax.tree.leaves(like)[0].dtype
    return (pixels.astype(jnp.float32) / 127.5 - 1.0).astype(dtype)


def to_pixels(images: jax.Array) -> jax.Array:
    """Floats in [-1, 1] as uint8 pixels; what lies outside is clipped."""
    return jnp.clip(jnp.round((images.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def group_norm(channels: int, *, max_groups: int = 8) -> nn.GroupNorm:
    """Normalises one image [height, width, channels] by groups of channels; no image sees another."""
    return nn.GroupNorm(math.gcd(channels, max_groups), reduction_axes=(-3, -2, -1))


def conv(channels: int, size: int = 3, **settings: Any) -> nn.Conv:
    return nn.Conv(channels, (size, size), padding="SAME", **settings)


def upsample(image: jax.Array) -> jax.Array:
    """Twice the height and width, by repetition."""
    return jnp.repeat(jnp.repeat(image, 2, axis=-3), 2, axis=-2)


def balanced_labels(num_samples: int, num_classes: int) -> np.ndarray:
    """int32 [num_samples]: every class equally often. The private shares of the classes are not used."""
    return (np.arange(num_samples) % num_classes).astype(np.int32)


def draw_images(
    draw_block: Callable[[Params, jax.Array, jax.Array], jax.Array],
    params: Params,
    key: jax.Array,
    num_samples: int,
    conditions: Mapping[int, int] | None = None,
    *,
    num_classes: int,
    block_size: int = 256,
) -> Images:
    """`num_samples` images with balanced labels, or all with the label conditions[0].

    Args:
      draw_block: (params, key, labels int32 [block_size]) -> floats in [-1, 1], [block_size, height, width, channels].
    """
    labels = balanced_labels(num_samples, num_classes)
    if conditions:
        if set(conditions) != {0}:
            raise ValueError(f"only the label, condition 0, can be fixed, not {sorted(conditions)}")
        labels = np.full(num_samples, conditions[0], np.int32)
    params = jax.device_put(params)
    padded = np.resize(labels, -(-num_samples // block_size) * block_size)
    blocks = [
        np.asarray(to_pixels(draw_block(params, jax.random.fold_in(key, number), jnp.asarray(part))))
        for number, part in enumerate(padded.reshape(-1, block_size))
    ]
    return Images(np.concatenate(blocks)[:num_samples], labels)


def label_is_exact(columns: tuple[int, ...]) -> tuple[int, ...]:
    """`exact_conditions` of a class-conditional generator: the label can be fixed."""
    return tuple(column for column in columns if column == 0)
