"""Shadow generators trained together: the whole mechanism, each on its own records with its own noise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from privsyn_jax import shadows
from privsyn_jax.data import adult
from privsyn_jax.evaluation.attacks.generator_level import choose_targets
from privsyn_jax.modalities.tables import build
from privsyn_jax.settings import DataSettings, settings_from_dict
from privsyn_jax.transforms.discretize import fit_public
from privsyn_jax.types import Column, Schema, UserError

SCHEMA = Schema(
    columns=(
        Column("age", "integer", lower=0, upper=99),
        Column("height", "numeric", lower=0.0, upper=1.0),
        Column("color", "categorical", categories=("red", "green", "blue")),
    ),
    num_records=60,
)
TINY = {
    "model": {"name": "autoregressive", "variant": "masked_mlp", "width": 4, "num_layers": 1},
    "transform": {"edges": "public", "num_bins": 4, "num_cells": 16},
    "privacy": {"epsilon": 1.0, "delta": 1e-3, "budget": {"marginals": 0.0}},
    "training": {"num_steps": 4, "expected_batch_size": 8, "microbatch_size": 16, "steps_per_dispatch": 4},
}

OVERFITTED = {
    "model": {"name": "autoregressive", "variant": "masked_mlp", "width": 128, "num_layers": 1},
    "transform": {"edges": "public", "num_bins": 16},
    "privacy": {"enabled": False, "budget": {"marginals": 0.0}},
    "training": {
        "num_steps": 2000, "expected_batch_size": 64, "microbatch_size": 96, "steps_per_dispatch": 20,
        "learning_rate": 1e-2,
    },
    "synthesis": {"num_samples": 5000},
}  # fmt: skip


def settings_of(**sections):
    return settings_from_dict({**TINY, **{name: {**TINY.get(name, {}), **part} for name, part in sections.items()}})


def population(num_rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    color = rng.choice(3, num_rows, p=[0.6, 0.3, 0.1])
    age = np.clip(rng.normal(30 + 20 * color, 10), 0, 99).astype(np.int64)
    colors = np.array(SCHEMA["color"].categories, object)[color]
    return pd.DataFrame({"age": age, "height": rng.beta(2, 5, num_rows), "color": colors})


def tables_of(count: int, num_rows: int = 60) -> list[pd.DataFrame]:
    return [population(num_rows, seed=seed) for seed in range(count)]


def loss_of(shadow, example, private):
    loss = shadow.generator.private_loss
    assert loss is not None
    return loss({**shadow.params, "private": private}, example, jax.random.key(0))


def leaves_of(shadow):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(shadow.params)]


def test_a_shadow_is_the_same_in_any_group_and_thread_and_depends_on_its_table_only():
    tables = tables_of(3)

    def train(tables, **numbers):
        return shadows.train_shadows(settings_of(), SCHEMA, tables, key=jax.random.key(0), **numbers)

    together, apart = train(tables, at_once=3), train(tables, at_once=1, num_threads=2)
    for one, other in zip(together, apart, strict=True):
        for left, right in zip(leaves_of(one), leaves_of(other), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    changed = train([tables[0], population(60, seed=9), tables[2]], at_once=3)
    moved = [
        any(not np.array_equal(a, b) for a, b in zip(leaves_of(one), leaves_of(other), strict=True))
        for one, other in zip(together, changed, strict=True)
    ]
    assert moved == [False, True, False]


def test_shadows_of_one_table_have_noise_of_their_own():
    settings = settings_of(transform={"edges": "quantile"}, privacy={"budget": {"marginals": 0.25}})
    first, second = shadows.train_shadows(settings, SCHEMA, [population(60)] * 2, key=jax.random.key(0))
    bought = [shadow.transform.one_way for shadow in (first, second)]
    assert bought[0] and bought[1] and not np.allclose(bought[0].counts[2], bought[1].counts[2])
    kernel = first.params["private"]["MaskedDense_0"]["kernel"] - second.params["private"]["MaskedDense_0"]["kernel"]
    assert np.abs(kernel).max() > 1e-4


def test_bins_that_a_shadow_has_not_bought_are_never_drawn_and_move_nothing():
    """Purchased bins differ from shadow to shadow; the program is one."""
    settings = settings_of(transform={"edges": "quantile", "num_bins": 8}, privacy={"budget": {"marginals": 0.25}})
    trained = shadows.train_shadows(settings, SCHEMA, tables_of(4), key=jax.random.key(0), at_once=4)
    sizes = np.array([shadow.transform.cardinalities for shadow in trained])
    assert (sizes != sizes[:1]).any()
    for shadow, own in zip(trained, sizes, strict=True):
        codes = shadow.generator.sample(shadow.params, jax.random.key(1), 2000)
        assert (codes < own).all() and (codes.max(0) > 0).all()
        example = jnp.asarray(own - 1, jnp.int32)
        grads = jax.grad(functools.partial(loss_of, shadow, example))(shadow.params["private"])
        closed = np.concatenate([np.arange(size) >= mine for size, mine in zip(sizes.max(0), own, strict=True)])
        assert closed.any() or (own == sizes.max(0)).all()
        assert not np.asarray(grads["MaskedDense_1"]["kernel"])[:, closed].any()
        assert not np.asarray(grads["MaskedDense_0"]["kernel"])[closed].any()
        assert np.asarray(grads["MaskedDense_1"]["kernel"])[:, ~closed].any()


def test_the_loss_with_closed_codes_is_that_of_the_generator_without_them():
    settings, wide, narrow = settings_of(), (6, 5, 3), (4, 5, 3)
    generators = [build(settings, SCHEMA, sizes) for sizes in (wide, narrow)]
    closed = np.concatenate([np.arange(size) >= own for size, own in zip(wide, narrow, strict=True)])
    params = shadows._closing(generators[0], closed).init(jax.random.key(0))
    draws = [jax.random.normal(key, leaf.shape) for key, leaf in zip(
        jax.random.split(jax.random.key(1), 4), jax.tree.leaves(params["private"]), strict=True)]  # fmt: skip
    private = jax.tree.unflatten(jax.tree.structure(params["private"]), draws)
    first, last = dict(private["MaskedDense_0"]), dict(private["MaskedDense_1"])
    first["kernel"] = first["kernel"][~closed]
    last["kernel"], last["bias"] = last["kernel"][:, ~closed], last["bias"][~closed]
    public = generators[1].init(jax.random.key(0))["public"]
    one = shadows.Shadow(generators[0], params, fit_public(SCHEMA, num_bins=4))
    small = {"MaskedDense_0": first, "MaskedDense_1": last}
    other = shadows.Shadow(generators[1], {"private": small, "public": public}, one.transform)
    for example in ([0, 0, 0], [3, 4, 2], [1, 2, 1]):
        codes = jnp.asarray(example, jnp.int32)
        assert float(loss_of(one, codes, private)) == pytest.approx(float(loss_of(other, codes, small)), rel=1e-5)


def test_the_whole_attack_repeats_by_key_and_tells_nothing_at_epsilon_1():
    auxiliary = population(500)
    targets = choose_targets(SCHEMA, auxiliary, num_random=3, num_outliers=3, num_canaries=3, key=jax.random.key(3))
    said = []

    def run(seed):
        return shadows.shadow_attack(
            settings_of(), SCHEMA, auxiliary, targets, num_shadows=16, key=jax.random.key(seed), announce=said.append
        )

    first = run(0)
    assert first == run(0)
    assert [result.name for result in first] == [
        f"shadow generators, {kind} targets" for kind in ("random", "outlier", "canary")
    ]
    areas = [result.metrics["auc"].value for result in first]
    standard_error = np.sqrt((12 + 12 + 1) / (12 * 12 * 12) / 3)  # of the mean of three, for scores that know nothing
    assert abs(np.mean(areas) - 0.5) < 4 * standard_error
    assert len(said) == 8


def test_what_shadows_cannot_be_trained_of_is_refused():
    def train(*arguments):
        return shadows.train_shadows(*arguments, key=jax.random.key(0))

    unknown = dataclasses.replace(SCHEMA, columns=(*SCHEMA.columns[:2], Column("color", "categorical")))
    with pytest.raises(UserError, match="need the categories of column 'color'"):
        train(settings_of(), unknown, tables_of(2))
    with pytest.raises(UserError, match=r"model\.name is 'dcgan'"):
        train(settings_from_dict({"model": {"name": "dcgan"}}), SCHEMA, tables_of(2))
    with pytest.raises(UserError, match="differ in length"):
        train(settings_of(), SCHEMA, [population(60), population(59)])


def test_other_generators_of_tables_are_trained_on_public_edges():
    settings = settings_from_dict({**TINY, "model": {"name": "tvae", "hidden_dims": (4,), "latent_dim": 2}})
    trained = shadows.train_shadows(settings, SCHEMA, tables_of(2), key=jax.random.key(0))
    assert trained[0].transform.cardinalities == fit_public(SCHEMA, num_bins=4).cardinalities
    sets = shadows.sample_shadows(settings, trained, 30, key=jax.random.key(1))
    assert [list(frame.columns) for frame in sets] == [list(SCHEMA.names)] * 2 and len(sets[0]) == 30


MARGINALS = {**TINY, "privacy": {"epsilon": 1.0, "delta": 1e-3}}
APART = {
    "takes no steps": {**MARGINALS, "model": {"name": "bayesian_network"}},
    "learns from votes": {
        **MARGINALS,
        "model": {"name": "pate_gan", "num_teachers": 4, "student_dims": (4,)},
        "training": {"num_steps": 2, "generator_batch_size": 8},
    },
    "adapts its noise": {**TINY, "privacy": {**TINY["privacy"], "adaptive": {"rule": "signal", "num_blocks": 2}}},
    "cannot close a bin": {
        **MARGINALS,
        "model": {"name": "tvae", "hidden_dims": (4,), "latent_dim": 2},
        "transform": {"edges": "quantile", "num_bins": 8, "num_cells": 32},
    },
}


SLOW = [pytest.param(how, marks=pytest.mark.slow) for how in APART if how != "takes no steps"]


@pytest.mark.parametrize("how", ["takes no steps", *SLOW])
def test_generators_that_share_no_program_are_trained_one_after_the_other(how):
    """Each with its own noise, and the same again from the same key."""
    settings, tables, said = settings_from_dict(APART[how]), [population(60)] * 2, []

    def train():
        return shadows.train_shadows(settings, SCHEMA, tables, key=jax.random.key(0), announce=said.append)

    first, again = train(), train()
    assert said[-1] == "training 2 shadow generators, one after the other"
    values = [[np.concatenate([leaf.ravel() for leaf in leaves_of(one)]) for one in group] for group in (first, again)]
    assert values[0][0].shape != values[0][1].shape or not np.allclose(values[0][0], values[0][1])
    for one, other in zip(*values, strict=True):
        np.testing.assert_array_equal(one, other)
    sets = shadows.sample_shadows(settings, first, 30, key=jax.random.key(1))
    assert [list(frame.columns) for frame in sets] == [list(SCHEMA.names)] * 2 and len(sets[0]) == 30


EXACT_NETWORK = {"model": {"name": "bayesian_network"}, "privacy": {"enabled": False}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "least"), [(OVERFITTED, 0.75), (EXACT_NETWORK, 0.65)], ids=["trained by steps", "from exact counts"]
)
def test_a_generator_without_privacy_gives_its_records_away(adult_dir, settings, least):
    """500 rows."""
    data = DataSettings(name="adult", dir=str(adult_dir))
    schema = adult.read_schema(data)
    frames = []
    adult.load(data, schema).train.map(frames.append)
    targets = choose_targets(schema, frames[0], num_random=20, num_outliers=0, num_canaries=0, key=jax.random.key(1))
    (result,) = shadows.shadow_attack(
        settings_from_dict(settings), schema, frames[0], targets, num_shadows=32, num_records=500, key=jax.random.key(2)
    )
    assert result.is_detected and result.metrics["auc"].value >= least
