"""The 8 x 8 digits that come with scikit-learn, by class Gaussians: a first look at images, not a benchmark.

python -m launch.run --config=configs/digits_class_gaussian.py --workdir=runs/digits
"""

from launch.config import finish_images, sized_config


def get_config(arg=None):
    config, _ = sized_config("class_gaussian", "digits", arg, epsilon=10.0)
    config.model.num_frequencies = 20
    config.evaluation.classifier_steps = 300
    return finish_images(config, arg)
