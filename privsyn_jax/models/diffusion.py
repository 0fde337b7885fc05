"""Diffusion over labelled images: a denoiser of every noise level, guided by the label.

Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models" (loss, preconditioning,
sampling); Ho and Salimans 2022, "Classifier-Free Diffusion Guidance"; Dockhorn et al. 2023, "Differentially Private
Diffusion Models" (several noise levels per record, averaged before clipping).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.models import samplers
from privsyn_jax.models.image_layers import draw_images, label_is_exact, to_signed
from privsyn_jax.models.unet import UNet
from privsyn_jax.types import Generator

SAMPLERS = ("heun", "ddim")


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    channels: Sequence[int] = (32, 64),
    num_blocks: int = 1,
    embedding_dim: int = 128,
    attention: bool = False,
    patch_size: int = 2,
    sigma_data: float = 0.5,
    noise_mean: float = -1.2,
    noise_stddev: float = 1.2,
    label_dropout: float = 0.1,
    guidance: float = 1.0,
    sampler: str = "heun",
    num_sampling_steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    churn: float = 0.0,
    clip_denoised: bool = True,
) -> Generator:
    """Generator of `Images`. The U-Net sees pixels in [-1, 1] with noise of standard deviation sigma added.

    Args:
      image_shape: (height, width, channels).
      num_classes: labels are 0 to num_classes - 1.
      channels, num_blocks, embedding_dim, attention, patch_size: see `unet.UNet`. On CPU patches of 2 x 2 pixels are
        several times faster than 1 for little loss on small images.
      sigma_data: a public guess of the standard deviation of pixels in [-1, 1].
      noise_mean, noise_stddev: of ln sigma in training, a normal distribution. Under privacy larger levels than the
        defaults tend to be better (say noise_mean 0): noisy training learns coarse structure and little of fine detail.
      label_dropout: probability that a record's label is hidden in a draw of its loss; what guidance needs.
      guidance: w in D(no label) + w (D(label) - D(no label)); 1 is plain conditional sampling, 0 ignores the label,
        more than 1 exaggerates it. Other values than 1 and 0 cost twice the evaluations.
      sampler: "heun" (second order, two evaluations a step) or "ddim" (first order, one), see `samplers`.
      num_sampling_steps, sigma_min, sigma_max, rho: see `samplers.noise_levels`.
      churn: fresh noise in Heun's steps, see `samplers.churned_heun`; 0 for none.
      clip_denoised: clips every denoised image to [-1, 1], where the exact one lies; this only lowers its error.
    """
    widths = tuple(channels)
    _check(image_shape, widths, patch_size, sigma_data, noise_stddev, label_dropout, guidance, sampler, churn)
    sigmas = samplers.noise_levels(num_sampling_steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
    unet = UNet(num_classes + 1, widths, num_blocks, embedding_dim, attention, patch_size)
    hidden_label = num_classes
    init_unet = jax.jit(unet.init)

    def init(key):
        variables = init_unet(key, jnp.zeros(image_shape), jnp.float32(0), jnp.int32(0))
        return {"private": variables["params"], "public": {}}

    def predict(params, noisy, sigma, label) -> jax.Array:
        """What the network sees and says has variance 1 at every level; computed in the dtype of the parameters."""
        dtype = jax.tree.leaves(params["private"])[0].dtype
        scaled = (noisy * jax.lax.rsqrt(jnp.square(sigma) + sigma_data**2)).astype(dtype)
        output: Any = unet.apply({"params": params["private"]}, scaled, jnp.log(sigma) / 4, label)
        return output.astype(jnp.float32)

    def private_loss(params, example, key):
        level_key, noise_key, label_key = jax.random.split(key, 3)
        sigma = jnp.exp(noise_mean + noise_stddev * jax.random.normal(level_key))
        noise = jax.random.normal(noise_key, image_shape)
        clean = to_signed(example.pixels, like=noise)
        label = jnp.where(jax.random.bernoulli(label_key, label_dropout), hidden_label, example.labels)
        # (clean - c_skip noisy) / c_out without the cancellation; loss weight c_out^-2.
        target = (sigma / sigma_data * clean - sigma_data * noise) * jax.lax.rsqrt(jnp.square(sigma) + sigma_data**2)
        return jnp.mean(jnp.square(predict(params, clean + sigma * noise, sigma, label) - target))

    predict_all = jax.vmap(predict, in_axes=(None, 0, None, 0))

    @jax.jit
    def denoise(params, noisy, sigma, labels):
        if guidance == 1:
            output = predict_all(params, noisy, sigma, labels)
        else:
            output = predict_all(params, noisy, sigma, jnp.full_like(labels, hidden_label))
            if guidance != 0:
                output += guidance * (predict_all(params, noisy, sigma, labels) - output)
        variance = jnp.square(sigma) + sigma_data**2
        denoised = sigma_data**2 / variance * noisy + sigma * sigma_data * jax.lax.rsqrt(variance) * output
        return jnp.clip(denoised, -1, 1) if clip_denoised else denoised

    def draw_block(params, key, labels):
        start_key, churn_key = jax.random.split(key)
        noise = sigmas[0] * jax.random.normal(start_key, (len(labels), *image_shape))
        one_level = lambda noisy, sigma: denoise(params, noisy, sigma, labels)  # noqa: E731
        if sampler == "ddim":
            return samplers.ddim(one_level, noise, sigmas)
        return samplers.churned_heun(one_level, noise, sigmas, key=churn_key, churn=churn)

    def sample(params, key, num_samples, conditions=None):
        return draw_images(draw_block, params, key, num_samples, num_classes=num_classes, conditions=conditions)

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=None,
        sample=sample,
        exact_conditions=label_is_exact,
    )


def _check(
    image_shape, channels, patch_size, sigma_data, noise_stddev, label_dropout, guidance, sampler, churn
) -> None:
    multiple = patch_size * 2 ** (len(channels) - 1)
    if not channels or any(side % multiple for side in image_shape[:2]):
        raise ValueError(
            f"{image_shape[0]} x {image_shape[1]} pixels do not fit channels {channels} and patch_size {patch_size}: "
            f"height and width must be multiples of {multiple}, so shorten channels or lower patch_size"
        )
    if not 0 < sigma_data < math.inf or not 0 <= noise_stddev < math.inf:
        raise ValueError(f"sigma_data {sigma_data} must be positive and noise_stddev {noise_stddev} 0 or more")
    if not 0 <= label_dropout <= 1:
        raise ValueError(f"label_dropout {label_dropout} must be a probability")
    if guidance != 1 and label_dropout == 0:
        raise ValueError(f"guidance {guidance} needs label_dropout above 0; guidance 1 does without")
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler!r} must be one of {', '.join(SAMPLERS)}")
    if churn and sampler != "heun":
        raise ValueError(f"churn {churn} needs the sampler heun, not {sampler}")
