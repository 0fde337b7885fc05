"""The project's own autoregressive generator on tables like UCI Adult, as masked MLP and as transformer."""

from __future__ import annotations

import numpy as np

from dp_step_workloads.workload import JaxModel
from privsyn_jax.models import autoregressive

# Of UCI Adult after the transform with 32 bins per numeric column and public edges.
CARDINALITIES = (34, 9, 34, 16, 16, 7, 15, 6, 5, 2, 34, 34, 36, 42, 2)
LAYOUT = autoregressive.Layout(tuple(range(len(CARDINALITIES))), CARDINALITIES)
MASKED_WIDTH, WIDTH, NUM_LAYERS, NUM_HEADS, MLP_RATIO = 256, 32, 2, 4, 2


def draw(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.integers(0, CARDINALITIES, (number, len(CARDINALITIES))).astype(np.int32)


def masked_jax_model() -> JaxModel:
    generator = autoregressive.make(
        cardinalities=CARDINALITIES, variant="masked_mlp", width=MASKED_WIDTH, num_layers=NUM_LAYERS
    )
    assert generator.private_loss is not None
    return JaxModel(generator.init, generator.private_loss)


def transformer_jax_model() -> JaxModel:
    generator = autoregressive.make(
        cardinalities=CARDINALITIES, width=WIDTH, num_layers=NUM_LAYERS, num_heads=NUM_HEADS, mlp_ratio=MLP_RATIO
    )
    assert generator.private_loss is not None
    return JaxModel(generator.init, generator.private_loss)


def masked_torch_model(for_opacus: bool):
    del for_opacus
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    from dp_step_workloads.torch_layers import MaskedLinear

    class MaskedTrunk(nn.Module):
        def __init__(self):
            super().__init__()
            sees = LAYOUT.column_of_code + 1
            hidden_sees = 1 + np.arange(MASKED_WIDTH) % (LAYOUT.num_columns - 1)
            layers = []
            for _ in range(NUM_LAYERS):
                layers += [MaskedLinear(sees[None, :] <= hidden_sees[:, None]), nn.GELU(approximate="tanh")]
                sees = hidden_sees
            self.layers = nn.Sequential(*layers, MaskedLinear(sees[None, :] <= LAYOUT.column_of_code[:, None]))

        def forward(self, flat_codes):  # int64 [batch, D] -> logits [batch, S]
            return self.layers(torch.zeros(len(flat_codes), LAYOUT.num_codes).scatter_(1, flat_codes, 1.0))

    return MaskedTrunk(), torch_losses()


def transformer_torch_model(for_opacus: bool):
    del for_opacus
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    from dp_step_workloads.torch_layers import CausalBlock, Position

    own = torch.from_numpy(LAYOUT.own)

    class TransformerTrunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(LAYOUT.num_codes, WIDTH)
            self.position = Position(LAYOUT.num_columns, WIDTH)
            self.blocks = nn.Sequential(*(CausalBlock(WIDTH, NUM_HEADS, MLP_RATIO * WIDTH) for _ in range(NUM_LAYERS)))
            self.norm = nn.RMSNorm(WIDTH, eps=1e-6)
            self.logits = nn.Linear(WIDTH, LAYOUT.num_codes)

        def forward(self, flat_codes):  # int64 [batch, D] -> logits [batch, S]
            embedded = nn.functional.pad(self.embedding(flat_codes)[:, :-1], (0, 0, 1, 0))
            logits = self.logits(self.norm(self.blocks(self.position(embedded))))
            return torch.where(own, logits, 0.0).sum(dim=1)

    return TransformerTrunk(), torch_losses()


def torch_losses():
    """The generator's loss [batch], with its public bias and tables (zeros here) as plain tensors."""
    import torch  # pyright: ignore[reportMissingImports]

    own, offsets = torch.from_numpy(LAYOUT.own), torch.from_numpy(LAYOUT.offsets)
    bias, tables = torch.zeros(LAYOUT.num_codes), torch.zeros(LAYOUT.num_codes, LAYOUT.num_codes)

    def losses(module, codes):
        flat_codes = codes + offsets
        logits = bias + tables[flat_codes].sum(dim=1) + module(flat_codes)
        log_probs = torch.where(own, logits[:, None], -1e9).log_softmax(dim=-1)
        return -log_probs.gather(2, flat_codes[:, :, None]).sum(dim=(1, 2))

    return losses
