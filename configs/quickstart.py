"""RAND Health Insurance Experiment, the table that comes with statsmodels; epsilon 1.

python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart
After the name, joined by commas: a generator of tables (its settings are those of configs/adult_NAME.py), smoke
"""

import importlib

from privsyn_jax.models import TABLE_GENERATORS


def get_config(arg=None):
    words = arg.split(",") if arg else []
    names = [word for word in words if word in TABLE_GENERATORS]
    others = [word for word in words if word not in TABLE_GENERATORS]
    if len(names) > 1:
        raise ValueError(f"config argument {arg!r} names {len(names)} generators: name one")
    name = names[0] if names else "autoregressive"
    config = importlib.import_module(f"configs.adult_{name}").get_config(",".join(others) or None)
    config.data.name = "rand_hie"
    config.model.column_order = ()
    if "smoke" not in others:
        config.training.expected_batch_size = 0  # an eighth of the rows
        config.synthesis.num_samples = 10_000
    return config
