"""RAND Health Insurance Experiment, the table that comes with statsmodels; epsilon 1.

python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("autoregressive")
    config.data.name = "rand_hie"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    config.synthesis.num_samples = 10_000
    return finish(config, arg)
