"""The generator fitted to purchased marginals alone on UCI Adult; epsilon 1.

python -m launch.run --config=configs/adult_fitted_marginals.py --config.data.dir=FOLDER --workdir=runs/adult
"""

from configs.adult_autoregressive import COLUMN_ORDER
from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("fitted_marginals")
    config.data.name = "adult"
    config.model.column_order = COLUMN_ORDER
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    return finish(config, arg)
