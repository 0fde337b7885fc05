r"""MNIST by one noisy mean embedding per class, which a network is fitted to (after DP-MERF): a baseline.

python -m launch.run --config=configs/mnist_mean_embedding.py --config.data.dir=FOLDER \
    --workdir=runs/mnist_mean_embedding
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=10
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, size = sized_config("mean_embedding", "mnist", arg)
    config.synthesis.num_samples = 60_000 if size == "gpu" else 20_000
    return finish_images(config, arg)
