"""Generators by name: one file and one line each."""

from privsyn_jax.models import autoregressive, tvae

GENERATORS = {"autoregressive": autoregressive.make, "tvae": tvae.make}
USES_MARGINALS = frozenset({"autoregressive"})  # purchased ones, by `calibrate`
