"""The contestants of `benchmarks/dp_step.py` that run on PyTorch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from dp_step_workloads.contestant import Prepared
from dp_step_workloads.workload import Workload

L2_CLIP_NORM = 1.0


class TorchContestants:
    """One workload's data, and a module and a call for each contestant. All sum gradients over the batch."""

    peers = ("opacus_hooks", "opacus_ghost")

    def __init__(self, workload: Workload, batch_size: int):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.manual_seed(0)
        self.workload = workload
        examples = torch.from_numpy(workload.draw(np.random.default_rng(0), batch_size))
        self.examples = examples if examples.is_floating_point() else examples.long()

    def prepare(self, name: str) -> Prepared:
        build = {"torch_plain": self._plain, "opacus_hooks": self._hooks, "opacus_ghost": self._ghost}[name]
        call, forget = build()
        call()
        forget()
        return Prepared(call, {"memory_bytes": peak_bytes(call)})

    @property
    def num_parameters(self) -> int:
        module, _ = self.workload.torch_model(False)
        return sum(parameter.numel() for parameter in module.parameters())

    def _plain(self) -> tuple[Callable[[], Any], Callable[[], None]]:
        module, losses = self.workload.torch_model(False)

        def forget():
            for parameter in module.parameters():
                parameter.grad = None

        def call():
            forget()
            losses(module, self.examples).sum().backward()

        return call, forget

    def _hooks(self) -> tuple[Callable[[], Any], Callable[[], None]]:
        """Opacus' default: hooks compute per-example gradients, its optimiser clips and sums them."""
        from opacus.grad_sample import GradSampleModule  # pyright: ignore[reportMissingImports]
        from opacus.optimizers import DPOptimizer  # pyright: ignore[reportMissingImports]

        module, losses = self._opacus_model()
        module = GradSampleModule(module, loss_reduction="sum")
        optimizer = DPOptimizer(torch.optim.SGD(module.parameters()), **self._optimizer_settings())

        def forget():
            optimizer.zero_grad(set_to_none=True)

        def call():
            forget()
            losses(module, self.examples).sum().backward()
            optimizer.clip_and_accumulate()

        return call, forget

    def _ghost(self) -> tuple[Callable[[], Any], Callable[[], None]]:
        """Opacus' ghost clipping: norms in a first backward pass, the weighted sum in a second."""
        from opacus.grad_sample import GradSampleModuleFastGradientClipping  # pyright: ignore[reportMissingImports]
        from opacus.optimizers import DPOptimizerFastGradientClipping  # pyright: ignore[reportMissingImports]
        from opacus.utils.fast_gradient_clipping_utils import (  # pyright: ignore[reportMissingImports]
            DPTensorFastGradientClipping,
        )

        module, losses = self._opacus_model()
        module = GradSampleModuleFastGradientClipping(module, loss_reduction="sum", max_grad_norm=L2_CLIP_NORM)
        optimizer = DPOptimizerFastGradientClipping(torch.optim.SGD(module.parameters()), **self._optimizer_settings())

        def forget():
            optimizer.zero_grad(set_to_none=True)

        def call():
            forget()
            DPTensorFastGradientClipping(module, optimizer, losses(module, self.examples), "sum").backward()

        return call, forget

    def _opacus_model(self) -> tuple[Any, Callable[..., Any]]:
        from dp_step_workloads.torch_layers import register_samplers

        register_samplers()
        return self.workload.torch_model(True)

    def _optimizer_settings(self) -> dict[str, Any]:
        return {
            "noise_multiplier": 0.0,
            "max_grad_norm": L2_CLIP_NORM,
            "expected_batch_size": None,
            "loss_reduction": "sum",
        }


def peak_bytes(call: Callable[[], Any]) -> float:
    """Most bytes that PyTorch's allocator held at once during a call, beyond those held before it.

    The running sum of the profiler's allocation events. It counts neither oneDNN's scratch memory nor
    fragmentation, and repeats to the byte, which the process' peak resident size does not.
    """
    from torch.profiler import ProfilerActivity, profile  # pyright: ignore[reportMissingImports]

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return float(max(itertools.accumulate(event.nbytes() for event in events)))
