"""UCI Adult by a conditional GAN; epsilon 1.

python -m launch.run --config=configs/adult_ctgan.py --config.data.dir=FOLDER --workdir=runs/adult_ctgan
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("ctgan")
    config.data.name = "adult"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    config.privacy.budget.marginals = 0.2
    config.training.num_steps = 400
    config.training.expected_batch_size = 2048
    config.training.critic_steps = 5
    config.training.learning_rate = 1e-3
    config.training.generator_learning_rate = 1e-3
    config.training.generator_batch_size = 512
    return finish(config, arg)
