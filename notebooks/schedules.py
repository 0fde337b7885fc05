# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Noise that changes over steps, at equal epsilon
#
# The noise multiplier need not be the same in every step. A schedule gives its shape; the plan then scales the whole
# shape so that the run as a whole costs exactly the target epsilon. So schedules compare fairly: same (epsilon,
# delta), same steps, noise moved from one place to another.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

import privsyn_jax
from privsyn_jax.data.rand_hie import read_schema
from privsyn_jax.pages import epsilon_curve
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy import schedules
from privsyn_jax.settings import DataSettings, settings_from_dict
from privsyn_jax.study.execute import execute
from privsyn_jax.study.executors import Engine
from privsyn_jax.study.plan import Study

DELTA = 1e-5
MODEL = {
    "data": {"name": "rand_hie"},
    "model": {"name": "tvae", "latent_dim": 4, "hidden_dims": [32]},
    "privacy": {"epsilon": 1.0, "delta": DELTA, "budget": {"prior": 0.0}},
    "training": {"num_steps": 60, "expected_batch_size": 256, "steps_per_dispatch": 5, "learning_rate": 1e-2},
    "synthesis": {"num_samples": 4000},
    "evaluation": {"num_seeds": 0},
    "attacks": {"enabled": False},
}
schema = read_schema(DataSettings(name="rand_hie"))

# %% [markdown]
# ## The shapes
#
# Left: noise multiplier over steps. Right: epsilon spent so far; all curves start from what was bought before training
# and end at 1. A schedule that begins with much noise spends late, and the other way round.

# %%
plans = {}
for shape in schedules.SHAPES:
    privacy = {**MODEL["privacy"], "schedule": {"noise": shape}}
    plans[shape] = make_plan(settings_from_dict({**MODEL, "privacy": privacy}), schema)
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for shape, plan in plans.items():
    noise = np.repeat([level.noise_multiplier for level in plan.levels], [level.num_steps for level in plan.levels])
    left.step(range(len(noise)), noise, where="post", label=shape)
    right.plot(*np.transpose(epsilon_curve(plan)))
left.set(xlabel="step", ylabel="noise multiplier", ylim=(0, None))
right.set(xlabel="step", ylabel="epsilon so far", ylim=(0, None))
fig.legend(*left.get_legend_handles_labels(), loc="outside right center")
plt.show()

# %% [markdown]
# A schedule is followed in at most 16 constant levels, so that accounting is exact for what is run. This is what the
# ledger will be charged with for one of them:

# %%
display(plans["cosine"])

# %%
for shape, plan in plans.items():
    final = epsilon_curve(plan)[-1][1]
    print(f"{shape:>13}: ends at epsilon {final:.4f}")
    assert final <= 1.0 + 1e-3

# %% [markdown]
# ## A very small comparison
#
# Two schedules, three seeds, one epsilon, a tiny generator trained for 60 steps: enough to show how a study is made,
# far too little to choose a schedule by. (A study that can tell them apart is `configs/studies/noise_schedules.py`,
# with a tuned baseline; what came out is in `docs/results/noise_schedules.md`.)
#
# Nothing here was tuned, and comparing utilities on real rows is itself a look at them that no ledger counts: the
# table below is private.

# %%
study = Study(
    models={"tvae": MODEL},
    contestants={"constant": {}, "cosine": {"privacy.schedule.noise": "cosine"}},
    baseline="constant",
    epsilons=(1.0,),
    seeds=(0, 1, 2),
    metrics=("logistic_regression_auc", "pairwise_total_variation"),
    tuning=None,
)
workdir = Path(tempfile.mkdtemp()) / "study"
for line in execute(study, str(workdir), Engine(workers=1, vectorize=True)):
    print(line)

# %%
found = privsyn_jax.load_study(workdir)
display(found)

# %%
found.results[["contestant", "seed", *study.metrics, "epsilon_spent"]].sort_values(["contestant", "seed"])

# %%
display(found.plot("logistic_regression_auc"))

# %% [markdown]
# Differences to the constant schedule, paired by seed, with 95 % intervals. With three seeds the intervals are wide; a
# difference counts only if `p_holm` (corrected for the number of comparisons) is small.

# %%
display(found.comparison[["metric", "contestant", "difference", "low", "high", "p_holm"]])
