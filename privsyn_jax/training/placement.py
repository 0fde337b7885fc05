"""Where records stay and which devices run a step."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.privacy import ghost
from privsyn_jax.settings import TrainingSettings
from privsyn_jax.training import feed
from privsyn_jax.training.parallel import DataParallel
from privsyn_jax.training.step import DPStep, many_steps
from privsyn_jax.types import UserError

_CPU_MICROBATCH_SIZE = 64  # records; activations of small networks then stay in the cache
_SHARE_OF_MEMORY = 0.5  # that records may take of a device's


def automatic_microbatch_size(expected_batch_size: float, num_devices: int = 1, rows_per_unit: int = 1) -> int:
    """One microbatch holds nearly every device's part of a draw, except on CPU, where small ones are faster."""
    if jax.default_backend() == "cpu":
        return max(1, _CPU_MICROBATCH_SIZE // rows_per_unit)
    part = expected_batch_size / num_devices
    return 8 * math.ceil((part + 4 * math.sqrt(part)) / 8)


def place(step: DPStep, params: Any, records: Any, settings: TrainingSettings) -> tuple[Any, Any]:
    """(records where they will stay, compile_steps of `loop.fit`).

    Args:
      params: of the step's loss, for their shapes.
      records: pytree of NumPy arrays [n, ...].

    Raises:
      UserError: there are fewer devices than settings.num_devices, or several would be fed from the host.
    """
    devices = jax.devices()[: settings.num_devices or None]
    if settings.num_devices > len(devices):
        raise UserError(f"training.num_devices is {settings.num_devices}: this machine has {len(devices)}")
    if len(devices) > 1 or jax.process_count() > 1:
        if settings.records_on == "host":
            raise UserError(
                f"training.records_on is 'host', which feeds one device of one process, not {len(devices)}: "
                "set training.num_devices to 1, or records_on to 'device'"
            )
        parallel = DataParallel(tuple(devices), len(jax.tree.leaves(records)[0]), settings.device_wrapper)
        return parallel.place(records), parallel.many_steps
    if settings.records_on == "host" or (
        settings.records_on == "auto" and not _belongs_on_device(step, params, records)
    ):
        return records, feed.many_steps
    return jax.tree.map(jnp.asarray, records), many_steps


def _belongs_on_device(step: DPStep, params: Any, records: Any) -> bool:
    """Whether the records fit, and the steps over them can be a loop of XLA's."""
    if jax.default_backend() == "cpu":
        # A loop runs the gradient of a convolution many times slower here.
        return not ghost.contains_conv(step.private_loss, params, (records, jax.random.split(jax.random.key(0), 1)))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(records))
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)
    return size <= _SHARE_OF_MEMORY * limit
