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
# # From a CSV to private synthetic rows
#
# A table in a file; what is public about it; what the privacy budget will buy; a generator trained at epsilon 1; rows
# drawn from it; what was spent; and how much the rows are worth. The table is a part of the RAND Health Insurance
# Experiment, which comes with statsmodels, so nothing is downloaded.

# %%
import tempfile
from pathlib import Path

import pandas as pd
from IPython.display import display
from statsmodels.datasets import randhie

import privsyn_jax
from privsyn_jax import evaluation
from privsyn_jax.data.propose import propose_schema
from privsyn_jax.data.rand_hie import read_schema, recode
from privsyn_jax.data.schema import schema_from_dict, schema_to_dict
from privsyn_jax.data.validate import conform
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.plan import make_plan
from privsyn_jax.settings import DataSettings, settings_from_dict
from privsyn_jax.views import plots

folder = Path(tempfile.mkdtemp())
everything = recode(randhie.load_pandas().data).sample(frac=1.0, random_state=0)
everything.iloc[:14_000].to_csv(folder / "train.csv", index=False)  # what is private, and learned from
everything.iloc[14_000:].to_csv(folder / "test.csv", index=False)  # held out, to judge by
train, test = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")
train.head()

# %% [markdown]
# ## What is public
#
# A schema holds every fact that the guarantee takes as known to everyone. `propose_schema` (on the command line
# `python -m launch.schema train.csv`) makes a first one by looking at the rows, and marks each fact that it took from
# them in `declared_public`. **That is not differentially private**: keep a fact only if it is public anyway, and
# replace it by what you know without the rows.

# %%
proposal = propose_schema(train, target="any_visit", source="train.csv")
proposal["columns"]["disea"]

# %% [markdown]
# Here the design of the study tells us more than the rows: bounds of the scales, rates and caps of the insurance
# plans, which many records hold exactly, and the order of the health ratings. What we replace is no longer taken from
# the rows; what we leave is repeated in the privacy report.

# %%
by_design = schema_to_dict(read_schema(DataSettings(name="rand_hie")))["columns"]
for name in ("lncoins", "lpi", "fmde", "physlm", "disea", "health"):
    proposal["columns"][name] = by_design[name]
schema = schema_from_dict({**proposal, "privacy_unit": "person-year"})
display(schema)

# %% [markdown]
# ## What the budget will buy
#
# The plan follows from settings and schema alone: no row is read for it. Noise multipliers are standard deviations
# divided by what one record can change at most. Shares are of the squared inverse noise, so a larger share is less
# noise.

# %%
settings = {"training": {"num_steps": 200, "expected_batch_size": 1024}, "model": {"num_calibration_rows": 512}}
make_plan(settings_from_dict({**settings, "privacy": {"epsilon": 1.0, "delta": 1e-5}}), schema)

# %% [markdown]
# ## Train, and draw rows
#
# `fit` reads the rows, books every look at them in a ledger before it happens, and returns only what was released.
# Drawing costs no privacy, however many rows are drawn.

# %%
run = privsyn_jax.fit(train, schema, model="autoregressive", epsilon=1.0, delta=1e-5, settings=settings)
display(run)

# %%
synthetic = run.sample(10_000, seed=0)
synthetic.head()

# %%
run.sample(5, conditions={"health": "poor", "disea": {"min": 10, "max": 20}}, seed=1)

# %% [markdown]
# ## What was spent

# %%
display(run.privacy)

# %% [markdown]
# ## What the rows are worth
#
# Everything from here on looks at real rows without noise, so this output is private. Models are trained on synthetic
# rows and tested on held-out real ones; `reference` is the same for models trained on real rows. One seed and a short
# training: expect other numbers from another run.


# %%
def canonical(frame):
    """The dtypes that the evaluation works on."""
    return conform(frame, schema, out_of_bounds="clip", source="the table")[0]


real_train, real_test, drawn = map(canonical, (train, test, synthetic))
found = evaluation.evaluate(schema, real_train, real_test, drawn, seed=0, settings=EvaluationSettings(num_seeds=0))
display(pd.DataFrame(evaluation.headline(found.metrics))[["label", "value", "reference", "higher_is_better"]])

# %%
display(plots.marginals(schema, drawn, real_train))

# %% [markdown]
# ## Keep it
#
# A saved generator is arrays and JSON, no pickle. With a folder for the whole run, checkpoints, attacks and a page to
# look at, use `python -m launch.run`; `inspect_run.py` shows what it leaves.

# %%
run.save(folder / "model")
privsyn_jax.load(folder / "model").sample(3, seed=2)
