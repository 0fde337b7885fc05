"""The U-Net of `unet.py` in PyTorch."""

from __future__ import annotations

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]


class ResidualBlock(nn.Module):
    """[batch, inputs, side, side] and [batch, time_dim] -> [batch, outputs, side, side]."""

    def __init__(self, inputs: int, outputs: int, num_groups: int, time_dim: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(num_groups, channels, eps=1e-6) for channels in (inputs, outputs))
        self.convs = nn.ModuleList(nn.Conv2d(channels, outputs, 3, padding=1) for channels in (inputs, outputs))
        self.time = nn.Linear(time_dim, outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, inputs, time):
        hidden = self.convs[0](nn.functional.silu(self.norms[0](inputs))) + self.time(time)[:, :, None, None]
        return self.convs[1](nn.functional.silu(self.norms[1](hidden))) + self.shortcut(inputs)


class UNet(nn.Module):
    """[batch, 1, 28, 28] and float timesteps [batch] -> [batch, 1, 28, 28]."""

    def __init__(self, channels: tuple[int, int], num_groups: int, time_dim: int, frequencies: torch.Tensor):
        super().__init__()
        fine, coarse = channels
        self.frequencies = frequencies

        def block(inputs, outputs):
            return ResidualBlock(inputs, outputs, num_groups, time_dim)

        self.time = nn.Sequential(
            nn.Linear(2 * len(frequencies), time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim), nn.SiLU()
        )
        self.first, self.first_block = nn.Conv2d(1, fine, 3, padding=1), block(fine, fine)
        self.down = nn.Conv2d(fine, fine, 3, stride=2, padding=1)
        self.coarse_blocks = nn.ModuleList([block(fine, coarse), block(coarse, coarse), block(coarse, coarse)])
        self.up = nn.Conv2d(coarse, coarse, 3, padding=1)
        self.fine_blocks = nn.ModuleList([block(coarse + fine, fine), block(fine, fine)])
        self.last_norm, self.last = nn.GroupNorm(num_groups, fine, eps=1e-6), nn.Conv2d(fine, 1, 3, padding=1)

    def forward(self, images, timesteps):
        angles = timesteps[:, None] * self.frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        skip = self.first_block(self.first(images), time)
        hidden = self.down(skip)
        for block in self.coarse_blocks:
            hidden = block(hidden, time)
        hidden = torch.cat([self.up(nn.functional.interpolate(hidden, scale_factor=2)), skip], dim=1)
        for block in self.fine_blocks:
            hidden = block(hidden, time)
        return self.last(nn.functional.silu(self.last_norm(hidden)))
