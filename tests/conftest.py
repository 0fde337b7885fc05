"""Strict JAX for every test: keys used twice, silent rank promotion and warnings are errors."""

import os
from pathlib import Path

import jax
import pytest

os.environ["PRIVSYN_CACHE_DIR"] = ""  # no calibration is remembered from another run
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture(scope="session")
def adult_dir() -> Path:
    """Folder of the original Adult files: $PRIVSYN_DATA_DIR/adult, or shared/data/adult beside the checkout."""
    base = os.environ.get("PRIVSYN_DATA_DIR", Path(__file__).parents[2] / "shared" / "data")
    folder = Path(base) / "adult"
    if not (folder / "adult.data").is_file():
        pytest.skip("the original Adult files are absent: set PRIVSYN_DATA_DIR to the folder that holds adult/")
    return folder
