"""What all private randomness of a run follows from."""

from __future__ import annotations

import dataclasses
import hashlib
import os

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.privacy.noise import HostNoise

_NUM_BYTES = 32


@dataclasses.dataclass(frozen=True)
class Secret:
    """Noise and sampling are functions of it, so that a run which was killed can be repeated draw by draw.

    Whoever has it can take the noise away: it is kept under private/ and removed when the run ends. Every origin
    (see `Ledger`) has randomness of its own, because outcomes that share their noise must not be composed as if they
    were independent. With a seed there is no secret, and all origins share one stream.

    Attributes:
      entropy: 32 bytes from the operating system.
      seed: of a run that anyone can repeat, and take the noise from.
    """

    entropy: bytes = dataclasses.field(repr=False)
    seed: int | None = None

    @classmethod
    def fresh(cls, seed: int | None = None) -> Secret:
        return cls(os.urandom(_NUM_BYTES), seed)

    def key(self, origin: str = "") -> jax.Array:
        """PRNG key of sampling and training noise: 64 bits."""
        if self.seed is not None:
            return jax.random.key(self.seed, impl="threefry2x32")
        words = np.frombuffer(self._derive("training", origin)[:8], dtype=np.uint32)
        return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")

    def host_noise(self, origin: str = "") -> HostNoise:
        """Noise of the one-off releases before training."""
        return HostNoise(self._derive("releases", origin) if self.seed is None else self.seed)

    def host_noise_after(self, origin: str = "") -> HostNoise:
        """Noise of the one-off releases after training."""
        if self.seed is None:
            return HostNoise(self._derive("releases after training", origin))
        return HostNoise(self.seed + 2**64)  # another stream than before training

    @property
    def fingerprint(self) -> str:
        """Tells two secrets apart and gives nothing away."""
        named = self._derive("fingerprint", "") if self.seed is None else str(self.seed).encode()
        return hashlib.sha256(named).hexdigest()[:16]

    def _derive(self, purpose: str, origin: str) -> bytes:
        return hashlib.shake_256(b"\0".join([self.entropy, purpose.encode(), origin.encode()])).digest(_NUM_BYTES)
