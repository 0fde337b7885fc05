"""Data parallel steps: rows and sums over devices. The only file that names a device axis.

Every device makes the same global Poisson draw, takes the drawn rows among its own, and clips and sums them; the
sums are added over devices, and every device adds the same noise, drawn once from a key that all share. The result
does not depend on the number of devices, up to the order of float32 additions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from privsyn_jax.training.step import DPStep, Shard, repeated

AXIS = "data"
WRAPPERS = ("pmap", "shard_map")


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """The devices that share a table of num_rows rows.

    Attributes:
      devices: of all processes, in the same order on each.
      wrapper: "pmap" or "shard_map".
    """

    devices: Sequence[Any]
    num_rows: int
    wrapper: str = "pmap"

    def __post_init__(self):
        if self.wrapper not in WRAPPERS:
            raise ValueError(f"wrapper {self.wrapper!r} must be one of {', '.join(WRAPPERS)}")
        if jax.process_index() not in self._processes:
            raise ValueError(f"process {jax.process_index()} has none of the {len(self.devices)} devices: use more")

    @property
    def _processes(self) -> set[int]:
        return {device.process_index for device in self.devices}

    @property
    def rows_per_device(self) -> int:
        return -(-self.num_rows // len(self.devices))

    def place(self, records: Any) -> Any:
        """Puts each device's rows on it, filled up with zeros to equal parts.

        Args:
          records: pytree of arrays [num_rows, ...] on the host; a process reads the rows of its own devices only.

        Returns:
          pytree of arrays [devices (pmap: of this process), rows_per_device, ...].
        """
        return jax.tree.map(self._place, records)

    def _place(self, array: Any) -> Any:
        def part(number: int) -> np.ndarray:
            rows = np.asarray(array[number * self.rows_per_device : (number + 1) * self.rows_per_device])
            return np.pad(rows, [(0, self.rows_per_device - len(rows))] + [(0, 0)] * (rows.ndim - 1))

        here = jax.process_index()
        own = [(number, device) for number, device in enumerate(self.devices) if device.process_index == here]
        shards = [jax.device_put(part(number)[None], device) for number, device in own]
        count = len(own) if self.wrapper == "pmap" else len(self.devices)
        mesh = self._mesh.local_mesh if self.wrapper == "pmap" else self._mesh
        sharding = NamedSharding(mesh, PartitionSpec(AXIS))
        shape = (count, self.rows_per_device, *array.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    def many_steps(self, step: DPStep, count: int) -> Callable[..., Any]:
        """(state, placed records, key) -> (state, logs [count]), as `training.step.many_steps` on one device.

        In several processes, each calls with the same state and the same key.

        Raises:
          ValueError: when called, if the keys differ.
        """
        run = repeated(dataclasses.replace(step, shard=Shard(AXIS, self.num_rows)), count)
        if self.wrapper == "pmap":
            steps = jax.pmap(run, AXIS, in_axes=(None, 0, None), out_axes=None, devices=self.devices, donate_argnums=0)
            return self._from_replicated(steps)

        def on_own_rows(state, records, key):
            return run(state, jax.tree.map(lambda array: array[0], records), key)

        # With check_vma=True, gradients for the replicated parameters would be sums over devices before clipping.
        sharded = jax.shard_map(
            on_own_rows,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return self._from_replicated(jax.jit(sharded, donate_argnums=0))

    def _from_replicated(self, steps: Callable[..., Any]) -> Callable[..., Any]:
        """Puts state and key on every device first: a second kind of placement would be a second compilation."""

        def run(state, records, key):
            several = len(self._processes) > 1
            if several:
                _refuse_different_keys(key)
            if several and self.wrapper == "shard_map":
                state, key = multihost_utils.host_local_array_to_global_array((state, key), self._mesh, PartitionSpec())
            else:
                state, key = jax.device_put((state, key), NamedSharding(self._mesh.local_mesh, PartitionSpec()))
            return steps(state, records, key)

        return run

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))


def _refuse_different_keys(key: jax.Array) -> None:
    """Processes with keys of their own would draw and noise batches of their own, and nothing else would tell."""
    keys = multihost_utils.process_allgather(np.asarray(jax.random.key_data(key)))
    if (keys != keys[0]).any():
        raise ValueError("the processes were given different keys: send one process's key to all")
