"""Steps on public or released images before the first private one: plain Adam, no record is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from privsyn_jax.settings import Settings
from privsyn_jax.training.optimizer import cosine_adam
from privsyn_jax.training.step import computed_in
from privsyn_jax.types import Generator, Images, Params


def warm_up(generator: Generator, params: Params, sets: Iterable[tuple[str, Images]], settings: Settings) -> Params:
    """Parameters after learning from each set in turn, as an initialisation.

    The loss is the mean of the generator's private loss over a batch, which here sees no private record; a generator
    with a public loss takes its steps in between, as in training.

    Args:
      sets: (what it is, images) each.
      settings: warm_start gives steps, batches and the learning rate; training the rest.
    """
    assert generator.private_loss is not None
    warm, training = settings.warm_start, settings.training
    private_loss = computed_in(training.compute_dtype, generator.private_loss)
    every = training.critic_steps
    optimizer = cosine_adam(warm.learning_rate, warm.num_steps, b1=training.adam_b1)
    generator_rate = warm.learning_rate * (training.generator_learning_rate or training.learning_rate)
    public_optimizer = cosine_adam(
        generator_rate / training.learning_rate, max(1, warm.num_steps // every), b1=training.adam_b1
    )

    @jax.jit
    def step(params, opt_state, batch, key):
        keys = jax.random.split(key, warm.batch_size)

        def mean_loss(private):
            losses = jax.vmap(private_loss, in_axes=(None, 0, 0))({**params, "private": private}, batch, keys)
            return losses.mean()

        grads = jax.grad(mean_loss)(params["private"])
        updates, opt_state = optimizer.update(grads, opt_state)
        return {**params, "private": optax.apply_updates(params["private"], updates)}, opt_state

    @jax.jit
    def public_step(params, opt_state, key):
        public_loss = computed_in(training.compute_dtype, generator.public_loss)  # type: ignore[arg-type]
        keys = jax.random.split(key, training.generator_batch_size)

        def mean_loss(public):
            return jax.vmap(public_loss, in_axes=(None, 0))({**params, "public": public}, keys).mean()

        updates, opt_state = public_optimizer.update(jax.grad(mean_loss)(params["public"]), opt_state)
        return {**params, "public": optax.apply_updates(params["public"], updates)}, opt_state

    params = jax.tree.map(jnp.asarray, dict(params))
    for number, (name, images) in enumerate(sets):
        root = jax.random.fold_in(jax.random.key(settings.seed), number)
        rng = np.random.default_rng([settings.seed, number])
        opt_state: Any = optimizer.init(params["private"])
        public_state: Any = public_optimizer.init(params["public"])
        for done in tqdm(range(warm.num_steps), desc=f"warm start, {name} images", unit="step", disable=None):
            rows = rng.integers(0, len(images.labels), warm.batch_size)
            key, public_key = jax.random.split(jax.random.fold_in(root, done))
            params, opt_state = step(params, opt_state, Images(images.pixels[rows], images.labels[rows]), key)
            if generator.public_loss is not None and (done + 1) % every == 0:
                params, public_state = public_step(params, public_state, public_key)
    return params
