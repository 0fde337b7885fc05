"""What was bought before training, kept so that a run need not buy twice."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

import numpy as np

from privsyn_jax.one_shot import NoisySums
from privsyn_jax.training.marginals import Marginals, Table
from privsyn_jax.transforms import Transform, transform_from_dict


class Purchases(NamedTuple):
    """Public and released values only."""

    transform: Transform
    released: Marginals | NoisySums | None

    def to_bytes(self, notes: dict[str, Any]) -> bytes:
        """One file: arrays and JSON, no pickle."""
        arrays: dict[str, np.ndarray] = {}
        content = {"notes": notes, "transform": self.transform.to_dict(), "tables": None, "stddevs": None}
        if isinstance(self.released, NoisySums):
            content["stddevs"] = self.released.stddevs
            arrays |= {f"sum {number}": noisy_sum for number, noisy_sum in enumerate(self.released.sums)}
        elif self.released is not None:
            content["tables"] = [[list(columns), table.stddev] for columns, table in self.released.tables.items()]
            for j, (counts, stddev) in enumerate(zip(self.released.one_way, self.released.one_way_stddev, strict=True)):
                arrays |= {f"one_way {j}": counts, f"stddev {j}": stddev}
            arrays |= {f"table {t}": table.counts for t, table in enumerate(self.released.tables.values())}
        file = io.BytesIO()
        np.savez(file, content=np.frombuffer(json.dumps(content).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Purchases, dict[str, Any]]:
        """What was kept and its notes.

        Raises:
          ValueError, KeyError, OSError, zipfile.BadZipFile: the bytes are damaged.
        """
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            content = json.loads(found["content"].tobytes())
            arrays = {name: found[name] for name in found.files if name != "content"}
        transform, released = transform_from_dict(content["transform"]), None
        if content["stddevs"] is not None:
            stddevs = tuple(content["stddevs"])
            released = NoisySums(tuple(arrays[f"sum {number}"] for number in range(len(stddevs))), stddevs)
        elif content["tables"] is not None:
            columns = range(sum(name.startswith("one_way ") for name in arrays))
            released = Marginals(
                [arrays[f"one_way {j}"] for j in columns],
                [arrays[f"stddev {j}"] for j in columns],
                {tuple(key): Table(arrays[f"table {t}"], s) for t, (key, s) in enumerate(content["tables"])},
            )
        return cls(transform, released), content["notes"]
