"""The mutual information gap on latents whose gap is known, and the generated shapes it is measured on."""

import math

import numpy as np
import pytest

from privsyn_jax.data.shapes import FACTORS, KINDS, shapes
from privsyn_jax.evaluation.disentanglement import mutual_information_gap

RNG = np.random.default_rng(0)
GRID = np.stack(np.meshgrid(np.arange(4), np.arange(5), np.arange(2), indexing="ij"), axis=-1).reshape(-1, 3)
ALL = np.tile(GRID, (30, 1))  # every combination of three factors equally often


def test_latents_that_are_the_factors_have_gap_one():
    for latents in (ALL, -3.0 * ALL[:, ::-1], np.exp(ALL), np.concatenate([ALL, np.ones((len(ALL), 1))], axis=1)):
        mean, gaps = mutual_information_gap(latents, ALL)
        np.testing.assert_allclose([mean, *gaps], 1.0, atol=1e-12)


def test_a_factor_that_two_latents_tell_has_gap_zero():
    mean, gaps = mutual_information_gap(np.concatenate([ALL, ALL[:, :1]], axis=1), ALL)
    np.testing.assert_allclose(gaps, [0.0, 1.0, 1.0], atol=1e-12)
    assert mean == pytest.approx(2 / 3)


def test_a_latent_that_tells_part_of_a_factor_has_that_part_of_its_entropy():
    latents = np.stack([ALL[:, 0] // 2, ALL[:, 2]], axis=1)  # one bit of the two of the first factor
    np.testing.assert_allclose(mutual_information_gap(latents, ALL[:, [0, 2]])[1], [0.5, 1.0], atol=1e-12)


def test_the_gap_of_a_binary_factor_seen_through_noise_is_that_of_the_binary_channel():
    flip, n = 0.1, 200_000
    factor = RNG.integers(0, 2, n)
    seen = np.where(RNG.random(n) < flip, 1 - factor, factor)
    weaker = np.where(RNG.random(n) < 0.3, 1 - factor, factor)
    bits = lambda p: -p * math.log2(p) - (1 - p) * math.log2(1 - p)  # noqa: E731
    mean, _ = mutual_information_gap(np.stack([weaker, seen], axis=1), factor[:, None], num_bins=2)
    assert abs(mean - ((1 - bits(flip)) - (1 - bits(0.3)))) < 0.01


def test_rotated_latents_have_a_low_gap_and_straight_ones_a_high_one():
    factors = RNG.integers(0, 8, (20_000, 2))
    straight = factors + RNG.normal(0, 0.1, factors.shape)
    angle = math.pi / 4
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    assert mutual_information_gap(straight, factors)[0] > 0.8
    assert mutual_information_gap(straight @ rotation, factors)[0] < 0.05


def test_noise_has_a_gap_near_zero_that_falls_with_the_number_of_images():
    gap = lambda n: mutual_information_gap(RNG.normal(size=(n, 6)), RNG.integers(0, 4, (n, 3)))[0]  # noqa: E731
    few, many = gap(500), gap(50_000)
    bias = 19 * 3 / (2 * 50_000) / math.log(4)
    assert 0 <= many < bias < few < 0.1


def test_the_gap_does_not_depend_on_order_scale_or_names():
    factors = RNG.integers(0, 4, (3000, 2))
    latents = factors @ RNG.normal(size=(2, 3)) + RNG.normal(size=(3000, 3))
    reference = mutual_information_gap(latents, factors)[1]
    rows = RNG.permutation(3000)
    np.testing.assert_allclose(mutual_information_gap(latents[rows], factors[rows])[1], reference, atol=1e-12)
    np.testing.assert_allclose(mutual_information_gap(np.exp(latents[:, ::-1]), factors)[1], reference, atol=1e-12)
    renamed = np.array([7, -2, 40, 3])[factors]
    np.testing.assert_allclose(mutual_information_gap(latents, renamed)[1], reference, atol=1e-12)


@pytest.mark.parametrize(
    ("latents", "factors", "message"),
    [
        (np.zeros((4, 2)), np.zeros((3, 1)), r"latents \(4, 2\) and factors \(3, 1\) must be"),
        (np.zeros((4, 1)), np.arange(4)[:, None], "needs two latents and two bins or more, not 1 and 20"),
        (np.full((4, 2), np.nan), np.arange(4)[:, None], "latents must be finite"),
        (np.zeros((4, 2)), np.full((4, 1), 3), "factor 0 has one value only"),
    ],
)
def test_bad_arguments_are_named(latents, factors, message):
    with pytest.raises(ValueError, match=message):
        mutual_information_gap(latents, factors)


# ---- shapes


def test_images_are_functions_of_their_factors_and_factors_of_the_seed():
    images, factors = shapes(3000, 16, seed=1)
    again, same_factors = shapes(3000, 16, seed=1)
    assert (images.pixels == again.pixels).all() and (factors == same_factors).all()
    assert (shapes(3000, 16, seed=2)[1] != factors).any()
    assert images.pixels.shape == (3000, 16, 16, 1) and images.pixels.dtype == np.uint8
    assert (images.labels == factors[:, 0]).all() and images.labels.dtype == factors.dtype == np.int32
    of_factors = {}
    for picture, own in zip(images.pixels, factors, strict=True):
        assert (of_factors.setdefault(own.tobytes(), picture) == picture).all()
    distinct = {picture.tobytes() for picture in of_factors.values()}
    assert len(distinct) == len(of_factors) > 1000  # no two settings of the factors look alike


def test_factors_are_uniform_and_independent():
    _, factors = shapes(40_000, 8, seed=3)
    for column, count in zip(factors.T, FACTORS.values(), strict=True):
        share = np.bincount(column, minlength=count) / len(column)
        assert len(share) == count and np.abs(share - 1 / count).max() < 5 * math.sqrt(0.25 / len(column))
    correlation = np.corrcoef(factors.T) - np.eye(len(FACTORS))
    assert np.abs(correlation).max() < 5 / math.sqrt(len(factors))


def test_each_factor_moves_what_it_is_named_after():
    images, factors = shapes(4000, 32, seed=4)
    grey = images.pixels[..., 0].astype(np.float64)
    kind, x, y, size, brightness = factors.T
    mass, axis = grey.sum(axis=(1, 2)), np.arange(32)
    across = (grey.sum(axis=1) * axis).sum(axis=1) / mass
    down = (grey.sum(axis=2) * axis).sum(axis=1) / mass
    brightest = grey.max(axis=(1, 2))
    area = (grey > brightest[:, None, None] / 2).sum(axis=(1, 2))
    assert not (images.pixels[:, [0, -1]].any() or images.pixels[:, :, [0, -1]].any())  # none touches the border
    for kind_number in range(len(KINDS)):
        own = kind == kind_number
        assert np.corrcoef(across[own], x[own])[0, 1] > 0.99 and np.corrcoef(down[own], y[own])[0, 1] > 0.99
        for value in range(1, FACTORS["size"]):
            assert area[own & (size == value)].min() > area[own & (size == value - 1)].max()
    assert sorted(set(zip(brightness, brightest, strict=True))) == [(0, 102), (1, 153), (2, 204), (3, 255)]


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="side 4 must be 8 or more"):
        shapes(10, 4, seed=0)
