"""Autoregression over codes of image blocks in a public basis; nothing of the code book is learned.

An image is cut into square blocks; a block is its lowest cosine frequencies, each rounded to one of a few public
levels. The image's probability is the product, over blocks in reading order and over frequencies within a block, of
that of each code given the label and all codes before it: a causal transformer over blocks, and a small network over
the frequencies of one. Codes are few and the network small, which is what noisy gradients can teach.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.blocks import CausalBlock
from privsyn_jax.models.cosine_basis import cosine_basis
from privsyn_jax.models.image_layers import draw_images, label_is_exact
from privsyn_jax.types import Generator

_BLOCK = 128  # images drawn at once


class Codec(NamedTuple):
    """Public: images as codes and back. B blocks of m codes in [0, num_levels)."""

    shape: tuple[int, int, int]
    block_size: int
    matrix: np.ndarray  # float32 [m, block_size * block_size * channels], orthonormal rows
    num_levels: int

    @property
    def num_codes(self) -> int:
        return len(self.matrix)

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks from top to bottom and from left to right; the last ones are filled up."""
        return -(-self.shape[0] // self.block_size), -(-self.shape[1] // self.block_size)

    @property
    def num_blocks(self) -> int:
        return math.prod(self.grid)

    @property
    def ranges(self) -> np.ndarray:
        """float32 [m]: the largest coefficient that pixels in [-1/2, 1/2] can have."""
        return (0.5 * np.abs(self.matrix).sum(axis=1)).astype(np.float32)

    def encode(self, pixels: jax.Array) -> jax.Array:
        """uint8 [height, width, channels] -> int32 codes [B, m]."""
        (height, width, channels), size, (down, across) = self.shape, self.block_size, self.grid
        image = pixels.astype(jnp.float32) / 255.0 - 0.5
        image = jnp.pad(image, ((0, down * size - height), (0, across * size - width), (0, 0)), mode="edge")
        blocks = image.reshape(down, size, across, size, channels).transpose(0, 2, 1, 3, 4).reshape(down * across, -1)
        scaled = jnp.dot(blocks, self.matrix.T, precision=jax.lax.Precision.HIGHEST) / self.ranges[None]
        stretched = jnp.sign(scaled) * jnp.sqrt(jnp.abs(scaled))  # finer near 0, where most coefficients lie
        codes = jnp.round((stretched + 1.0) / 2.0 * (self.num_levels - 1))
        return jnp.clip(codes, 0, self.num_levels - 1).astype(jnp.int32)

    def values(self, codes: jax.Array) -> jax.Array:
        """int32 codes -> levels in [-1, 1], stretched."""
        return codes.astype(jnp.float32) * (2.0 / (self.num_levels - 1)) - 1.0

    def decode(self, codes: jax.Array) -> jax.Array:
        """int32 codes [n, B, m] -> floats [n, height, width, channels] in about [-1, 1]."""
        (height, width, channels), size, (down, across) = self.shape, self.block_size, self.grid
        stretched = self.values(codes)
        coefficients = jnp.sign(stretched) * jnp.square(stretched) * self.ranges[None, None]
        blocks = jnp.dot(coefficients, self.matrix, precision=jax.lax.Precision.HIGHEST)
        blocks = blocks.reshape(-1, down, across, size, size, channels).transpose(0, 1, 3, 2, 4, 5)
        return 2.0 * blocks.reshape(-1, down * size, across * size, channels)[:, :height, :width]


def make_codec(shape: tuple[int, int, int], block_size: int, num_frequencies: int, num_levels: int) -> Codec:
    """Codes of the `num_frequencies` lowest frequencies of blocks, brightness before colour.

    Raises:
      ValueError: a number that does not fit.
    """
    if not 2 <= block_size <= min(shape[:2]):
        raise ValueError(f"block_size {block_size} must be from 2 to the image's side")
    if num_levels < 3 or num_levels % 2 == 0:
        raise ValueError(f"num_levels {num_levels} must be odd, so that one level is 0, and at least 3")
    basis = cosine_basis((block_size, block_size, shape[2]), num_frequencies)
    return Codec(shape, block_size, basis.matrix, num_levels)


class Trunk(nn.Module):
    """Codes [B, m] and a label -> logits [B, m, num_levels]; each depends on the codes before its own only."""

    codec: Codec
    num_classes: int
    width: int
    num_layers: int
    num_heads: int
    mlp_ratio: int

    def setup(self):
        width, num_codes = self.width, self.codec.num_codes
        normal, zeros = nn.initializers.normal, nn.initializers.zeros
        self.label = self.param("label", normal(0.5), (self.num_classes, width))
        self.place = self.param("place", normal(0.5), (self.codec.num_blocks, width))
        self.embed = nn.Dense(width)
        self.layers = [CausalBlock(self.num_heads, self.mlp_ratio * width) for _ in range(self.num_layers)]
        self.norm = nn.RMSNorm()
        self.context = nn.Dense(width)
        self.frequency = self.param("frequency", normal(0.5), (num_codes, width))
        self.within = self.param("within", normal(0.3), (num_codes, 3, width))
        self.mix = nn.Dense(width)
        self.logits = nn.Dense(self.codec.num_levels, kernel_init=zeros)
        self.prior = self.param("prior", zeros, (num_codes, self.codec.num_levels))

    def __call__(self, codes, label):
        return self.codes_of_blocks(self.blocks(codes, label), codes)

    def blocks(self, codes, label):
        """[B, width]: of every block, what the label and the blocks before it say."""
        whole = self.embed(self._features(codes).reshape(len(codes), -1))
        hidden = jnp.concatenate([jnp.zeros_like(whole[:1]), whole[:-1]]) + self.place + self.label[label][None]
        for layer in self.layers:
            hidden = layer(hidden)
        return self.context(self.norm(hidden))

    def codes_of_blocks(self, contexts, codes):
        """Contexts [b, width] and codes [b, m] of b blocks -> logits [b, m, num_levels]."""
        said = jnp.einsum("bmf,mfw->bmw", self._features(codes), self.within)
        earlier = jnp.cumsum(said, axis=1) - said
        mixed = nn.gelu(contexts[:, None] + self.frequency[None] + earlier)
        return self.logits(nn.gelu(self.mix(mixed))) + self.prior[None]

    def _features(self, codes):
        values = self.codec.values(codes)
        return jnp.stack([values, jnp.abs(values), (values == 0).astype(values.dtype)], axis=-1)


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    block_size: int = 4,
    num_frequencies: int = 8,
    num_levels: int = 15,
    width: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    mlp_ratio: int = 2,
    temperature: float = 1.0,
) -> Generator:
    """Generator of Images.

    Args:
      image_shape: (height, width, channels).
      num_classes: number of labels.
      block_size: side of a block in pixels.
      num_frequencies: codes per block.
      num_levels: values of a code; odd.
      width, num_layers, num_heads, mlp_ratio: size of the network.
      temperature: of sampling; 1 is the model's own distribution.
    """
    codec = make_codec(image_shape, block_size, num_frequencies, num_levels)
    if width % num_heads:
        raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be above 0")
    trunk = Trunk(codec, num_classes, width, num_layers, num_heads, mlp_ratio)
    init_trunk = jax.jit(trunk.init)

    def apply(params, *inputs, method=None) -> jax.Array:
        output: Any = trunk.apply({"params": params["private"]}, *inputs, method=method)
        return output

    def init(key):
        codes = jnp.zeros((codec.num_blocks, codec.num_codes), jnp.int32)
        return {"private": init_trunk(key, codes, jnp.int32(0))["params"], "public": {}}

    def private_loss(params, example, key):
        del key
        codes = codec.encode(example.pixels)
        log_probs = jax.nn.log_softmax(apply(params, codes, example.labels), axis=-1)
        return -jnp.take_along_axis(log_probs, codes[..., None], axis=-1).sum()

    contexts_of = jax.vmap(lambda params, codes, label: apply(params, codes, label, method="blocks"), (None, 0, 0))

    @jax.jit
    def draw_block(params, key, labels):
        def draw(number, codes):
            contexts = contexts_of(params, codes, labels)[:, number]
            return codes.at[:, number].set(draw_codes(params, jax.random.fold_in(key, number), contexts))

        start = jnp.zeros((len(labels), codec.num_blocks, codec.num_codes), jnp.int32)
        return codec.decode(jax.lax.fori_loop(0, codec.num_blocks, draw, start))

    def draw_codes(params, key, contexts):
        """int32 [n, m]: the codes of one block of n images."""
        codes = jnp.zeros((len(contexts), codec.num_codes), jnp.int32)
        for frequency in range(codec.num_codes):
            logits = apply(params, contexts, codes, method="codes_of_blocks")[:, frequency]
            drawn = jax.random.categorical(jax.random.fold_in(key, frequency), logits / temperature, axis=-1)
            codes = codes.at[:, frequency].set(drawn.astype(jnp.int32))
        return codes

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=None,
        sample=functools.partial(draw_images, draw_block, num_classes=num_classes, block_size=_BLOCK),
        exact_conditions=label_is_exact,
    )
