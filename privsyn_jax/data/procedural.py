"""Images of random processes, made here from a seed: public by construction, for pretraining before private data.

No photograph is behind them. What they share with photographs and drawings is statistical: objects that occlude each
other, spectra that fall with frequency, strokes on a plain ground.

Source: Baradad et al. 2021, "Learning to See by Looking at Noise"; Tang et al. 2023, "Differentially Private Image
Classification by Learning Priors from Random Processes".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from privsyn_jax.types import Images

_CHUNK_NUMBERS = 2**19  # pixel values made at once
_PROTOTYPES = 20210610  # every seed has the same classes
_SIZES = (0.06, 0.6)  # smallest and largest radius of a leaf, in half sides of the image
_SIZE_EXPONENT = 3.0  # density of radii r^-3: every scale covers the same area
_NUM_LEAVES, _NUM_OWN_LEAVES = 60, 3
_NUM_CURVES, _CURVE_POINTS = 3, 7
_SHARED_NOISE = 0.5  # part of the variance of spectral noise that the images of a class have in common

Shape = tuple[int, int, int]


def procedural_images(
    shape: Shape,
    num_images: int,
    *,
    num_classes: int,
    seed: int,
    processes: Sequence[str] = ("dead_leaves", "spectral", "strokes"),
) -> Images:
    """Images of `num_classes` classes, each drawn by one process around a prototype of its own.

    Class k has process k modulo their number; its prototype (an arrangement of leaves, a noise pattern with its
    spectrum, a skeleton of curves) depends on k and the process alone. An image varies its prototype's position, size,
    colours and detail, so the label decides the content and the rest is left to chance. Classes are equally frequent.

    Args:
      shape: (height, width, channels).
      seed: of the images; the classes are the same for every seed.
      processes: names in PROCESSES.

    Returns:
      `Images` in random order.
    """
    if not processes or not set(processes) <= set(PROCESSES):
        raise ValueError(f"processes {tuple(processes)} must be some of {', '.join(PROCESSES)}")
    if num_classes < 1 or num_images < 1:
        raise ValueError(f"num_images {num_images} and num_classes {num_classes} must be at least 1")
    labels = np.random.default_rng([seed, num_classes]).permutation(np.arange(num_images) % num_classes)
    pixels = np.empty((num_images, *shape), np.uint8)
    chunk = max(1, _CHUNK_NUMBERS // int(np.prod(shape)))
    for label in range(num_classes):
        name = processes[label % len(processes)]
        rng = np.random.default_rng([seed, label, list(PROCESSES).index(name)])
        rows = np.flatnonzero(labels == label)
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            prototype = np.random.default_rng([_PROTOTYPES, label])
            drawn = PROCESSES[name](rng, prototype, len(part), shape)
            pixels[part] = np.round(255 * np.clip(drawn, 0, 1)).astype(np.uint8)
    return Images(pixels, labels.astype(np.int32))


def dead_leaves(rng: np.random.Generator, prototype: np.random.Generator, num: int, shape: Shape) -> np.ndarray:
    """float [num, *shape]: opaque disks, squares and triangles with power-law sizes, some of them the class's own.

    Source: Lee et al. 2001, "Occlusion Models for Natural Images".
    """
    x, y = _grid(shape)
    ground, contrast = _brightness(rng, num)
    palette = prototype.uniform(0, 1, (4, shape[2]))
    images = np.broadcast_to(ground[:, None, None, None], (num, *shape)).astype(np.float32)
    own_places = prototype.uniform(-0.6, 0.6, (_NUM_OWN_LEAVES, 2))
    own_radii = prototype.uniform(0.25, 0.55, _NUM_OWN_LEAVES)
    own_angles = prototype.uniform(0, 2 * np.pi, _NUM_OWN_LEAVES)
    own_kinds = prototype.integers(0, len(_SIDES), _NUM_OWN_LEAVES)
    shift = rng.normal(0, 0.12, (num, 2))
    for number in range(_NUM_LEAVES):
        own = number - (_NUM_LEAVES - _NUM_OWN_LEAVES)
        if own < 0:
            places, radii = rng.uniform(-1.1, 1.1, (num, 2)), _power_law(rng, num)
            angles, kinds = rng.uniform(0, 2 * np.pi, num), rng.integers(0, len(_SIDES), num)
            colours = rng.uniform(0, 1, (num, shape[2]))
        else:
            places = own_places[own] + shift + rng.normal(0, 0.05, (num, 2))
            radii = own_radii[own] * np.exp(rng.normal(0, 0.15, num))
            angles, kinds = own_angles[own] + rng.normal(0, 0.2, num), np.full(num, own_kinds[own])
            colours = np.clip(palette[own] + rng.normal(0, 0.1, (num, shape[2])), 0, 1)
        colours = ground[:, None] + contrast[:, None] * (colours - 0.5)
        covered = _covers(x, y, places, radii, angles, kinds)
        np.copyto(images, colours[:, None, None, :].astype(np.float32), where=covered[..., None])
    return images


def spectral(rng: np.random.Generator, prototype: np.random.Generator, num: int, shape: Shape) -> np.ndarray:
    """float [num, *shape]: noise with spectrum f^-exponent, correlated over colours, partly the same for a class."""
    exponent = prototype.uniform(0.8, 2.5)
    mixing = prototype.normal(0, 1, (shape[2], shape[2])) + 1
    common = prototype.normal(0, 1, shape)
    noise = np.sqrt(1 - _SHARED_NOISE) * rng.normal(0, 1, (num, *shape)) + np.sqrt(_SHARED_NOISE) * common
    images = with_spectrum(noise, exponent + rng.uniform(-0.2, 0.2, num)) @ mixing
    images /= images.std(axis=(1, 2, 3), keepdims=True) + 1e-6
    ground, contrast = _brightness(rng, num)
    return ground[:, None, None, None] + 0.3 * contrast[:, None, None, None] * images


def with_spectrum(noise: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Noise [n, height, width, c] made to have amplitude proportional to frequency^-exponents [n], and mean zero."""
    height, width = noise.shape[1:3]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    amplitude = frequency[None] ** -np.asarray(exponents)[:, None, None]
    amplitude[:, 0, 0] = 0
    return np.fft.irfft2(np.fft.rfft2(noise, axes=(1, 2)) * amplitude[..., None], s=(height, width), axes=(1, 2))


def strokes(rng: np.random.Generator, prototype: np.random.Generator, num: int, shape: Shape) -> np.ndarray:
    """float [num, *shape]: bright pen strokes of random width on a darker plain ground, after the class's skeleton."""
    x, y = _grid(shape)
    curves = 1 + prototype.integers(0, _NUM_CURVES)
    skeleton = prototype.uniform(-1, 1, (curves, 3, 2))  # control points of quadratic Bezier curves
    skeleton[1:, 0] = skeleton[:-1, 2]  # one pen stroke: the next curve starts where the last has ended
    skeleton -= (skeleton.max(axis=(0, 1)) + skeleton.min(axis=(0, 1))) / 2
    skeleton *= 0.75 / np.abs(skeleton).max()
    tint = prototype.uniform(0.5, 1, shape[2]) if shape[2] > 1 else np.ones(1)
    control = skeleton + rng.normal(0, 0.06, (num, curves, 3, 2))
    turn = np.eye(2) + rng.normal(0, 0.12, (num, 2, 2))  # rotation, scale and slant
    control = np.einsum("ncpi,nij->ncpj", control, turn) + rng.normal(0, 0.08, (num, 1, 1, 2))
    time = np.linspace(0, 1, _CURVE_POINTS)[:, None]
    weights = np.concatenate([(1 - time) ** 2, 2 * time * (1 - time), time**2], axis=1)  # [points, 3]
    points = np.einsum("tp,ncpi->ncti", weights, control)
    pixel = 2 / min(shape[:2])
    half_width = np.maximum(rng.uniform(0.04, 0.14, num), 0.5 * pixel)
    distance = np.full((num, *shape[:2]), np.inf, np.float32)
    for curve in range(curves):
        for start in range(_CURVE_POINTS - 1):
            np.minimum(distance, _to_segment(x, y, points[:, curve, start], points[:, curve, start + 1]), out=distance)
    ink = np.clip(0.5 + (half_width[:, None, None] - np.sqrt(distance)) / pixel, 0, 1)[..., None]
    ground = (0.4 * rng.uniform(0, 1, num) ** 3)[:, None, None, None]
    pen = rng.uniform(0.6, 1, num)[:, None] * np.clip(tint + rng.normal(0, 0.1, (num, shape[2])) * (shape[2] > 1), 0, 1)
    return ground + ink * (pen[:, None, None, :] - ground)


PROCESSES: dict[str, Callable[[np.random.Generator, np.random.Generator, int, Shape], np.ndarray]] = {
    "dead_leaves": dead_leaves,
    "spectral": spectral,
    "strokes": strokes,
}

_SIDES = (0, 4, 3)  # of a leaf; 0 is a disk


def _grid(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates [1, height, width] of pixel centres; the shorter side runs from -1 to 1."""
    height, width = shape[:2]
    scale = 2 / min(height, width)
    y, x = (scale * (np.arange(side) - (side - 1) / 2) for side in (height, width))
    y, x = np.meshgrid(y, x, indexing="ij")
    return x[None].astype(np.float32), y[None].astype(np.float32)


def _brightness(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Middle brightness and contrast of each image."""
    return rng.uniform(0.35, 0.65, num), rng.uniform(0.4, 1, num)


def _power_law(rng: np.random.Generator, num: int) -> np.ndarray:
    """Radii with density proportional to r^-_SIZE_EXPONENT between the _SIZES, by inversion."""
    low, high = (size ** (1 - _SIZE_EXPONENT) for size in _SIZES)
    return (low + rng.uniform(0, 1, num) * (high - low)) ** (1 / (1 - _SIZE_EXPONENT))


def _covers(x, y, places, radii, angles, kinds) -> np.ndarray:
    """Bool [num, height, width]: which pixels lie in a leaf; polygons contain the disk of the same radius."""
    along, across = (part[:, None, None].astype(np.float32) for part in (places[:, 0], places[:, 1]))
    x, y = x - along, y - across
    extent = np.empty(x.shape, np.float32)
    for kind, sides in enumerate(_SIDES):
        rows = kinds == kind
        if sides == 0:
            extent[rows] = np.hypot(x[rows], y[rows])
            continue
        normals = angles[rows, None] + 2 * np.pi * np.arange(sides) / sides
        cosines, sines = (f(normals)[:, :, None, None].astype(np.float32) for f in (np.cos, np.sin))
        extent[rows] = np.max([cosines[:, i] * x[rows] + sines[:, i] * y[rows] for i in range(sides)], axis=0)
    return extent < radii[:, None, None]


def _to_segment(x, y, start, end) -> np.ndarray:
    """Squared distance [num, height, width] of pixels to the segments from start to end [num, 2]."""
    (x0, y0), (dx, dy) = (part.T[..., None, None].astype(np.float32) for part in (start, end - start))
    x, y = x - x0, y - y0
    share = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    return np.square(x - share * dx) + np.square(y - share * dy)
