"""Differentially private synthetic data with JAX.

fit(records, schema, epsilon=..., delta=...) -> Run;  Run.sample(n), Run.privacy, Run.save(folder);  load(folder).
load_run(workdir) and load_study(workdir) show what launch.run and launch.study left, as DataFrames and plots.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from privsyn_jax.api import fit, list_models
    from privsyn_jax.fitted import Run, load
    from privsyn_jax.types import Column, Images, ImageSchema, Schema, Texts, TextSchema, UserError
    from privsyn_jax.views.run_folder import load_run
    from privsyn_jax.views.study_folder import load_study

__all__ = [
    "Column",
    "ImageSchema",
    "Images",
    "Run",
    "Schema",
    "TextSchema",
    "Texts",
    "UserError",
    "fit",
    "list_models",
    "load",
    "load_run",
    "load_study",
]

_HOMES = {
    **dict.fromkeys(("Column", "ImageSchema", "Images", "Schema", "TextSchema", "Texts", "UserError"), "types"),
    **dict.fromkeys(("fit", "list_models"), "api"),
    **dict.fromkeys(("Run", "load"), "fitted"),
    "load_run": "views.run_folder",
    "load_study": "views.study_folder",
}


def __getattr__(name: str):
    """Loads what is asked for: `import privsyn_jax` alone does not start JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'privsyn_jax' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"privsyn_jax.{_HOMES[name]}"), name)
