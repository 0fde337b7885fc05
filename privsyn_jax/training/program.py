"""What the bits of a run depend on besides its records, settings and secret: code, libraries and devices."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import uuid
from pathlib import Path
from typing import Any

import jax

import privsyn_jax
from privsyn_jax.settings import TrainingSettings

# How steps are executed, not what they are: a run may go on with other values, as another program.
EXECUTION = ("num_devices", "device_wrapper", "records_on", "microbatch_size", "gradient_method")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "pandas")
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def describe_program(training: TrainingSettings) -> dict[str, Any]:
    """Plain JSON, equal for two processes that compute the same steps bit for bit.

    A GPU adds in an order of its own in every run unless XLA_FLAGS says `--xla_gpu_deterministic_ops=true`: without it,
    every process is a program of its own.
    """
    devices = jax.devices()
    backend, flags = jax.default_backend(), os.environ.get("XLA_FLAGS", "")
    repeatable = backend == "cpu" or (backend == "gpu" and _DETERMINISTIC in flags.split())
    return {
        "code": _code(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": {
            "kind": devices[0].device_kind,
            "number": min(training.num_devices or len(devices), len(devices)),
            "processes": jax.process_count(),
            "cores": len(os.sched_getaffinity(0)) if backend == "cpu" else None,
        },
        "processor": _processor(),
        "flags": flags,
        "matmul precision": str(jax.config.values["jax_default_matmul_precision"]),
        "settings": {name: getattr(training, name) for name in EXECUTION},
        "repeatable": True if repeatable else f"no: without {_DETERMINISTIC} in XLA_FLAGS ({uuid.uuid4().hex[:8]})",
    }


@functools.cache
def _code() -> str:
    """Digest of this package's source."""
    root = Path(privsyn_jax.__file__).parent
    content = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content.update(path.relative_to(root).as_posix().encode())
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


@functools.cache
def _processor() -> str:
    """Model and instruction sets: compiled code differs between processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(reversed([line.split(":", 1) for line in lines if ":" in line]))
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    features = facts.get("flags", facts.get("Features", ""))
    name = facts.get("model name", facts.get("CPU part", platform.processor()))
    return f"{name}, features {hashlib.sha256(features.encode()).hexdigest()[:8]}"
