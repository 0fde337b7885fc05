"""CIFAR-10 by diffusion that starts from procedural images and from images drawn from bought class Gaussians.

python -m launch.run --config=configs/cifar10_diffusion.py --config.data.dir=FOLDER --workdir=runs/cifar10_diffusion
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=10
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, size = sized_config("diffusion", "cifar10", arg)
    config.warm_start.images = "procedural+gaussian"
    config.warm_start.num_frequencies, config.warm_start.center, config.warm_start.radius = 200, 0.5, 0.3
    config.privacy.budget.warm_start = 0.5
    config.model.noise_mean = -0.6
    config.training.num_steps, config.training.expected_batch_size = 200, 1024
    config.training.learning_rate = 3e-4
    config.training.ema_decay = 0.98
    config.synthesis.num_samples = 10_000
    if size == "gpu":
        config.model.channels, config.model.patch_size, config.model.num_blocks = (128, 256, 256), 1, 2
        config.training.num_steps, config.training.expected_batch_size = 1500, 4096
        config.training.num_draws, config.training.compute_dtype = 4, "bfloat16"
        config.training.ema_decay = 0.995
        config.warm_start.num_steps, config.warm_start.batch_size = 10_000, 512
        config.synthesis.num_samples = 50_000
    return finish_images(config, arg)
