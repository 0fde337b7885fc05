"""Gaussians over the low frequencies of an image, several to a class, learned from two or three noisy sums.

1. Class sizes, class means, and a histogram of brightness.
2. Products of what is left of an image after its class mean: a covariance for every class.
3. The same once more in cells: each class is cut along its first principal directions, as released, and every cell
   gets a mean and a covariance of its own.

All the rest is post-processing. Covariances are pulled towards the mean over classes, and those of cells towards their
class, as far as they cannot be told from it through the noise. Drawn images get a tone curve that gives them the
released distribution of brightness: a Gaussian knows no black background.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.cosine_basis import CosineBasis, cosine_basis
from privsyn_jax.models.image_layers import draw_images, label_is_exact
from privsyn_jax.models.moments import cleaned, factors_of, moments_of, products, sizes_of, weighted, within_unit
from privsyn_jax.types import Generator, Stage

_TONES = 64  # bins of brightness
_KNOTS = 2049  # of a tone curve
_CURVE_IMAGES = 2000  # drawn to know the brightness of Gaussian images
# Squared weights of the parts of the first embedding, of norm 1.
_FIRST = {"size": 0.05, "tones": 0.05, "mean": 0.9}
_BATCH = 500


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    num_frequencies: int = 150,
    num_splits: int = 0,
    radius: float = 0.36,
    radius_within: float = 0.25,
    center: float = 0.0,
    shrinkage: float = 0.5,
    covariances: bool = True,
) -> Generator:
    """Generator of Images that learns from noisy sums alone.

    Args:
      image_shape: (height, width, channels).
      num_classes: number of labels.
      num_frequencies: cosine coefficients that are kept; at most the number of pixels times channels.
      num_splits: directions along which a class is cut in two: 2^num_splits cells each; 0 leaves the third sum out.
      radius, radius_within: root mean square of the pixels (from 0 to 1), less `center` or less the class mean, up to
        which an image is told apart; what is longer is scaled down. The smaller, the less noise.
      center: brightness that norms are taken from: 0 for drawings on black, 0.5 for photographs.
      shrinkage: eigenvalues of noise up to this times its largest one are taken out of covariances.
      covariances: False learns class means and brightness only (central images), with less noise.
    """
    if not 0 <= num_splits <= 4 or (num_splits and not covariances):
        raise ValueError(f"num_splits {num_splits} must be from 0 to 4, and 0 without covariances")
    for name, value in {"radius": radius, "radius_within": radius_within}.items():
        if not value > 0:
            raise ValueError(f"{name} {value} must be above 0")
    if not shrinkage >= 0:
        raise ValueError(f"shrinkage {shrinkage} must be 0 or more")
    size = math.prod(image_shape)
    basis = cosine_basis(image_shape, min(num_frequencies, size))
    learner = _Learner(basis, num_classes, center, radius * math.sqrt(size), radius_within * math.sqrt(size), shrinkage)
    num_cells = 2**num_splits
    stages = [Stage("class means", 0.1, num_classes, learner.embed_means, learner.absorb_means)]
    if not covariances:
        stages = [stages[0]._replace(share=1.0)]
    elif not num_splits:
        embed, absorb = learner.embed_products, learner.absorb_products
        stages.append(Stage("covariances", 0.9, num_classes, embed, absorb))
    else:
        absorb = functools.partial(learner.absorb_products, num_splits=num_splits)
        stages.append(Stage("covariances", 0.3, num_classes, learner.embed_products, absorb))
        embed = functools.partial(learner.embed_cells, num_cells=num_cells)
        stages.append(Stage("covariances of cells", 0.6, num_classes * num_cells, embed, learner.absorb_cells))

    @jax.jit
    def draw_block(params, key, labels):
        return 2.0 * _toned(params["public"], _gaussian_images(basis, params["public"], key, labels) + center) - 1.0

    return Generator(
        init=lambda key: {"private": {}, "public": learner.empty()},
        private_loss=None,
        public_loss=None,
        calibrate=None,
        sample=functools.partial(draw_images, draw_block, num_classes=num_classes, block_size=_BATCH),
        exact_conditions=label_is_exact,
        stages=tuple(stages),
    )


class _Learner(NamedTuple):
    """The stages, for coefficients in `basis` of pixels from 0 to 1 less `center`."""

    basis: CosineBasis
    num_classes: int
    center: float
    largest: float  # norm of an image
    largest_within: float  # norm of an image less its class mean
    shrinkage: float

    def empty(self) -> dict[str, Any]:
        m = len(self.basis.matrix)
        return {
            "means": jnp.zeros((self.num_classes, 1, m)),
            "factors": jnp.zeros((self.num_classes, 1, m, m)),
            "shares": jnp.ones((self.num_classes, 1)),
            **_straight_curve(self.basis.shape[2]),
        }

    def embed_means(self, params, example):
        del params
        image = example.pixels.astype(jnp.float32) / 255.0
        channels = image.shape[-1]
        tones = jnp.minimum(example.pixels.astype(jnp.int32) * _TONES // 256, _TONES - 1).reshape(-1, channels)
        share = 1.0 / len(tones)
        counts = jnp.zeros((channels, _TONES)).at[jnp.arange(channels)[None], tones].add(share)
        coefficients = within_unit(self.basis.analyse(image - self.center) / self.largest)
        parts = [jnp.ones(1), counts.reshape(-1) / math.sqrt(channels), coefficients]
        return example.labels, weighted(parts, tuple(_FIRST.values()))

    def absorb_means(self, params, noisy_sum, stddev, key):
        del key
        channels = self.basis.shape[2]
        weights = [math.sqrt(weight) for weight in _FIRST.values()]
        sizes = sizes_of(noisy_sum[:, 0], weights[0], stddev)
        tones = noisy_sum[:, 1 : 1 + channels * _TONES].sum(axis=0).reshape(channels, _TONES)
        means = noisy_sum[:, 1 + channels * _TONES :] * (self.largest / weights[2]) / sizes[:, None]
        public = {**params["public"], "means": means[:, None], "tones": _distribution(tones)}
        return self._learned(params, public)

    def embed_products(self, params, example):
        rest = self._rest(params["public"]["means"][:, 0], example)
        return example.labels, products(rest / self.largest_within)

    def absorb_products(self, params, noisy_sum, stddev, key, *, num_splits=0):
        del key
        moments = moments_of(noisy_sum, stddev, self.largest_within)
        weights = moments.sizes / moments.sizes.sum()
        common, common_noise = (
            np.einsum("k,kij->ij", weights, moments.covariances),
            np.linalg.norm(weights * moments.noise),
        )
        common = cleaned(np.zeros_like(common), common, float(common_noise) * self.shrinkage)
        covariances = self._pulled(moments, [common] * self.num_classes)
        means = np.asarray(params["public"]["means"])[:, 0] + moments.means
        public = {**params["public"], "means": means[:, None], "factors": factors_of(covariances)[:, None]}
        if num_splits:
            public |= _cells(means, covariances, num_splits)
        return self._learned(params, public)

    def embed_cells(self, params, example, *, num_cells):
        public, label = params["public"], example.labels
        rest = self._rest(public["class_means"], example)
        signs = jnp.dot(public["directions"][label], rest, precision=jax.lax.Precision.HIGHEST) > 0
        cell = jnp.dot(signs.astype(jnp.int32), 2 ** jnp.arange(len(signs), dtype=jnp.int32))
        own = rest + public["class_means"][label] - public["means"][label, cell]
        return label * num_cells + cell, products(own / self.largest_within)

    def absorb_cells(self, params, noisy_sum, stddev, key):
        del key
        public = {name: np.asarray(value) for name, value in params["public"].items()}
        shape = public["means"].shape  # [classes, cells, m]
        moments = moments_of(noisy_sum, stddev, self.largest_within)
        parents = np.einsum("kcij,kclj->kcil", public["factors"], public["factors"]).reshape(-1, shape[2], shape[2])
        factors = factors_of(self._pulled(moments, list(parents))).reshape(*shape, shape[2])
        sizes = moments.sizes.reshape(shape[:2])
        kept = {name: value for name, value in public.items() if name not in ("class_means", "directions")}
        public = {
            **kept,
            "means": public["means"] + moments.means.reshape(shape),
            "factors": factors,
            "shares": sizes / sizes.sum(axis=1, keepdims=True),
        }
        return self._learned(params, public)

    def _rest(self, means, example):
        image = example.pixels.astype(jnp.float32) / 255.0 - self.center
        return self.basis.analyse(image) - means[example.labels]

    def _pulled(self, moments, parents):
        """Covariances [g, m, m] of the groups, each as near to its parent as the noise allows."""
        return np.stack(
            [
                cleaned(parent, covariance, float(noise) * self.shrinkage)
                for parent, covariance, noise in zip(parents, moments.covariances, moments.noise, strict=True)
            ]
        )

    def _learned(self, params, public):
        """Parameters with the tone curve that goes with the rest."""
        public = {name: jnp.asarray(value, jnp.float32) for name, value in public.items()}
        curve = {name: jnp.asarray(value, jnp.float32) for name, value in self._curve(public).items()}
        return {**params, "public": {**public, **curve}}

    def _curve(self, public) -> dict[str, Any]:
        """Tone curve from the brightness of Gaussian images to the released one, by equal shares of pixels."""
        labels = jnp.arange(_CURVE_IMAGES) % self.num_classes
        drawn = _gaussian_images(self.basis, public, jax.random.key(0), labels) + self.center
        levels = np.linspace(0.0, 1.0, _KNOTS)
        edges = np.linspace(0.0, 1.0, _TONES + 1)
        sources, targets = [], []
        for channel, shares in enumerate(np.asarray(public["tones"])):
            sources.append(np.quantile(np.asarray(drawn)[..., channel], levels))
            targets.append(np.interp(levels, np.concatenate([[0.0], np.cumsum(shares)]), edges))
        return {"curve_from": np.stack(sources), "curve_to": np.stack(targets)}


def _straight_curve(channels: int) -> dict[str, Any]:
    line = jnp.broadcast_to(jnp.linspace(0.0, 1.0, _KNOTS), (channels, _KNOTS))
    return {"tones": jnp.full((channels, _TONES), 1.0 / _TONES), "curve_from": line, "curve_to": line}


def _gaussian_images(basis, public, key, labels):
    """Floats [n, height, width, channels], less the center, before the tone curve."""
    cell_key, key = jax.random.split(key)
    cells = jax.random.categorical(cell_key, jnp.log(public["shares"])[labels])
    means, factors = public["means"][labels, cells], public["factors"][labels, cells]
    normal = jax.random.normal(key, means.shape)
    return basis.synthesise(means + jnp.einsum("nij,nj->ni", factors, normal))


def _toned(public, images):
    channels = [
        jnp.interp(images[..., channel], public["curve_from"][channel], public["curve_to"][channel])
        for channel in range(images.shape[-1])
    ]
    return jnp.stack(channels, axis=-1)


def _distribution(noisy: np.ndarray) -> np.ndarray:
    """Noisy histograms [channels, _TONES] as shares: not negative, and of sum 1."""
    positive = np.maximum(noisy, 0.0) + 1e-9
    return positive / positive.sum(axis=1, keepdims=True)


def _cells(means: np.ndarray, covariances: np.ndarray, num_splits: int) -> dict[str, np.ndarray]:
    """Where the cells of a Gaussian class would lie: halves along its first principal directions.

    Half a normal variable of stddev s has mean s sqrt(2 / pi) and variance s^2 (1 - 2 / pi).
    """
    num_classes, m = means.shape
    values, vectors = np.linalg.eigh(covariances)
    directions = vectors[:, :, ::-1][:, :, :num_splits].transpose(0, 2, 1)  # [k, splits, m]
    spreads = np.sqrt(np.maximum(values[:, ::-1][:, :num_splits], 0.0))
    signs = np.array([[1 if cell >> split & 1 else -1 for split in range(num_splits)] for cell in range(2**num_splits)])
    offsets = math.sqrt(2 / math.pi) * np.einsum("cs,ks,ksm->kcm", signs, spreads, directions)
    taken = 2 / math.pi * np.einsum("ks,ksi,ksj->kij", np.square(spreads), directions, directions)
    factors = factors_of(covariances - taken)
    cell_shape = (num_classes, 2**num_splits, m)
    return {
        "class_means": means,
        "directions": directions,
        "means": means[:, None] + offsets,
        "factors": np.broadcast_to(factors[:, None], (*cell_shape, m)),
        "shares": np.full(cell_shape[:2], 0.5**num_splits),
    }
