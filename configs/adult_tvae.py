"""UCI Adult by a variational autoencoder; epsilon 1.

python -m launch.run --config=configs/adult_tvae.py --config.data.dir=FOLDER --workdir=runs/adult_tvae
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("tvae")
    config.data.name = "adult"
    config.model.target_weight = 4.0
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    config.privacy.budget.marginals = 0.0
    config.privacy.budget.prior = 0.0
    config.training.num_steps = 1000
    config.training.expected_batch_size = 2048
    config.training.learning_rate = 1e-2
    return finish(config, arg)
