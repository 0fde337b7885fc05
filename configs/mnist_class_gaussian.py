"""MNIST by one Gaussian per class over low frequencies, from a single noisy sum; epsilon 1. Half a minute of training.

python -m launch.run --config=configs/mnist_class_gaussian.py --config.data.dir=FOLDER --workdir=runs/mnist_gaussian
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("class_gaussian")
    config.data.name = "mnist"
    config.model.num_splits = 2
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    config.synthesis.num_samples = 20_000
    return finish(config, arg)
