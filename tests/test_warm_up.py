"""Warm starts: what a network learns before the first private image, how often, and what that costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privsyn_jax.modalities import modality_of
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.secret import Secret
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.training import dp_sgd
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.training.warm_up import warm_up
from privsyn_jax.types import Generator, Images, ImageSchema, UserError

SCHEMA = ImageSchema((4, 4, 1), ("a", "b"), num_records=400)
TRAINING = {"num_steps": 4, "steps_per_dispatch": 2, "expected_batch_size": 50}


def make_generator(public_loss=None) -> Generator:
    """Learns the mean image of each class."""

    def private_loss(params, example, key):
        noisy = example.pixels / 255.0 + 0.1 * jax.random.normal(key, SCHEMA.shape)
        return jnp.sum(jnp.square(params["private"]["means"][example.labels] - noisy))

    return Generator(
        init=lambda key: {"private": {"means": jnp.zeros((2, *SCHEMA.shape))}, "public": {"mean": jnp.zeros(2)}},
        private_loss=private_loss,
        public_loss=public_loss,
        calibrate=None,
        sample=lambda *_: None,
        exact_conditions=lambda *_: (),
    )


def follows_critic(params, key):
    """The loss of public parameters that go where the private ones are."""
    goal = params["private"]["means"].mean((1, 2, 3))
    return jnp.sum(jnp.square(params["public"]["mean"] - goal + 0.01 * jax.random.normal(key, (2,))))


def bright(*levels: int) -> Images:
    """200 images that are even, but for a little, of a brightness for each class."""
    labels = np.tile(np.arange(2, dtype=np.int32), 100)
    pixels = np.array(levels)[labels][:, None, None, None] + np.random.default_rng(0).integers(0, 9, (200, 4, 4, 1))
    return Images(pixels.astype(np.uint8), labels)


def settings_of(*, seed=0, privacy=None, training=None, **warm):
    warm = {"images": "procedural", "num_steps": 150, "batch_size": 16, "learning_rate": 0.05, **warm}
    sections = {"model": {"name": "dcgan"}, "warm_start": warm, "training": {**TRAINING, **(training or {})}}
    return settings_from_dict({**sections, "privacy": {"delta": 1e-4, **(privacy or {})}, "seed": seed})


def warmed(*sets: Images, generator=None, **settings):
    generator = generator or make_generator()
    named = ((f"set {number}", images) for number, images in enumerate(sets))
    return warm_up(generator, generator.init(jax.random.key(0)), named, settings_of(**settings))


def means(params):
    return np.asarray(params["private"]["means"]).mean((1, 2, 3))


def leaves(params):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


# ---- steps


def test_it_learns_what_the_images_are():
    np.testing.assert_allclose(means(warmed(bright(50, 200))), np.array([54, 204]) / 255, atol=0.05)
    np.testing.assert_allclose(means(warmed(bright(50, 200), num_steps=1)), 0.05, atol=1e-3)  # Adam's first step


def test_sets_come_in_turn_with_a_fresh_optimizer_each():
    asked = []

    def sets():
        for name, images in (("dark", bright(30, 60)), ("light", bright(180, 220))):
            asked.append(name)
            yield name, images

    generator = make_generator()
    params = warm_up(generator, generator.init(jax.random.key(0)), sets(), settings_of())
    assert asked == ["dark", "light"]
    np.testing.assert_allclose(means(params), np.array([184, 224]) / 255, atol=0.05)  # an ended decay is far from it
    np.testing.assert_allclose(means(warmed(bright(180, 220), bright(30, 60))), np.array([34, 64]) / 255, atol=0.05)


def test_no_set_changes_nothing_and_the_given_parameters_stay():
    generator = make_generator()
    given = generator.init(jax.random.key(0))
    np.testing.assert_array_equal(leaves(warm_up(generator, given, [], settings_of())), leaves(given))
    warm_up(generator, given, [("set", bright(50, 200))], settings_of(num_steps=2))
    assert not np.asarray(given["private"]["means"]).any()


def test_the_seed_decides_and_sets_draw_their_own_batches():
    learned = [leaves(warmed(bright(50, 200), num_steps=5, seed=seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(learned[0], learned[1])
    assert (learned[0] != learned[2]).any()
    once = warmed(bright(50, 200), num_steps=5, seed=1)
    twice = warmed(bright(50, 200), bright(50, 200), num_steps=5, seed=1)
    assert (leaves(once) != leaves(twice)).any()


def test_public_parameters_of_a_gan_follow():
    generator = make_generator(follows_critic)
    params = warmed(bright(50, 200), generator=generator, training={"critic_steps": 2})
    np.testing.assert_allclose(params["public"]["mean"], means(params), atol=0.15)
    rare = warmed(bright(50, 200), generator=generator, num_steps=5, training={"critic_steps": 6})
    assert not np.asarray(rare["public"]["mean"]).any()
    assert not np.asarray(warmed(bright(50, 200))["public"]["mean"]).any()


@pytest.mark.parametrize(("rates", "wanted"), [((3e-3, 0.0), 1.0), ((3e-3, 6e-3), 2.0)])
def test_the_generators_rate_is_to_the_critics_as_in_training(rates, wanted):
    """Adam's first step is its learning rate long, whatever the gradient."""
    training = {"critic_steps": 1, "learning_rate": rates[0], "generator_learning_rate": rates[1]}
    generator = make_generator(lambda params, key: jnp.sum(params["public"]["mean"]))
    params = warmed(bright(50, 200), generator=generator, num_steps=1, training=training)
    np.testing.assert_allclose(params["public"]["mean"], -0.05 * wanted, rtol=1e-4)


# ---- settings


@pytest.mark.parametrize(
    ("warm", "message"),
    [
        ({"images": "photographs"}, r"warm_start\.images is 'photographs'"),
        ({"images": "central+procedural"}, r"warm_start\.images is 'central\+procedural'"),
        ({"num_steps": 0}, r"^warm_start\.num_steps is 0: give at least 1$"),
        ({"num_images": 0}, r"^warm_start\.num_images is 0: give at least 1$"),
        ({"batch_size": -1}, r"^warm_start\.batch_size is -1: give at least 1$"),
        ({"num_frequencies": 0}, r"^warm_start\.num_frequencies is 0: give at least 1$"),
        ({"learning_rate": 0.0}, r"^warm_start\.learning_rate is 0\.0: give a finite number above 0$"),
        ({"radius": "inf"}, r"^warm_start\.radius is inf: give a finite number above 0$"),
        ({"radius_within": -0.1}, r"^warm_start\.radius_within is -0\.1: give a finite number above 0$"),
        ({"steps": 3}, r"'warm_start\.steps': did you mean 'warm_start\.num_steps'"),
    ],
)
def test_bad_settings_are_one_sentence(warm, message):
    with pytest.raises(UserError, match=message) as caught:
        settings_of(**warm)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "kinds", "buys"),
    [
        ("", (), False),
        ("procedural", ("procedural",), False),
        ("central", ("central",), True),
        ("procedural+gaussian", ("procedural", "gaussian"), True),
    ],
)
def test_kinds_are_in_order(images, kinds, buys):
    warm = settings_of(images=images).warm_start
    assert (warm.kinds, warm.buys) == (kinds, buys)


def test_a_share_is_needed_to_buy_images():
    with pytest.raises(UserError, match=r"privacy\.budget\.warm_start is 0: give a share for bought images"):
        make_plan(settings_of(images="central", privacy={"budget": {"warm_start": 0.0}}), SCHEMA)


# ---- what it costs


BOUGHT = {"central": ["class means"], "gaussian": ["class means", "covariances"]}


@pytest.mark.parametrize("kind", BOUGHT)
def test_bought_images_are_in_the_plan_and_in_the_ledger_with_their_share(kind):
    settings = settings_of(images=f"procedural+{kind}", num_frequencies=5, privacy={"budget": {"warm_start": 0.2}})
    plan, alone = make_plan(settings, SCHEMA), make_plan(settings_of(images="procedural"), SCHEMA)
    assert [release.name for release in plan.releases] == BOUGHT[kind]
    assert sum(release.share for release in plan.releases) == pytest.approx(0.2)
    assert plan.training_share == pytest.approx(0.8) and alone.training_share == 1.0
    assert plan.levels[0].noise_multiplier > alone.levels[0].noise_multiplier > 0
    ledger, attempt, records = Ledger(), Attempt.in_memory(0), Private(bright(50, 200))
    bought = attempt.purchases(lambda noise: modality_of(SCHEMA).buy(records, SCHEMA, plan, settings, ledger, noise))
    assert [entry.name for entry in ledger.entries] == BOUGHT[kind]
    assert [opening.charged_as for opening in records.openings] == BOUGHT[kind]
    assert len(bought.released.sums) == len(BOUGHT[kind])
    for level in plan.training_events:
        ledger.charge("training", "all", "steps", level)
    assert 0.99 <= ledger.epsilon(plan.delta) <= plan.epsilon == 1.0


def test_procedural_images_cost_nothing_and_read_nothing():
    settings, ledger, records = settings_of(images="procedural"), Ledger(), Private(bright(50, 200))
    plan, attempt = make_plan(settings, SCHEMA), Attempt.in_memory(0)
    bought = attempt.purchases(lambda noise: modality_of(SCHEMA).buy(records, SCHEMA, plan, settings, ledger, noise))
    assert plan.releases == () and ledger.entries == () and bought.released is None and records.openings == ()
    said, generator = [], make_generator()
    run = modality_of(SCHEMA).warm_up(generator, settings_of(num_images=40, num_steps=3), bought, said.append)
    assert np.asarray(run(generator.init(jax.random.key(0)))["private"]["means"]).any()
    assert said == ["warm start on procedural images"] and records.openings == ()
    assert modality_of(SCHEMA).warm_up(generator, settings_of(images=""), bought, said.append) is None


# ---- when


class GoesOn(Attempt):
    """An attempt that was left with a state after some steps."""

    step = 2

    def take_up(self, state, spending):
        return state._replace(step=jnp.int32(self.step))


@pytest.mark.parametrize(("kind", "calls"), [(Attempt, 1), (GoesOn, 0)])
def test_a_run_that_goes_on_is_not_warmed_again(kind, calls):
    settings, warmed_from, ledger = settings_of(), [], Ledger()
    plan = make_plan(settings, SCHEMA)

    def note(params):
        warmed_from.append(params)
        assert ledger.entries == ()  # before anything is paid for
        return params

    attempt = kind(Secret.fresh(0), ledger)
    dp_sgd.train(
        make_generator(), Private(bright(50, 200)), None, plan=plan, settings=settings, attempt=attempt, warm_up=note
    )
    assert len(warmed_from) == calls


def test_training_starts_from_what_was_warmed():
    """One step with hardly any learning rate."""
    settings = settings_of(training={"learning_rate": 1e-9})
    params, _ = dp_sgd.train(
        make_generator(),
        Private(bright(50, 200)),
        None,
        plan=make_plan(settings, SCHEMA),
        settings=settings,
        attempt=Attempt.in_memory(0),
        warm_up=lambda params: {**params, "private": {"means": params["private"]["means"] + 0.5}},
    )
    np.testing.assert_allclose(params["private"]["means"], 0.5, atol=1e-6)
