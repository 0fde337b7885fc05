r"""Noise schedules against a tuned constant one, on UCI Adult at epsilon 0.5, 1 and 2, for two generators.

python -m launch.study --config=configs/studies/noise_schedules.py --config.data_dir=FOLDER --workdir=runs/schedules

Trained short (200 steps of 1,024 records for the autoregressive network, 400 for the variational autoencoder) and
without purchased marginals, so that what is compared is DP-SGD itself and 5 seeds fit two CPU cores. Clipping norm and
learning rate of the constant schedule are tuned per model and epsilon on other seeds; every contestant uses them.
`:smoke` compares two contestants on the RAND Health Insurance Experiment.
"""

from ml_collections import ConfigDict

from configs.adult_autoregressive import COLUMN_ORDER
from launch.config import default_config

_NOISE = "privacy/schedule/noise"
CONTESTANTS = {
    "constant": {},
    "linear": {_NOISE: "linear"},
    "exponential": {_NOISE: "exponential"},
    "cosine": {_NOISE: "cosine"},
    "step": {_NOISE: "step"},
    "warm-up, decay": {_NOISE: "warmup_decay"},
    "growing": {_NOISE: "growing"},
    "clip decay": {"privacy/schedule/clip": "exponential", "privacy/schedule/clip_final": 0.3},
    "noise and clip decay": {
        _NOISE: "exponential",
        "privacy/schedule/clip": "exponential",
        "privacy/schedule/clip_final": 0.3,
    },
    "batch growth": {"privacy/schedule/batch": "linear", "privacy/schedule/batch_final": 3.0},
    "adaptive clip": {"privacy/adaptive_clip/target_quantile": 0.5},
    "adaptive: signal": {"privacy/adaptive/rule": "signal"},
    "adaptive: loss": {"privacy/adaptive/rule": "loss"},
}


def get_config(arg=None):
    if arg not in (None, "", "smoke"):
        raise ValueError(f"config argument {arg!r} is unknown: use smoke or none")
    config = ConfigDict()
    config.data_dir = ""
    config.models = {"autoregressive": _model("autoregressive", 200), "tvae": _model("tvae", 400)}
    for model in config.models.values():
        model.data.dir = config.get_ref("data_dir")
    config.contestants = CONTESTANTS
    config.baseline = "constant"
    config.epsilons = (0.5, 1.0, 2.0)
    config.seeds = (0, 1, 2, 3, 4)
    config.metrics = ("logistic_regression_auc", "boosting_auc", "pairwise_total_variation", "mean_emd")
    config.tuning = {
        "grid": {"privacy/l2_clip_norm": (1.0, 20.0), "training/learning_rate": (1e-2, 2e-2, 4e-2)},
        "seeds": (100, 101),
        "metric": "logistic_regression_auc",
    }
    if arg == "smoke":
        _shrink(config)
    return config


def _model(name, num_steps):
    config = default_config(name)
    config.data.name = "adult"
    config.privacy.delta = 1e-5
    config.privacy.budget.marginals = 0.0
    config.training.num_steps = num_steps
    config.training.expected_batch_size = 1024
    config.training.steps_per_dispatch = 10
    config.synthesis.num_samples = 10_000
    if name == "autoregressive":
        config.model.column_order = COLUMN_ORDER
    return config


def _shrink(config):
    config.contestants = {name: CONTESTANTS[name] for name in ("constant", "cosine")}
    config.epsilons, config.seeds = (1.0,), (0, 1)
    config.tuning = {**config.tuning, "grid": {"privacy/l2_clip_norm": (0.5, 1.0)}, "seeds": (100,)}
    for model in config.models.values():
        model.data.name = "rand_hie"
        model.training.num_steps = 20
        model.training.expected_batch_size = 256
        model.synthesis.num_samples = 1000
        if "column_order" in model.model:
            model.model.column_order = ()
