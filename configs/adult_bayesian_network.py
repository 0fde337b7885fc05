"""A private Bayesian network on UCI Adult; epsilon 1.

python -m launch.run --config=configs/adult_bayesian_network.py --config.data.dir=FOLDER --workdir=runs/adult
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("bayesian_network")
    config.data.name = "adult"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    return finish(config, arg)
