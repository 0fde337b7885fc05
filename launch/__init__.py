"""Programs: flags and config files in, calls of privsyn_jax out."""
