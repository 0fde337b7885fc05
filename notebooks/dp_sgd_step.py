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
# # A step of DP-SGD, taken apart
#
# One record reaches the parameters only through this: its gradient is **clipped** to L2 norm C, **summed** with the
# others, Gaussian **noise** of standard deviation zC is added to the sum once, and the noisy sum is divided by the
# *expected* batch size. We do each by hand on a small generator, compare with what this package does, and let the
# ledger say what it costs.

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from statsmodels.datasets import randhie

from privsyn_jax.data.rand_hie import read_schema, recode
from privsyn_jax.data.validate import conform
from privsyn_jax.models import tvae
from privsyn_jax.privacy.accounting import epsilon_over_steps
from privsyn_jax.privacy.clipping import clipped_grad_sum
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import add_gaussian_noise
from privsyn_jax.settings import DataSettings
from privsyn_jax.transforms.discretize import fit_public

schema = read_schema(DataSettings(name="rand_hie"))
table = recode(randhie.load_pandas().data).sample(256, random_state=0)
frame, _ = conform(table, schema, out_of_bounds="clip", source="the table")
transform = fit_public(schema, num_bins=8)  # bins from public bounds: this step costs nothing
records = jnp.asarray(transform.encode(frame))
print(f"{records.shape[0]} records of {records.shape[1]} codes, for example {records[0].tolist()}")

# %% [markdown]
# ## Per-example gradients
#
# A generator says what the loss of *one* record is. No layer sees two records, so the gradients of a batch are the
# gradients of its records, and `vmap` of `grad` gives each of them.

# %%
C = 8.0  # the clipping norm
generator = tvae.make(cardinalities=transform.cardinalities, latent_dim=4, hidden_dims=(32,))
params = generator.init(jax.random.key(0))
key = jax.random.key(1)  # of the latents that the loss draws
keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(len(records)))


def loss(private, record, record_key):
    return generator.private_loss({**params, "private": private}, record, record_key)


gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(params["private"], records, keys)
flat = jnp.concatenate([leaf.reshape(len(records), -1) for leaf in jax.tree.leaves(gradients)], axis=1)
norms = jnp.linalg.norm(flat, axis=1)
print(f"{flat.shape[1]} parameters; norms from {norms.min():.2f} to {norms.max():.2f}")

fig, axes = plt.subplots(figsize=(6, 2.6))
axes.hist(np.asarray(norms), bins=30)
axes.axvline(C, color="black", linestyle="--", label="clipping norm C")
axes.set(xlabel="L2 norm of a record's gradient", ylabel="records", xlim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# ## Clip and sum
#
# Each gradient is scaled by min(1, C / norm): directions stay, lengths are bounded, and what is shorter than C stays as
# it is. That bounds what a record can do, and biases the sum: records with large gradients count for less than before.
# (The share that is clipped is itself private, like the norms above: a run logs them under `private/` only.)

# %%
factors = jnp.minimum(1.0, C / norms)
by_hand = factors @ flat
print(f"clipped: {float(jnp.mean(norms > C)):.0%} of the records")
print(f"norm of the sum: {jnp.linalg.norm(by_hand):.1f} clipped, {jnp.linalg.norm(flat.sum(0)):.1f} without clipping")

# %% [markdown]
# The package takes the same sum in several ways. `vmap` forms the gradients as we did. `ghost` never forms them: it
# interprets the loss's program and takes each record's norm from activations and cotangents, in one backward pass.
# (The package clips to a millionth less than C, so that rounding cannot push a record above it.)


# %%
def package_sum(method, private_loss=generator.private_loss, is_padding=None):
    padding = jnp.zeros(len(records), bool) if is_padding is None else is_padding
    found = clipped_grad_sum(private_loss, params, records, padding, key, l2_clip_norm=C, method=method)
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found.grad_sum)])


for method in ("vmap", "microbatch", "ghost"):
    difference = float(jnp.linalg.norm(package_sum(method) - by_hand) / jnp.linalg.norm(by_hand))
    print(f"{method:>10}: relative difference to the sum by hand {difference:.1e}")
    assert difference < 1e-4

# %% [markdown]
# ## Sensitivity: what one record can change
#
# Neighbouring data sets differ by one record. Leave out each of the first 60 records in turn, and measure how far the
# sum moves: never by more than C. The same with a loss that is a million times larger, as an odd record might have it.

# %%
left_out = jnp.eye(len(records), dtype=bool)[:60]
fig, axes = plt.subplots(figsize=(6, 2.6))
for scale in (1.0, 1e6):

    def scaled(params, record, record_key, scale=scale):
        return scale * generator.private_loss(params, record, record_key)

    sum_without = jax.jit(functools.partial(package_sum, "vmap", scaled))
    whole = sum_without(jnp.zeros(len(records), bool))
    moved = [float(jnp.linalg.norm(sum_without(padding) - whole)) for padding in left_out]
    print(f"loss times {scale:g}: one record moves the sum by {min(moved):.4f} to {max(moved):.4f}")
    assert max(moved) <= C * (1 + 1e-4)
    axes.plot(moved, ".", label=f"loss times {scale:g}")
axes.axhline(C, color="black", linestyle="--")
axes.set(xlabel="record left out", ylabel="the sum moves by", ylim=(0, 1.1 * C))
axes.legend()
plt.show()

# %% [markdown]
# ## Noise, once
#
# Noise of standard deviation zC hides a change of C. z, the *noise multiplier*, and the sampling rate are all that
# the guarantee depends on.

# %%
z = 1.0  # the noise multiplier
noisy = add_gaussian_noise(by_hand, stddev=z * C, key=jax.random.key(2))
measured = float(jnp.std(noisy - by_hand))
print(f"standard deviation of what was added: {measured:.3f}, wanted {z * C:.3f}")
cosine = float(noisy @ by_hand / jnp.linalg.norm(noisy) / jnp.linalg.norm(by_hand))
print(f"cosine between the sum before and after noise, in {len(by_hand)} dimensions: {cosine:.3f}")

# %% [markdown]
# ## The ledger
#
# A step is booked before it reads a record. The ledger composes whatever is in it: here 300 steps that each draw every
# record with probability 0.05, by Poisson sampling.

# %%
ledger, delta, rate, steps = Ledger(), 1e-5, 0.05, 300
event = {"kind": "poisson_gaussian", "sampling_rate": rate, "noise_multiplier": z, "count": steps}
ledger.charge("training", "the gradient of every sampled record", f"noisy sums clipped to L2 norm {C:g}", event)
print(f"epsilon {ledger.epsilon(delta):.3f} at delta {delta:g} (privacy-loss distributions)")
print(f"epsilon {ledger.epsilon_rdp(delta):.3f} by the looser Renyi accountant")
display(ledger)

# %% [markdown]
# Epsilon grows with the steps, roughly like their square root, and falls with the noise multiplier.

# %%
fig, axes = plt.subplots(figsize=(6, 3.2))
at = np.linspace(0, steps, 31).astype(int).tolist()
for noise_multiplier in (0.8, 1.0, 1.5, 3.0):
    curve = epsilon_over_steps([], {**event, "noise_multiplier": noise_multiplier}, at, delta)
    axes.plot(*np.transpose(curve), label=f"noise multiplier {noise_multiplier:g}")
axes.set(xlabel="step", ylabel=f"epsilon at delta {delta:g}", ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# What we left out: sampling the batch (`privacy/sampling.py`), dividing by the expected batch size and Adam
# (`training/step.py`), and the microbatches that a draw of any size is processed in (`privacy/microbatch.py`).
