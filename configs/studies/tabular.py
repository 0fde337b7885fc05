r"""Every generator of tables on UCI Adult, at epsilon 0.5, 1, 2 and without privacy, 3 seeds each.

python -m launch.study --config=configs/studies/tabular.py --config.data_dir=FOLDER --workdir=runs/tabular

Each generator as its own config has it (configs/adult_NAME.py), nothing tuned by epsilon. `:smoke` runs three quick
ones on the RAND Health Insurance Experiment. After the name, joined by commas: generators, for those alone.
"""

import importlib

from ml_collections import ConfigDict

from privsyn_jax.models import TABLE_GENERATORS

_QUICK = ("bayesian_network", "mst", "tvae")
_ATTACKS = ("density_ratio", "shadow_posteriors")


def get_config(arg=None):
    words = arg.split(",") if arg else []
    is_smoke, names = "smoke" in words, [word for word in words if word != "smoke"]
    for name in names:
        if name not in TABLE_GENERATORS:
            raise ValueError(f"config argument {name!r} is unknown: use smoke or one of {', '.join(TABLE_GENERATORS)}")
    names = names or (_QUICK if is_smoke else tuple(TABLE_GENERATORS))
    config = ConfigDict()
    config.data_dir = ""
    config.models = {name: _model(name, is_smoke) for name in names}
    for model in config.models.values():
        model.data.dir = config.get_ref("data_dir")
    config.contestants = {"as it is": {}}
    config.baseline = "as it is"
    config.epsilons = (1.0,) if is_smoke else (0.5, 1.0, 2.0, float("inf"))
    config.seeds = (0, 1) if is_smoke else (0, 1, 2)
    config.metrics = (
        "logistic_regression_auc", "boosting_auc", "pairwise_total_variation", "mean_emd",
        "logistic_regression_accuracy", "logistic_regression_f1", "boosting_accuracy", "boosting_f1",
        *(f"{attack}_auc" for attack in _ATTACKS),
    )  # fmt: skip
    config.attacks = _ATTACKS
    config.tuning = None
    return config


def _model(name, is_smoke):
    config = importlib.import_module(f"configs.adult_{name}").get_config("smoke" if is_smoke else None)
    config.evaluation.num_seeds = 0  # the study has seeds of its own
    if is_smoke:
        config.data.name = "rand_hie"
        config.model.column_order = ()
    return config
