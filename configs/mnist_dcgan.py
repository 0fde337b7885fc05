"""MNIST by a label-conditioned DCGAN that starts from images drawn from bought class Gaussians.

python -m launch.run --config=configs/mnist_dcgan.py --config.data.dir=FOLDER --workdir=runs/mnist_dcgan
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=10
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, size = sized_config("dcgan", "mnist", arg)
    config.warm_start.images = "gaussian"
    config.warm_start.learning_rate, config.warm_start.num_steps = 5e-4, 1500
    config.privacy.budget.warm_start = 0.3
    config.training.num_steps, config.training.expected_batch_size = 200, 1024
    config.training.learning_rate, config.training.adam_b1 = 2e-4, 0.5
    config.training.ema_decay, config.training.critic_steps = 0.98, 2
    config.model.channels = (32, 64)
    config.synthesis.num_samples = 10_000
    if size == "gpu":
        config.model.channels = (64, 128, 256)
        config.training.num_steps, config.training.expected_batch_size = 4000, 2048
        config.training.generator_batch_size, config.training.critic_steps = 512, 4
        config.synthesis.num_samples = 60_000
    return finish_images(config, arg)
