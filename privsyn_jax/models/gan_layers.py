"""What adversarial and variational image generators share: networks from and to images, and how a GAN is put together.

Networks see one image [height, width, channels] at a time, as floats in [-1, 1]; there is no batch norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from privsyn_jax.models.image_layers import conv, draw_images, group_norm, label_is_exact, to_signed, upsample
from privsyn_jax.types import Generator

_SMALLEST_SIDE = 4


def halvings(image_shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """(height, width) of the image and after each layer that halves it, rounding up, until a side is 4 to 7."""
    height, width, _ = image_shape
    sizes = [(height, width)]
    while len(sizes) == 1 or min(height, width) >= 2 * _SMALLEST_SIDE:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def widths(channels: Sequence[int], num_layers: int) -> list[int]:
    """Channels of each layer, counted from the image; the last is repeated."""
    return [channels[min(layer, len(channels) - 1)] for layer in range(num_layers)]


class Features(nn.Module):
    """Image -> features [height, width, channels]: convolutions that halve the sides down to 4 to 7.

    Attributes:
      channels: widths of the layers, counted from the image.
      normalize: group norm in every layer but the first.
    """

    channels: Sequence[int]
    normalize: bool = True

    @nn.compact
    def __call__(self, image):
        hidden = image
        for layer, width in enumerate(widths(self.channels, len(halvings(image.shape)) - 1)):
            hidden = conv(width, 4, strides=2)(hidden)
            if self.normalize and layer > 0:
                hidden = group_norm(width)(hidden)
            hidden = nn.leaky_relu(hidden, 0.2)
        return hidden


class Critic(nn.Module):
    """Image and label -> scores [num_outputs]. The label enters as one constant plane per class, if at all."""

    channels: Sequence[int]
    num_classes: int  # 0: the label is not seen
    num_outputs: int = 1

    @nn.compact
    def __call__(self, image, label):
        if self.num_classes:
            image = with_planes(image, label, self.num_classes)
        features = Features(self.channels)(image)
        return nn.Dense(self.num_outputs)(features.reshape(-1))


class GeneratorNet(nn.Module):
    """Vector and label -> image, unbounded: features of 4 to 7 a side, doubled and convolved up to the image's size.

    Attributes:
      image_shape: of the result.
      channels: widths of the layers, counted from the image.
      num_classes: the one-hot label is appended to the vector; 0: it is not seen.
      normalize: group norm in every hidden layer.
      conditional_norm: each class has its own scale and shift of the normalised features.
    """

    image_shape: tuple[int, int, int]
    channels: Sequence[int]
    num_classes: int
    normalize: bool = True
    conditional_norm: bool = False

    @nn.compact
    def __call__(self, latent, label):
        sizes = halvings(self.image_shape)[::-1]
        depths = widths(self.channels, len(sizes) - 1)[::-1]
        if self.num_classes:
            latent = jnp.concatenate([latent, jax.nn.one_hot(label, self.num_classes, dtype=latent.dtype)])
        (height, width), depth = sizes[0], depths[0]
        hidden = nn.Dense(height * width * depth)(latent).reshape(height, width, depth)
        hidden = self._activate(hidden, label)
        for (height, width), depth in zip(sizes[1:], [*depths[1:], 0], strict=True):
            hidden = upsample(hidden)[:height, :width]
            if depth:
                hidden = self._activate(conv(depth)(hidden), label)
        return conv(self.image_shape[2])(hidden)

    def _activate(self, hidden, label):
        if self.conditional_norm:
            hidden = ClassGroupNorm(self.num_classes)(hidden, label)
        elif self.normalize:
            hidden = group_norm(hidden.shape[-1])(hidden)
        return nn.relu(hidden)


class ClassGroupNorm(nn.Module):
    """Group norm whose scale and shift are those of the label's class."""

    num_classes: int

    @nn.compact
    def __call__(self, hidden, label):
        channels = hidden.shape[-1]
        normalize = group_norm(channels).copy(use_scale=False, use_bias=False)
        own = nn.Embed(self.num_classes, 2 * channels, embedding_init=nn.initializers.zeros)(label)
        scale, shift = jnp.split(own, 2)
        return normalize(hidden) * (1 + scale[None, None]) + shift[None, None]


def with_planes(image: jax.Array, label: jax.Array, num_classes: int) -> jax.Array:
    """The image with `num_classes` more channels, the label's one 1 and the others 0."""
    planes = jax.nn.one_hot(label, num_classes, dtype=image.dtype)[None, None]
    return jnp.concatenate([image, jnp.broadcast_to(planes, (*image.shape[:2], num_classes))], axis=-1)


def softplus(scores: jax.Array) -> jax.Array:
    return jax.nn.softplus(scores.astype(jnp.float32))


def make_gan(
    net: nn.Module,
    critic: nn.Module,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    latent_dim: int,
    critic_loss: Callable[..., jax.Array],
    generator_loss: Callable[..., jax.Array],
    penalty: Callable[..., jax.Array] | None = None,
) -> Generator:
    """A label-conditional GAN: params["private"] is the critic, params["public"] the generator.

    Args:
      net: (latent [latent_dim], label) -> image, unbounded; its tanh is the image.
      critic: (image, label) -> scores [k].
      critic_loss: (scores [k] of a real image, of a fresh fake one of the same label, label) -> scalar.
      generator_loss: (scores [k] of a fake image, label) -> scalar.
      penalty: (function from an image of the label to its scores, real, fake, key) -> scalar, added to critic_loss.
    """

    def draw(public, label, key) -> jax.Array:
        """One fake image."""
        dtype = jax.tree.leaves(public)[0].dtype
        image: Any = net.apply({"params": public}, jax.random.normal(key, (latent_dim,), dtype), label)
        return jnp.tanh(image)

    def score(private, image, label) -> jax.Array:
        scores: Any = critic.apply({"params": private}, image, label)
        return scores

    init_net, init_critic = jax.jit(net.init), jax.jit(critic.init)

    def init(key):
        net_key, critic_key = jax.random.split(key)
        label = jnp.int32(0)
        return {
            "private": init_critic(critic_key, jnp.zeros(image_shape), label)["params"],
            "public": init_net(net_key, jnp.zeros(latent_dim), label)["params"],
        }

    def private_loss(params, example, key):
        fake_key, penalty_key = jax.random.split(key)
        own_score = lambda image: score(params["private"], image, example.labels)  # noqa: E731
        real = to_signed(example.pixels, params["private"])
        fake = draw(params["public"], example.labels, fake_key).astype(real.dtype)
        real_scores, fake_scores = jax.vmap(own_score)(jnp.stack([real, fake]))  # one use of each weight, not two
        loss = critic_loss(real_scores, fake_scores, example.labels)
        return loss if penalty is None else loss + penalty(own_score, real, fake, penalty_key)

    def public_loss(params, key):
        label_key, latent_key = jax.random.split(key)
        label = jax.random.randint(label_key, (), 0, num_classes)
        fake = draw(params["public"], label, latent_key)
        return generator_loss(score(params["private"], fake, label), label)

    @jax.jit
    def draw_block(params, key, labels):
        keys = jax.random.split(key, len(labels))
        return jax.vmap(draw, in_axes=(None, 0, 0))(params["public"], labels, keys)

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=public_loss,
        calibrate=None,
        sample=image_sampler(draw_block, num_classes),
        exact_conditions=label_is_exact,
    )


def image_sampler(draw_block: Callable[..., jax.Array], num_classes: int) -> Callable[..., Any]:
    """`sample` of a Generator, see image_layers.draw_images."""

    def sample(params, key, num_samples, conditions=None):
        return draw_images(draw_block, params, key, num_samples, num_classes=num_classes, conditions=conditions)

    return sample


def check_images(image_shape: Sequence[int], num_classes: int) -> tuple[int, int, int]:
    """`image_shape` as a tuple; raises ValueError unless these networks can be built for such images."""
    if len(image_shape) != 3 or min(image_shape[:2]) < _SMALLEST_SIDE or image_shape[2] < 1:
        raise ValueError(f"image_shape {image_shape} must be (height, width, channels), sides {_SMALLEST_SIDE} or more")
    if num_classes < 1:
        raise ValueError(f"num_classes {num_classes} must be at least 1")
    height, width, channels = image_shape
    return height, width, channels


def check_widths(channels: Sequence[int], latent_dim: int) -> tuple[int, ...]:
    """`channels` as a tuple; raises ValueError unless it and latent_dim are sizes."""
    sizes = tuple(channels) if isinstance(channels, Sequence) else ()
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"channels {channels!r} must be a list of whole numbers, each at least 1, as in (32, 64)")
    if not isinstance(latent_dim, int) or latent_dim < 1:
        raise ValueError(f"latent_dim {latent_dim!r} must be a whole number, at least 1")
    return sizes


def check_weight(name: str, value: float) -> None:
    """Raises ValueError unless a weight of a loss is finite and not negative."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} {value} must be a finite number, 0 or more")
