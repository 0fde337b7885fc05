r"""CIFAR-10 by one Gaussian per class over low frequencies, from two noisy sums; no network, learns in seconds.

python -m launch.run --config=configs/cifar10_class_gaussian.py --config.data.dir=FOLDER \
    --workdir=runs/cifar10_class_gaussian
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=10
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, size = sized_config("class_gaussian", "cifar10", arg)
    config.model.num_frequencies = 300
    config.model.radius_within = 0.15 if config.privacy.epsilon <= 2 else 0.25
    config.model.center = 0.5
    config.model.radius = 0.3
    config.synthesis.num_samples = 50_000 if size == "gpu" else 20_000
    return finish_images(config, arg)
