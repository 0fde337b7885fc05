"""UCI Adult by noisy votes of teachers (PATE-GAN); epsilon 1.

python -m launch.run --config=configs/adult_pate_gan.py --config.data.dir=FOLDER --workdir=runs/adult_pate_gan
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("pate_gan")
    config.data.name = "adult"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    config.model.num_teachers = 500
    config.training.num_steps = 500
    config.training.expected_batch_size = 8192
    config.training.generator_batch_size = 64
    config.training.learning_rate = 3e-4
    config.training.generator_learning_rate = 3e-4
    config.training.adam_b1 = 0.5
    config.training.num_devices = 1
    return finish(config, arg)
