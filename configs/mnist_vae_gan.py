"""MNIST by a hybrid of variational autoencoder and GAN that starts from images drawn from bought class Gaussians.

python -m launch.run --config=configs/mnist_vae_gan.py --config.data.dir=FOLDER --workdir=runs/mnist_vae_gan
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=10
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, size = sized_config("vae_gan", "mnist", arg)
    config.warm_start.images = "gaussian"
    config.warm_start.num_steps = 2000
    config.privacy.budget.warm_start = 0.3
    config.training.num_steps, config.training.expected_batch_size = 300, 1024
    config.training.learning_rate, config.training.ema_decay = 1e-3, 0.98
    config.model.channels = (32, 64)
    config.synthesis.num_samples = 10_000
    if size == "gpu":
        config.model.channels = (64, 128, 256)
        config.training.num_steps, config.training.expected_batch_size = 3000, 4096
        config.synthesis.num_samples = 60_000
    return finish_images(config, arg)
