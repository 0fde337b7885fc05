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
# # Looking into a run
#
# `python -m launch.run` leaves a folder: `release/`, which is safe to publish, and `private/`, which is not.
# `privsyn_jax.load_run(workdir)` gives both as DataFrames and plots, for a run that is finished or still going on.
# Here the quickstart's smoke configuration, made in this process: 20 steps, so expect little of its utility.
#
# **The output of this notebook is private**: it shows losses, metrics, attacks and real rows.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

import privsyn_jax
from configs.quickstart import get_config
from launch.config import to_settings
from privsyn_jax.evaluation.attacks.mixed import mixed_rows, nearest_rows
from privsyn_jax.evaluation.encode import encode_tables
from privsyn_jax.report import membership_advantage_bound
from privsyn_jax.run import execute

workdir = Path(tempfile.mkdtemp()) / "run"
config = get_config("smoke")
config.evaluation.num_seeds = 0  # one seed of the downstream models, to be quicker
for line in execute(to_settings(config), workdir, announce=print):
    print(line)

# %%
run = privsyn_jax.load_run(workdir)
display(run)

# %% [markdown]
# ## What was spent
#
# The plan, made before a row was read; the privacy report, with the ledger; and epsilon over the steps of training,
# which starts from what was bought before.

# %%
display(run.plan)

# %%
display(run.privacy)

# %%
run.plot_epsilon()

# %% [markdown]
# ## Training
#
# Losses and gradient norms are raw: never choose a setting by them without charging for it.

# %%
run.plot_training()

# %%
run.training.tail(3)

# %% [markdown]
# ## Samples, beside real rows

# %%
run.synthetic.head()

# %%
real = run.real()
run.plot_marginals(real.train)

# %% [markdown]
# ## Nearest neighbours
#
# How far is each synthetic row from the nearest row that was trained on, and from the nearest of as many that were
# not? A generator that copies puts its rows nearer to the former. Distances are Gower's: the mean over columns of
# differences, scaled to [0, 1].

# %%
rng = np.random.default_rng(0)
size = min(len(real.train), len(real.test))
trained, held_out = (part.iloc[rng.permutation(len(part))[:size]] for part in real)
synthetic = run.synthetic
levels, tables = encode_tables(run.schema.modelled, [trained, held_out, synthetic])
rows = [mixed_rows(levels, table) for table in tables]
to_trained, to_held_out = (nearest_rows(rows[2], candidates) for candidates in rows[:2])

fig, axes = plt.subplots(figsize=(6, 3))
bins = np.linspace(0, max(to_trained.distance.max(), to_held_out.distance.max()), 40)
axes.hist(to_trained.distance.ravel(), bins, alpha=0.6, label="nearest row trained on")
axes.hist(to_held_out.distance.ravel(), bins, histtype="step", color="black", label="nearest row held out")
axes.set(xlabel="distance of a synthetic row", ylabel="synthetic rows", title="PRIVATE")
axes.legend()
plt.show()
is_nearer, is_tied = to_trained.distance < to_held_out.distance, to_trained.distance == to_held_out.distance
nearer = is_nearer.mean() + 0.5 * is_tied.mean()
print(f"nearer to a row trained on: {nearer:.3f} of the synthetic rows (ties count half; chance is 0.5)")

# %% [markdown]
# The closest pair. Equal rows need not be copies: a table with few codes has many of them by chance, which is why the
# comparison above needs held-out rows.

# %%
closest = int(np.argmin(to_trained.distance[:, 0]))
pair = pd.concat([synthetic.iloc[[closest]], trained.iloc[to_trained.index[closest]]])
pair.set_axis(["synthetic", "trained on"])

# %% [markdown]
# ## Attacks
#
# Each against held-out controls, with 95 % intervals; the bar marks what is reached without the synthetic rows. Each
# alone raises a false alarm in up to 5 % of cases, and its interval takes rows as independent, which the years of one
# person are not: a detection that barely is one calls for a run with another seed, not for alarm. What the guarantee
# rules out is an advantage above the bound printed here.

# %%
bound = membership_advantage_bound(run.privacy["epsilon"], run.privacy["delta"])
print(f"no membership attack whatever has an advantage above {bound:.2f}")
run.plot_attacks()

# %%
display(run.attacks[["attack", "metric", "value", "low", "high", "baseline", "is_detected"]])

# %% [markdown]
# ## Metrics
#
# `reference` is the same metric for real held-out rows, or for models trained on real rows.

# %%
metrics = run.metrics
display(metrics[metrics["column"].isna()][["family", "metric", "value", "reference", "higher_is_better"]])

# %%
display(run.timing)
print(f"the page, to be opened in a browser (private): {run.workdir.page}")
