"""Procedural images: reproducible, in range, with the statistics that they are made for, and with learnable labels."""

import itertools

import numpy as np
import pytest

from privsyn_jax.data.procedural import PROCESSES, dead_leaves, procedural_images, spectral, strokes, with_spectrum


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (12, 20, 2)])
def test_shape_dtype_labels_and_range(shape):
    images = procedural_images(shape, 67, num_classes=10, seed=0)
    assert images.pixels.shape == (67, *shape) and images.pixels.dtype == np.uint8
    assert images.labels.shape == (67,) and images.labels.dtype == np.int32
    assert set(np.bincount(images.labels, minlength=10)) == {6, 7}
    assert images.pixels.min() < 10 and images.pixels.max() > 245


@pytest.mark.parametrize("name", PROCESSES)
def test_the_seed_decides(name):
    draw = lambda seed: procedural_images((8, 8, 3), 40, num_classes=4, seed=seed, processes=(name,))  # noqa: E731
    one, again, other = draw(3), draw(3), draw(4)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    np.testing.assert_array_equal(one.labels, again.labels)
    assert (one.labels != other.labels).any()
    for label in range(4):  # within a class, so that not only the order changes
        assert (one.pixels[one.labels == label] != other.pixels[other.labels == label]).mean() > 0.1
    assert len(np.unique(one.pixels.reshape(40, -1), axis=0)) == 40


def test_many_images_are_made_in_parts_that_differ():
    images = procedural_images((32, 32, 3), 400, num_classes=1, seed=0, processes=("spectral",))
    assert len(np.unique(images.pixels.reshape(400, -1), axis=0)) == 400


def accuracy(train, test) -> float:
    """Of the nearest class mean."""
    flat = lambda images: images.pixels.reshape(len(images.pixels), -1).astype(np.float32)  # noqa: E731
    means = np.stack([flat(train)[train.labels == label].mean(axis=0) for label in range(10)])
    distances = np.square(means).sum(axis=1) - 2 * flat(test) @ means.T
    return float(np.mean(distances.argmin(axis=1) == test.labels))


@pytest.mark.parametrize("processes", [(name,) for name in PROCESSES] + [tuple(PROCESSES)], ids="+".join)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])
def test_labels_can_be_told_from_the_images_of_another_seed(processes, shape):
    train, test = (procedural_images(shape, 400, num_classes=10, seed=seed, processes=processes) for seed in (0, 1))
    assert accuracy(train, test) > 0.4  # by chance 0.1, of 400: +- 0.015


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_spectrum_falls_as_asked(exponent):
    noise = np.random.default_rng(0).normal(0, 1, (200, 32, 24, 1))
    images = with_spectrum(noise, np.full(200, exponent))[..., 0]
    assert images.shape == (200, 32, 24) and np.abs(images.mean(axis=(1, 2))).max() < 1e-9
    power = np.square(np.abs(np.fft.fft2(images))).mean(axis=0).ravel()[1:]
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(24)[None]).ravel()[1:]
    slope = np.polyfit(np.log(frequency), np.log(power), 1)[0]
    assert abs(slope + 2 * exponent) < 0.05


def test_spectral_images_of_a_class_share_a_part():
    def of_class(label):
        images = spectral(np.random.default_rng(5), np.random.default_rng(label), 100, (16, 16, 1))[..., 0]
        images = images - images.mean(axis=(1, 2), keepdims=True)
        return (images / images.std(axis=(1, 2), keepdims=True)).reshape(100, -1)

    classes = [of_class(label) for label in range(20)]
    within = [np.mean(images[::2] * images[1::2]) for images in classes]
    between = [np.mean(one[::2] * other[1::2]) for one, other in itertools.pairwise(classes)]
    assert 0.4 < np.mean(within) < 0.6  # they share half of their variance
    assert abs(np.mean(between)) < 0.1


def gradients(images):
    return np.diff(images, axis=2).ravel()


def kurtosis(values):
    return np.mean(np.square(np.square(values - values.mean()))) / values.var() ** 2


def test_leaves_have_edges_and_are_flat_between_them():
    rng = np.random.default_rng(0)
    leaves = gradients(dead_leaves(rng, rng, 50, (64, 64, 1)))
    noise = gradients(with_spectrum(rng.normal(0, 1, (50, 64, 64, 1)), np.ones(50)))
    assert kurtosis(noise) < 3.5 < 8 < kurtosis(leaves)
    assert np.mean(leaves == 0) > 0.5 > np.mean(noise == 0)


def test_leaves_of_every_size_cover_the_ground():
    rng = np.random.default_rng(0)
    images = dead_leaves(rng, rng, 20, (64, 64, 3))
    colours = [len(np.unique(image.reshape(-1, 3), axis=0)) for image in images]
    assert 20 < np.mean(colours) < 61
    areas = np.concatenate([np.unique(image.reshape(-1, 3), axis=0, return_counts=True)[1] for image in images])
    assert np.mean(areas < 100) > 0.3 and areas.max() > 500


def test_strokes_are_thin_bright_and_smooth_at_the_edge():
    rng = np.random.default_rng(0)
    images = strokes(rng, np.random.default_rng(2), 100, (28, 28, 1))[..., 0]
    ground, pen = images.min(axis=(1, 2)), images.max(axis=(1, 2))
    assert np.all(pen - ground > 0.15) and ground.mean() < 0.2
    ink = (images - ground[:, None, None]) / (pen - ground)[:, None, None]
    assert np.all(ink.mean(axis=(1, 2)) > 0.01) and np.all(ink.mean(axis=(1, 2)) < 0.5)
    partly = np.mean((ink > 0.02) & (ink < 0.98))
    assert 0.02 < partly < 0.4  # anti-aliased
    assert np.mean(ink < 0.01) > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"processes": ("leaves",)}, "leaves"),
        ({"processes": ()}, "must be some of dead_leaves, spectral, strokes"),
        ({"num_classes": 0}, "at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        procedural_images((8, 8, 1), 4, **{"num_classes": 2, "seed": 0, **arguments})
