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
# # A generator of your own
#
# A generator is a few pure functions of a tree of parameters. `private_loss` takes *one* encoded record, and is the
# only one that ever sees a record; training, clipping, noise and the ledger come with the package and need no change.
# Any function that returns one can be named where a generator is named: `model="module:function"`.
#
# Ours is a mixture: a record comes from one of K components, and within a component its columns are independent.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from IPython.display import display
from statsmodels.datasets import randhie

import privsyn_jax
from privsyn_jax import evaluation
from privsyn_jax.data.rand_hie import read_schema, recode
from privsyn_jax.data.validate import conform
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.models.flat_codes import FlatCodes
from privsyn_jax.privacy.clipping import clipped_grad_sum
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Generator
from privsyn_jax.views import plots

# %% [markdown]
# ## The generator
#
# A table arrives as whole numbers: `cardinalities` says how many codes each column has. `FlatCodes` lays the codes of
# all columns on one axis.


# %%
def make(*, cardinalities, column_order=(), num_components=16, spread=1.0):
    """Mixture of products of categorical distributions over int32 codes [d]."""
    del column_order  # columns are drawn together
    codes = FlatCodes(tuple(cardinalities))

    def init(key):
        logits = spread * jax.random.normal(key, (num_components, codes.num_codes))
        return {"private": {"weights": jnp.zeros(num_components), "logits": logits}, "public": {}}

    def private_loss(params, record, key):
        """Negative log likelihood of one record."""
        del key  # a loss may draw noise of its own; this one does not
        private = params["private"]
        totals = jax.vmap(codes.log_normalizers)(private["logits"]).sum(axis=1)
        log_likelihoods = private["logits"] @ codes.one_hot(record) - totals
        return -jax.nn.logsumexp(jax.nn.log_softmax(private["weights"]) + log_likelihoods)

    def sample(params, key, num_samples, conditions=None):
        if conditions:
            raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
        component_key, code_key = jax.random.split(key)
        private = params["private"]
        component = jax.random.categorical(component_key, jnp.asarray(private["weights"]), shape=(num_samples,))
        return np.asarray(codes.draw(jnp.asarray(private["logits"])[component], code_key))

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,  # a GAN's generator would train on this one, which sees no record
        calibrate=None,
        sample=sample,
        exact_conditions=lambda columns: (),  # none of them can be fixed by `sample`
    )


# %% [markdown]
# ## The contract
#
# What every generator of the package is tested for (`tests/test_generators.py`), on codes of three columns: a finite
# scalar loss and gradient for every record, no record that sees its batch mates, samples that are codes and a function
# of the key. And the fast way to clip gives the same sum as the plain one.

# %%
CARDINALITIES = (3, 2, 4)
toy = make(cardinalities=CARDINALITIES, num_components=4)
params = toy.init(jax.random.key(0))
records = jnp.asarray(np.random.default_rng(0).integers(0, CARDINALITIES, (24, 3)), jnp.int32)


def loss(private, record):
    return toy.private_loss({**params, "private": private}, record, None)


value_and_grad = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0))
losses, gradients = value_and_grad(params["private"], records)
assert losses.shape == (24,) and np.isfinite(losses).all()
assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))

other_mates = value_and_grad(params["private"], jnp.roll(records, 7, axis=0).at[5].set(records[5]))
assert losses[5] == other_mates[0][5]

rows = toy.sample(params, jax.random.key(1), 300, {})
assert rows.shape == (300, 3) and (rows >= 0).all() and (rows < np.array(CARDINALITIES)).all()
assert (rows == toy.sample(params, jax.random.key(1), 300, {})).all()

sums = [
    clipped_grad_sum(
        toy.private_loss, params, records, jnp.zeros(24, bool), jax.random.key(2), l2_clip_norm=0.5, method=method
    ).grad_sum
    for method in ("vmap", "ghost")
]
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *sums)
print("the contract holds")

# %% [markdown]
# ## Train it with DP-SGD
#
# `"__main__:make"` is the function above. In a file `my_generator.py` it would be `"my_generator:make"`, here and in a
# config file (`default_config("my_generator:make")`). Its other arguments are settings like all others, and are
# checked like them. The privacy report says that the generator's code was taken on trust.

# %%
schema = read_schema(DataSettings(name="rand_hie"))
table = recode(randhie.load_pandas().data).sample(frac=1.0, random_state=0)
train, test = table.iloc[:14_000], table.iloc[14_000:]
settings = {
    "model": {"num_components": 32},
    "training": {"num_steps": 300, "expected_batch_size": 1024, "learning_rate": 0.03},
    "transform": {"num_bins": 16},
}
run = privsyn_jax.fit(train, schema, model="__main__:make", epsilon=1.0, delta=1e-5, settings=settings)
display(run)
run.privacy["warnings"]

# %%
synthetic = run.sample(10_000, seed=0)
synthetic.head()

# %% [markdown]
# A misspelt setting, or a function that is none, is refused in one sentence:

# %%
for model, wrong in (("__main__:make", {"num_component": 8}), ("__main__:mak", {})):
    try:
        privsyn_jax.fit(train, schema, model=model, epsilon=1.0, settings={"model": wrong})
    except privsyn_jax.UserError as error:
        print(error)

# %% [markdown]
# ## What it is worth
#
# Beside the same rows with every column shuffled, which leaves nothing of how columns depend on each other: a
# classifier trained on those guesses, and its AUC lies anywhere around 0.5. What follows looks at real rows without
# noise: it is private.


# %%
def canonical(frame):
    """The dtypes that the evaluation works on."""
    return conform(frame, schema, out_of_bounds="clip", source="the table")[0]


def metrics_of(frame):
    """Value and reference of the metrics of whole tables, by name."""
    tables, quick = map(canonical, (train, test, frame)), EvaluationSettings(num_seeds=0)
    found = evaluation.evaluate(schema, *tables, seed=0, settings=quick)
    rows = pd.DataFrame(found.metrics)
    return rows[rows["column"].isna()].set_index("metric")[["value", "reference"]]


rng = np.random.default_rng(0)
shuffled = synthetic.apply(lambda column: column.sample(frac=1.0, random_state=int(rng.integers(2**31))).to_numpy())
ours, alone = metrics_of(synthetic), metrics_of(shuffled)
names = ["logistic_regression_auc", "boosting_auc", "pairwise_total_variation", "correlation_difference"]
columns = {"mixture, epsilon 1": ours["value"], "columns shuffled": alone["value"], "real": ours["reference"]}
display(pd.DataFrame(columns).loc[names].round(4))

# %%
display(plots.marginals(schema, canonical(synthetic), canonical(train)))
