"""A study that never ran, for tests of its page: hostile names, values that are missing, two kinds of data."""

from __future__ import annotations

import math

import numpy as np

from privsyn_jax.study.analyse import analyse
from privsyn_jax.study.page import render_study
from privsyn_jax.study.plan import Study

HOSTILE = "<b>x</b> & \"y\" %{x} </script><script>alert('$z$')</script>"
UTILITY, LEAKAGE, ERROR = "logistic_regression_auc", "shadow_posteriors_auc", "mean_emd"
REAL = {UTILITY: 0.91, LEAKAGE: 0.5, ERROR: 0.001}
GAP = "outcome_rate_gap_sex"
_TABLE = {"data": {"name": "rand_hie"}, "model": {"name": "tvae"}}
_IMAGES = {"data": {"name": "digits"}, "model": {"name": "dcgan"}}


def make_study(num_models: int = 2, **changes) -> Study:
    """With images beside, and a contestant against the baseline."""
    arguments = {
        "models": {**{f"model {i}": _TABLE for i in range(num_models)}, HOSTILE: _TABLE, "images": _IMAGES},
        "contestants": {"constant": {}, f"cosine {HOSTILE}": {"privacy.schedule.noise": "cosine"}},
        "baseline": "constant",
        "epsilons": (0.5, 1.0, math.inf),
        "seeds": (0, 1, 2),
        "metrics": (UTILITY, ERROR, LEAKAGE, "mean_accuracy", "never_measured"),
        "tuning": None,
        "utility": {"tables": UTILITY},
    }
    return Study(**{**arguments, **changes})


def make_runs(study: Study, seed: int = 0) -> list[dict]:
    """As `runs.rows_of` gives them: better with a larger epsilon, and leaking more; seeds outermost."""
    rng = np.random.default_rng(seed)
    rows = []
    for run_seed in study.seeds:
        luck = rng.normal(0, 0.005)
        for number, model in enumerate(study.models):
            kind = study.kind(model)
            for place, epsilon in enumerate(study.epsilons):
                for better, contestant in enumerate(study.contestants_of(model)):
                    level = 0.7 + 0.03 * number + 0.03 * place + 0.02 * better + luck + rng.normal(0, 0.004)
                    metrics = {"mean_accuracy": level} if kind.modality == "images" else {
                        UTILITY: level, ERROR: math.nan if number == 1 else 0.2 - level / 5, GAP: level / 9
                    }  # fmt: skip
                    metrics[LEAKAGE] = 0.5 + 0.02 * place + 0.03 * (number == 1) + rng.normal(0, 0.004)
                    rows.append(
                        {
                            "model": model, **kind._asdict(), "epsilon": epsilon, "contestant": contestant,
                            "seed": run_seed, **dict.fromkeys(study.metrics, math.nan), **metrics,
                            **{f"real {metric}": REAL[metric] for metric in metrics if metric in REAL},
                            "epsilon_spent": None if math.isinf(epsilon) else epsilon, "seconds": 12.5,
                            "run": "0" * 24, "tuned_on_private_data": False,
                        }
                    )  # fmt: skip
    return rows


def make_page(study: Study, runs: list[dict], total: int | None = None) -> str:
    total = len(runs) if total is None else total
    return render_study(study, runs, analyse(study, runs), done=len(runs), total=total, title=f"Study of {HOSTILE}")
