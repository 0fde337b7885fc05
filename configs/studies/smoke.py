"""Six short runs on the RAND Health Insurance Experiment, to try a cluster or a way of running studies.

python -m launch.study --config=configs/studies/smoke.py --workdir=runs/smoke
"""

from ml_collections import ConfigDict

from launch.config import default_config


def get_config(arg=None):
    if arg:
        raise ValueError(f"config argument {arg!r} is unknown: give none")
    model = default_config("tvae")
    model.data.name = "rand_hie"
    model.training.num_steps = 200
    model.training.expected_batch_size = 512
    model.training.steps_per_dispatch = 10
    model.training.checkpoint_seconds = 1.0
    model.synthesis.num_samples = 2000
    config = ConfigDict()
    config.models = {"tvae": model}
    config.contestants = {"constant": {}, "cosine": {"privacy/schedule/noise": "cosine"}}
    config.baseline = "constant"
    config.epsilons = (1.0,)
    config.seeds = (0, 1, 2)
    config.metrics = ("logistic_regression_auc", "pairwise_total_variation")
    config.tuning = None
    return config
