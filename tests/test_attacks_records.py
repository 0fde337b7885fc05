"""Attacks on images and texts, and model inversion: power, silence, odd input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from privsyn_jax.evaluation.attacks import (
    IMAGE_ATTACKS,
    TEXT_ATTACKS,
    attack_images,
    attack_texts,
    model_inversion,
)
from privsyn_jax.evaluation.attacks.inversion import climb, climb_codes
from privsyn_jax.types import Images, ImageSchema, Texts, TextSchema

IMAGE_SCHEMA = ImageSchema((6, 6, 1), ("dark", "light"), 200)
TEXT_SCHEMA = TextSchema(("bad", "good"), 200)


def images(num, rng):
    labels = rng.integers(0, 2, num).astype(np.int32)
    brightness = 60 + 90 * labels[:, None, None, None] + 60 * rng.random((num, 1, 1, 1))
    pixels = np.clip(rng.normal(brightness, 30, (num, 6, 6, 1)), 0, 255).astype(np.uint8)
    return Images(pixels, labels)


def noisy_images(of, num, rng):
    places = rng.integers(0, len(of.labels), num)
    pixels = np.clip(of.pixels[places] + rng.normal(0, 25, (num, 6, 6, 1)), 0, 255)
    return Images(pixels.astype(np.uint8), of.labels[places])


def texts(num, rng):
    labels = rng.integers(0, 2, num).astype(np.int32)
    moods = np.array([["dull", "sad", "weak", "flat"], ["fine", "warm", "bold", "fun"]])
    written = [
        " ".join([*(f"word{w}" for w in rng.zipf(1.4, 15) % 400), *rng.choice(moods[label], 2)]) for label in labels
    ]
    return Texts(np.array(written, object), labels)


def changed_texts(of, num, rng):
    """A third of the words of each copy are replaced."""
    places = rng.integers(0, len(of.labels), num)
    written = [
        " ".join(word if rng.random() > 1 / 3 else f"word{rng.integers(400)}" for word in text.split())
        for text in of.texts[places]
    ]
    return Texts(np.array(written, object), of.labels[places])


CASES = {
    "images": (attack_images, IMAGE_SCHEMA, images, noisy_images, IMAGE_ATTACKS),
    "texts": (attack_texts, TEXT_SCHEMA, texts, changed_texts, TEXT_ATTACKS),
}


@pytest.mark.parametrize("kind", CASES)
def test_copies_are_found(kind):
    attack, schema, draw, change, attacks = CASES[kind]
    rng = np.random.default_rng(0)
    train, test = draw(300, rng), draw(600, rng)
    report = attack(schema, train, test, train, seed=0)
    found = {result.name: result for result in report.results}
    assert not report.skipped and list(found) == list(attacks)
    assert all(found[name].is_detected for name in ("density_ratio", "reconstruction", "distance_to_closest_record"))
    assert found["density_ratio"].metrics["auc"].low >= 0.9
    changed = attack(schema, train, test, change(train, 600, rng), seed=0, names=["density_ratio", "reconstruction"])
    assert all(result.is_detected for result in changed.results)
    assert changed.results[0].metrics["auc"].value >= 0.75


def test_classifier_of_few_copied_records_gives_them_away():
    rng = np.random.default_rng(1)
    train, test = texts(60, rng), texts(600, rng)
    flipped = [Texts(part.texts, rng.permutation(part.labels)) for part in (train, test)]  # labels must be remembered
    (result,) = attack_texts(
        TEXT_SCHEMA, flipped[0], flipped[1], flipped[0], seed=0, names=["shadow_posteriors"]
    ).results
    assert result.is_detected and result.metrics["auc"].value > 0.7
    train, test = images(60, rng), images(600, rng)
    flipped = [Images(part.pixels, rng.permutation(part.labels)) for part in (train, test)]
    (result,) = attack_images(
        IMAGE_SCHEMA, flipped[0], flipped[1], flipped[0], seed=0, names=["shadow_posteriors"]
    ).results
    assert result.is_detected and result.metrics["auc"].value > 0.7


@pytest.mark.parametrize("kind", CASES)
def test_records_of_the_population_give_nobody_away(kind):
    attack, schema, draw, _, attacks = CASES[kind]
    alarms = dict.fromkeys(attacks, 0)
    for seed in range(12):
        rng = np.random.default_rng(50 + seed)
        for result in attack(schema, draw(120, rng), draw(240, rng), draw(200, rng), seed=seed).results:
            alarms[result.name] += result.is_detected
    assert max(alarms.values()) <= stats.binom(12, 0.05).ppf(0.9999)


@pytest.mark.parametrize("kind", CASES)
def test_few_records_give_values_or_reasons(kind):
    attack, schema, draw, _, attacks = CASES[kind]
    rng = np.random.default_rng(0)
    report = attack(schema, draw(10, rng), draw(10, rng), draw(10, rng), seed=0)
    assert len(report.results) == 3 and len(report.skipped) == 1
    assert all(math.isfinite(end) for result in report.results for found in result.metrics.values() for end in found)
    report = attack(schema, draw(3, rng), draw(10, rng), draw(10, rng), seed=0)
    assert not report.results and len(report.skipped) == len(attacks)


def test_constant_images_and_wordless_texts():
    flat = Images(np.full((40, 6, 6, 1), 9, np.uint8), np.zeros(40, np.int32))
    report = attack_images(IMAGE_SCHEMA, flat, flat, flat, seed=0)
    assert not any(result.is_detected for result in report.results)
    assert report.skipped == [
        "shadow_posteriors: the synthetic records hold one class only: name a target that varies."
    ]
    rng = np.random.default_rng(0)
    empty = Texts(np.array([" "] * 20, object), np.zeros(20, np.int32))
    report = attack_texts(TEXT_SCHEMA, texts(20, rng), texts(20, rng), empty, seed=0)
    assert all("the synthetic texts hold no words" in sentence for sentence in report.skipped) and not report.results
    unlabelled = [texts(40, rng)._replace(labels=np.zeros(40, np.int32)) for _ in range(3)]
    report = attack_texts(TextSchema((), 40), *unlabelled, seed=0)
    assert [sentence.split(":")[0] for sentence in report.skipped] == ["shadow_posteriors"]


def mixture(centres, width):
    """Log-likelihood of an equal mixture of Gaussians around the centres."""
    return lambda record: jax.nn.logsumexp(-jnp.square(record[None, :] - centres).sum(axis=1) / (2 * width**2))


def test_inversion_finds_what_a_likelihood_remembers():
    rng = np.random.default_rng(0)
    train, heldout = rng.random((2, 150, 6))
    leaking = model_inversion(
        train, heldout, key=jax.random.key(0), seed=0, log_likelihood=mixture(jnp.asarray(train), 0.1)
    )
    assert leaking.is_detected and leaking.metrics["auc"].low > 0.6
    assert leaking.metrics["share_nearer_than_1_percent"].value > 0.2
    others = jnp.asarray(rng.random((150, 6)))
    alarms = 0
    for seed in range(8):
        records = np.random.default_rng(seed).random((2, 150, 6))
        alarms += model_inversion(
            *records, key=jax.random.key(seed), seed=0, log_likelihood=mixture(others, 0.1), num_steps=50
        ).is_detected
    assert alarms <= stats.binom(8, 0.05).ppf(0.9999)


def test_inversion_of_codes_and_of_a_sampler():
    rng = np.random.default_rng(0)
    train, heldout = rng.integers(0, 5, (2, 120, 8))
    remembered = jnp.asarray(train)

    def log_likelihood(record):
        return jax.nn.logsumexp(-3.0 * (record[None, :] != remembered).sum(axis=1).astype(jnp.float32))

    codes = {"num_codes": [5] * 8, "num_steps": 20}
    by_ascent = model_inversion(train, heldout, key=jax.random.key(0), seed=0, log_likelihood=log_likelihood, **codes)
    assert by_ascent.is_detected and by_ascent.metrics["auc"].low > 0.8

    def sample(key, number):
        return jax.random.choice(key, remembered, (number,))

    assert model_inversion(train, heldout, key=jax.random.key(1), seed=0, sample=sample, **codes).is_detected
    both = {"sample": sample, "log_likelihood": log_likelihood, **codes}
    assert model_inversion(train, heldout, key=jax.random.key(2), seed=0, **both).is_detected
    with pytest.raises(ValueError, match="nothing to invert"):
        model_inversion(train, heldout, key=jax.random.key(0), seed=0)
    with pytest.raises(ValueError, match="num_codes 0"):
        model_inversion(train, heldout, key=jax.random.key(0), seed=0, sample=sample)
    with pytest.raises(ValueError, match="at least two of each"):
        model_inversion(train[:1], heldout, key=jax.random.key(0), seed=0, sample=sample)


def test_ascent_reaches_the_maximum_within_its_limits():
    peak = jnp.array([0.3, 0.9, 2.0])
    ends = climb(lambda x: -jnp.square(x - peak).sum(), jnp.zeros((4, 3)), num_steps=300, learning_rate=0.05)
    np.testing.assert_allclose(ends, np.tile([0.3, 0.9, 1.0], (4, 1)), atol=1e-3)
    wanted = jnp.array([1, 4, 6])
    found = climb_codes(lambda x: -jnp.abs(x - wanted).sum(), jnp.zeros((2, 3), jnp.int32), [2, 9, 4], num_sweeps=3)
    np.testing.assert_array_equal(found, np.tile([1, 4, 3], (2, 1)))
