"""What distances between sets of images are measured on.

Published FID and KID values use the features of an Inception net trained on ImageNet, which is not part of this
package: values here compare only with values on the same features, and `Features.name` stands in every metric's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from privsyn_jax.evaluation.images.classifiers import predict
from privsyn_jax.evaluation.images.nets import SmallCNN, initial_params
from privsyn_jax.refuse import imported
from privsyn_jax.types import UserError

_BLOCK_SIZE = 512


class Features(NamedTuple):
    """A map from images to vectors.

    Attributes:
      name: "trained", "random" or "custom".
      description: what they are, in words, for a caption.
      function: uint8 [n, height, width, channels] -> float [n, d].
    """

    name: str
    description: str
    function: Callable[[np.ndarray], np.ndarray]


def trained_features(net: Any, params: Any) -> Features:
    """The last hidden layer of a classifier trained on real images, which therefore stays under `private/`."""
    description = "the last hidden layer of a small net trained on the real images"
    return Features("trained", description, lambda pixels: predict(net, params, pixels)[0])


def random_features(shape: tuple[int, int, int]) -> Features:
    """The last hidden layer of a convolutional net with random weights, the same in every run; public."""
    net = SmallCNN(1)
    params = initial_params(jax.random.key(0), net=net, shape=shape)
    description = "the last hidden layer of a convolutional net with random weights"
    return Features("random", description, lambda pixels: predict(net, params, pixels)[0])


def custom_features(path: str) -> Features:
    """Your own function, "module:function": uint8 [n, height, width, channels] -> float [n, d], n up to 512.

    It is how Inception features are plugged in where their weights are at hand.

    Raises:
      UserError: there is no such function, or what it returns is not one finite vector per image.
    """
    function = imported("evaluation.features", path)

    def checked(pixels: np.ndarray) -> np.ndarray:
        blocks = []
        for start in range(0, len(pixels), _BLOCK_SIZE):
            block = pixels[start : start + _BLOCK_SIZE]
            found = np.asarray(function(block), np.float64)
            if found.ndim != 2 or len(found) != len(block) or not np.isfinite(found).all():
                raise UserError(
                    f"evaluation.features {path!r} returned an array of shape {found.shape} for {len(block)} images: "
                    "return finite floats [n, d]"
                )
            blocks.append(found)
        return np.concatenate(blocks)

    return Features("custom", f"the function {path}", checked)
