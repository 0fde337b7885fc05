r"""MNIST by Gaussians in several cells of every class, from three noisy sums; no network, learns in seconds.

python -m launch.run --config=configs/mnist_class_gaussian.py --config.data.dir=FOLDER \
    --workdir=runs/mnist_class_gaussian
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=10
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, size = sized_config("class_gaussian", "mnist", arg)
    is_small = config.privacy.epsilon <= 2
    config.model.num_frequencies, config.model.num_splits = (150, 2) if is_small else (200, 3)
    config.model.shrinkage = 0.7
    config.synthesis.num_samples = 60_000 if size == "gpu" else 20_000
    return finish_images(config, arg)
