"""Denoising diffusion on 28 x 28 images: a small U-Net of two resolutions with group normalisation."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dp_step_workloads.workload import JaxModel, flax_model

SIDE, CHANNELS, NUM_GROUPS, NUM_TIMESTEPS, TIME_DIM = 28, (32, 64), 8, 1000, 128
# Share of the signal left at each timestep. Source: Nichol and Dhariwal 2021, equation 17.
SIGNAL = np.cos((np.arange(1, NUM_TIMESTEPS + 1) / NUM_TIMESTEPS + 0.008) / 1.008 * np.pi / 2).astype(np.float32) ** 2
FREQUENCIES = np.exp(-np.log(1e4) * np.arange(CHANNELS[0] // 2) / (CHANNELS[0] // 2)).astype(np.float32)


def conv(channels, size=3, **settings):
    return nn.Conv(channels, (size, size), padding=size // 2, **settings)


def group_norm():
    return nn.GroupNorm(NUM_GROUPS, reduction_axes=(-3, -2, -1))


class ResidualBlock(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, inputs, time):  # [side, side, c], [TIME_DIM] -> [side, side, channels]
        hidden = conv(self.channels)(nn.silu(group_norm()(inputs))) + nn.Dense(self.channels)(time)
        hidden = conv(self.channels)(nn.silu(group_norm()(hidden)))
        return hidden + (inputs if inputs.shape[-1] == self.channels else conv(self.channels, 1)(inputs))


class UNet(nn.Module):
    @nn.compact
    def __call__(self, image, timestep):  # [28, 28, 1], scalar -> [28, 28, 1]
        fine, coarse = CHANNELS
        angles = timestep * FREQUENCIES
        time = nn.Dense(TIME_DIM)(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]))
        time = nn.silu(nn.Dense(TIME_DIM)(nn.silu(time)))
        skip = ResidualBlock(fine)(conv(fine)(image), time)
        hidden = conv(fine, strides=2)(skip)
        for _ in range(3):
            hidden = ResidualBlock(coarse)(hidden, time)
        hidden = conv(coarse)(jnp.repeat(jnp.repeat(hidden, 2, axis=0), 2, axis=1))
        hidden = jnp.concatenate([hidden, skip], axis=-1)
        for _ in range(2):
            hidden = ResidualBlock(fine)(hidden, time)
        return conv(1)(nn.silu(group_norm()(hidden)))


def draw(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.uniform(-1.0, 1.0, (number, SIDE, SIDE, 1)).astype(np.float32)


def jax_model() -> JaxModel:
    def loss(apply, example, key):
        time_key, noise_key = jax.random.split(key)
        timestep = jax.random.randint(time_key, (), 0, NUM_TIMESTEPS)
        signal, noise = jnp.asarray(SIGNAL)[timestep], jax.random.normal(noise_key, example.shape)
        noisy = jnp.sqrt(signal) * example + jnp.sqrt(1.0 - signal) * noise
        return jnp.square(apply(noisy, timestep.astype(jnp.float32)) - noise).mean()

    return flax_model(UNet(), (jnp.zeros((SIDE, SIDE, 1)), jnp.float32(0)), loss)


def torch_model(for_opacus: bool):
    del for_opacus
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    from dp_step_workloads.torch_layers import channels_first
    from dp_step_workloads.torch_unet import UNet

    signals = torch.from_numpy(SIGNAL)

    def losses(module, images):  # [batch, side, side, 1]
        images = channels_first(images)
        timesteps = torch.randint(0, NUM_TIMESTEPS, (len(images),))
        signal, noise = signals[timesteps][:, None, None, None], torch.randn_like(images)
        noisy = signal.sqrt() * images + (1.0 - signal).sqrt() * noise
        return nn.functional.mse_loss(module(noisy, timesteps.float()), noise, reduction="none").mean(dim=(1, 2, 3))

    return UNet(CHANNELS, NUM_GROUPS, TIME_DIM, torch.from_numpy(FREQUENCIES)), losses
