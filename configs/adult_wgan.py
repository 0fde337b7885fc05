"""UCI Adult by a Wasserstein GAN; epsilon 1.

python -m launch.run --config=configs/adult_wgan.py --config.data.dir=FOLDER --workdir=runs/adult_wgan
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("wgan")
    config.data.name = "adult"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    config.privacy.budget.marginals = 0.0
    config.training.num_steps = 1000
    config.training.expected_batch_size = 2048
    config.training.critic_steps = 2
    config.training.learning_rate = 1e-3
    config.training.generator_batch_size = 512
    config.training.adam_b1 = 0.5
    return finish(config, arg)
