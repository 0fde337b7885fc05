"""Codes in a public basis, and the network over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privsyn_jax.models import block_codes
from privsyn_jax.types import Images

TINY = {"width": 8, "num_layers": 1, "num_heads": 2}


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (9, 10, 3)])
def test_more_frequencies_and_levels_come_nearer_to_the_image(shape):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(size=shape), axis=0), axis=1)
    smooth = 255 * (smooth - smooth.min()) / np.ptp(smooth)
    pixels = smooth.astype(np.uint8)
    errors = []
    for num_frequencies, num_levels in ((1, 5), (4, 15), (16, 31), (16, 401)):
        codec = block_codes.make_codec(shape, 4, num_frequencies, num_levels)
        codes = codec.encode(jnp.asarray(pixels))
        assert codes.shape == (codec.num_blocks, num_frequencies) and codes.dtype == jnp.int32
        assert int(codes.min()) >= 0 and int(codes.max()) < num_levels
        decoded = codec.decode(codes[None])[0]
        assert decoded.shape == shape
        errors.append(float(jnp.abs((decoded + 1) * 127.5 - pixels).mean()))
    if shape[2] == 1:
        assert errors[0] > errors[1] > errors[2] > errors[3] and errors[3] < 1.0
    else:
        assert errors[0] > errors[2]  # 16 of 48 frequencies


def test_flat_black_and_white_keep_their_brightness():
    codec = block_codes.make_codec((8, 8, 1), 4, 4, 9)
    for value in (0, 255):
        decoded = codec.decode(codec.encode(jnp.full((8, 8, 1), value, jnp.uint8))[None])[0]
        np.testing.assert_allclose(decoded, value / 127.5 - 1, atol=1e-5)


def test_every_code_is_predicted_from_earlier_codes_only():
    codec = block_codes.make_codec((8, 8, 1), 4, 3, 5)
    trunk = block_codes.Trunk(codec, 2, 8, 2, 2, 2)
    rng = np.random.default_rng(0)
    codes = jnp.asarray(rng.integers(0, 5, (4, 3)), jnp.int32)
    params = trunk.init(jax.random.key(0), codes, jnp.int32(0))
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    logits = jax.jit(trunk.apply)
    before = logits(params, codes, jnp.int32(0)).reshape(12, 5)
    for place in range(12):
        changed = codes.reshape(-1).at[place].set((codes.reshape(-1)[place] + 2) % 5).reshape(4, 3)
        after = logits(params, changed, jnp.int32(0)).reshape(12, 5)
        differs = np.flatnonzero(np.abs(np.asarray(after - before)).max(axis=1) > 1e-6)
        assert (differs > place).all() and (place == 11 or len(differs) > 0)
    other_label = logits(params, codes, jnp.int32(1)).reshape(12, 5)
    assert (np.abs(np.asarray(other_label - before)).max(axis=1) > 1e-6).all()


def test_the_loss_is_the_log_probability_that_samples_have():
    """On images of one block with one code: frequencies of samples against probabilities."""
    generator = block_codes.make(
        image_shape=(4, 4, 1), num_classes=2, block_size=4, num_frequencies=2, num_levels=3, **TINY
    )
    params = generator.init(jax.random.key(0))
    noise = lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)  # noqa: E731
    params = {**params, "private": jax.tree.map(noise, params["private"])}
    num_samples = 8000
    drawn = generator.sample(params, jax.random.key(1), num_samples, {0: 1})
    codec = block_codes.make_codec((4, 4, 1), 4, 2, 3)
    kinds, counts = np.unique(drawn.pixels.reshape(num_samples, -1), axis=0, return_counts=True)
    assert len(kinds) >= 4
    total = 0.0
    for kind, count in zip(kinds, counts, strict=True):
        pixels = jnp.asarray(kind.reshape(4, 4, 1))
        clipped_is_same = np.abs(np.asarray(codec.decode(codec.encode(pixels)[None])[0])).max() <= 1.001
        probability = float(jnp.exp(-generator.private_loss(params, Images(pixels, jnp.int32(1)), jax.random.key(0))))
        if clipped_is_same:
            assert abs(count / num_samples - probability) < 5 * np.sqrt(probability / num_samples) + 1e-3
        total += probability
    assert total <= 1 + 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_size": 1}, "block_size 1 must be from 2"),
        ({"num_levels": 8}, "num_levels 8 must be odd"),
        ({"num_frequencies": 17}, "num_frequencies 17 must be from 1 to 16"),
        ({"width": 10, "num_heads": 4}, "width 10 must be a multiple"),
        ({"temperature": 0.0}, "temperature 0.0 must be above 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        block_codes.make(image_shape=(8, 8, 1), num_classes=2, **arguments)
