"""MNIST by diffusion that starts from images drawn from bought class Gaussians.

python -m launch.run --config=configs/mnist_diffusion.py --config.data.dir=FOLDER --workdir=runs/mnist_diffusion
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=10
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, size = sized_config("diffusion", "mnist", arg)
    config.warm_start.images = "gaussian"
    config.privacy.budget.warm_start = 0.3
    config.warm_start.num_steps = 1500
    config.model.noise_mean = -0.6
    config.training.num_steps, config.training.expected_batch_size = 150, 1024
    config.training.learning_rate = 5e-4
    config.training.ema_decay = 0.98
    config.synthesis.num_samples = 10_000
    if size == "gpu":
        config.model.channels, config.model.patch_size, config.model.num_blocks = (64, 128, 128), 1, 2
        config.training.num_steps, config.training.expected_batch_size = 2000, 4096
        config.training.num_draws, config.training.compute_dtype = 8, "bfloat16"
        config.training.ema_decay = 0.995
        config.warm_start.num_steps, config.warm_start.batch_size = 10_000, 512
        config.synthesis.num_samples = 60_000
    return finish_images(config, arg)
