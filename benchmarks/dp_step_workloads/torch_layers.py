"""PyTorch layers that several workloads share, and what Opacus has to be told about them."""

from __future__ import annotations

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]


class CausalBlock(nn.Module):
    """`privsyn_jax.models.blocks.CausalBlock` for a batch [batch, length, width]."""

    def __init__(self, width: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.expand, self.contract = nn.Linear(width, mlp_dim), nn.Linear(mlp_dim, width)

    def forward(self, hidden):
        batch, length, width = hidden.shape
        qkv = self.query_key_value(self.attention_norm(hidden))
        heads = qkv.reshape(batch, length, self.num_heads, -1).transpose(1, 2)  # [batch, heads, length, 3 * head width]
        query, key, value = heads.chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.mix(mixed.transpose(1, 2).reshape(batch, length, width))
        return hidden + self.contract(nn.functional.gelu(self.expand(self.mlp_norm(hidden)), approximate="tanh"))


class Position(nn.Module):
    """Adds one learned vector per position; a module of its own, for Opacus hooks only modules."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, hidden):
        return hidden + self.weight


class MaskedLinear(nn.Linear):
    """Linear layer whose weight is multiplied by a fixed 0/1 mask [outputs, inputs].

    The mask is a plain attribute: Opacus refuses trainable layers with buffers.
    """

    def __init__(self, mask: np.ndarray):
        outputs, inputs = mask.shape
        super().__init__(inputs, outputs)
        self.mask = torch.from_numpy(mask.astype(np.float32))

    def forward(self, inputs):
        return nn.functional.linear(inputs, self.weight * self.mask, self.bias)


def channels_first(images: torch.Tensor) -> torch.Tensor:
    """[batch, side, side, channels] -> contiguous [batch, channels, side, side].

    A clone, since `contiguous()` keeps the strides of a transposed single channel: PyTorch reads those as
    channels-last, and Opacus 1.6.0 then computes wrong per-example gradients of convolutions without a warning.
    """
    return images.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def token_nll(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Summed negative log-likelihoods [batch] of tokens [batch, length] under logits [batch, length, vocabulary]."""
    nll = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    return nll.reshape(tokens.shape).sum(dim=1)


def register_samplers() -> None:
    """Tells Opacus the per-example gradients and norms of our layers, in the manner of its own `nn.Linear`."""
    from opacus.grad_sample import register_grad_sampler, register_norm_sampler  # pyright: ignore[reportMissingImports]

    @register_grad_sampler(MaskedLinear)
    def masked_linear_grad_sample(layer, activations, cotangents):
        weight = torch.einsum("ni,nj->nij", cotangents, activations[0]) * layer.mask
        return {layer.weight: weight, layer.bias: cotangents}

    @register_norm_sampler(MaskedLinear)
    def masked_linear_norm_sample(layer, activations, cotangents):
        inputs, outputs = activations[0].square(), cotangents.square()
        weight = (outputs @ layer.mask * inputs).sum(dim=1).sqrt()
        return {layer.weight: weight, layer.bias: outputs.sum(dim=1).sqrt()}

    @register_grad_sampler(Position)
    def position_grad_sample(layer, activations, cotangents):
        del activations
        return {layer.weight: cotangents}
