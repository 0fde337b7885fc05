"""Generators by name: one file and one line each."""

from privsyn_jax.models import autoregressive

GENERATORS = {"autoregressive": autoregressive.make}
USES_MARGINALS = frozenset({"autoregressive"})  # purchased ones, by `calibrate`
