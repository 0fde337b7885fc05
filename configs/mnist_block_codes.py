"""MNIST by a causal transformer over codes of blocks in a public basis; starts from bought class Gaussians.

python -m launch.run --config=configs/mnist_block_codes.py --config.data.dir=FOLDER --workdir=runs/mnist_block_codes
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=10
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, size = sized_config("block_codes", "mnist", arg)
    config.model.num_frequencies, config.model.num_levels, config.model.width = 6, 9, 48
    config.warm_start.images = "gaussian"
    config.warm_start.num_steps, config.warm_start.learning_rate = 2000, 3e-3
    config.privacy.budget.warm_start = 0.3
    config.training.num_steps, config.training.expected_batch_size = 400, 1024
    config.training.learning_rate, config.training.ema_decay = 1e-3, 0.98
    config.synthesis.num_samples = 10_000
    if size == "gpu":
        config.model.num_frequencies, config.model.num_levels, config.model.width = 8, 15, 64
        config.training.num_steps, config.training.expected_batch_size = 3000, 4096
        config.synthesis.num_samples = 60_000
    return finish_images(config, arg)
