"""The diffusion generator against closed forms, the formulas of its preconditioning, and a learned toy set."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ghost_oracle import flat, quick_jit
from jax.extend import core

from privsyn_jax.models import diffusion
from privsyn_jax.models.unet import UNet, from_patches, to_patches
from privsyn_jax.privacy.clipping import choose, clipped_grad_sum
from privsyn_jax.types import Images

SHAPE, CLASSES = (8, 8, 1), 3
TINY = dict(image_shape=SHAPE, num_classes=CLASSES, channels=(4, 8), embedding_dim=16)
ONE_RESOLUTION = {**TINY, "channels": (8,)}  # quicker to compile
SIGMA_DATA = 0.5


def randomized(params, seed=0):
    """Every leaf drawn anew, also those that start at zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32), params)


def zeros(generator):
    """Parameters with which the network says 0, as at first."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(generator.init, jax.random.key(0)))


def losses(generator, params, batch, keys):
    """Of every image and key [n]."""
    return np.asarray(quick_jit(jax.vmap(generator.private_loss, in_axes=(None, 0, 0)))(params, batch, keys))


def images(num, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    return Images(rng.integers(0, 256, (num, *shape), np.uint8), (np.arange(num) % CLASSES).astype(np.int32))


def repeated(batch, num):
    """Its first image, `num` times."""
    return jax.tree.map(lambda array: np.broadcast_to(array[:1], (num, *array.shape[1:])), batch)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((8, 8, 1), {"channels": (8, 16), "patch_size": 2}),
        ((28, 28, 1), {"channels": (8, 16, 16), "patch_size": 1}),
        ((32, 32, 3), {"channels": (8, 8, 16), "patch_size": 1, "attention": True}),
        ((64, 64, 3), {"channels": (8, 8, 8, 8), "patch_size": 4, "num_blocks": 2}),
        ((12, 20, 3), {"channels": (6,), "patch_size": 2, "attention": True}),
    ],
    ids=str,
)
def test_every_size_fits_and_the_loss_is_a_scalar(shape, settings):
    generator = diffusion.make(image_shape=shape, num_classes=10, **settings)
    params = jax.eval_shape(generator.init, jax.random.key(0))
    example = Images(jax.ShapeDtypeStruct(shape, np.uint8), jax.ShapeDtypeStruct((), np.int32))
    loss, grads = jax.eval_shape(jax.value_and_grad(generator.private_loss), params, example, jax.random.key(0))
    assert loss.shape == () and loss.dtype == jnp.float32
    assert jax.tree.structure(grads) == jax.tree.structure(params)


def test_patches_are_tiles():
    image = np.arange(4 * 6 * 2).reshape(4, 6, 2)
    patches = to_patches(jnp.asarray(image), 2)
    assert patches.shape == (2, 3, 8)
    np.testing.assert_array_equal(patches[1, 2], image[2:4, 4:6].ravel())
    np.testing.assert_array_equal(from_patches(patches, 2), image)


def test_the_network_sees_image_level_and_label_and_starts_at_zero():
    unet = UNet(CLASSES, (4,), 1, 16, True, 1)
    shapes = jax.eval_shape(unet.init, jax.random.key(0), jnp.zeros(SHAPE), jnp.float32(0), jnp.int32(0))
    inputs = np.ones((4, *SHAPE), np.float32), np.full(4, 0.3, np.float32), np.ones(4, np.int32)
    for number, other in enumerate((0.5, 0.1, 2)):
        inputs[number].reshape(4, -1)[number + 1, 0] = other
    outputs = quick_jit(jax.vmap(unet.apply, in_axes=(None, 0, 0, 0)))(randomized(shapes), *inputs)
    assert np.all(np.abs(outputs[1:] - outputs[:1]).max(axis=(1, 2, 3)) > 1e-3)
    generator = diffusion.make(**ONE_RESOLUTION)
    started = quick_jit(generator.init)(jax.random.key(0))["private"]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(started.pop("out")))
    kernels = [leaf for leaf in jax.tree.leaves(started) if leaf.ndim > 1]
    assert all(np.any(kernel) for kernel in kernels)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_first_loss_is_its_closed_form(sigma):
    """A network that says 0 leaves c_skip x as the denoiser; the expected loss follows from the second moment."""
    generator = diffusion.make(**ONE_RESOLUTION, noise_mean=math.log(sigma), noise_stddev=0.0)
    batch = images(1)
    found = losses(generator, zeros(generator), repeated(batch, 400), jax.random.split(jax.random.key(1), 400))
    moment = np.mean(np.square(batch.pixels / 127.5 - 1))
    skip = SIGMA_DATA**2 / (SIGMA_DATA**2 + sigma**2)
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    expected = weight * ((1 - skip) ** 2 * moment + skip**2 * sigma**2)
    assert abs(found.mean() - expected) <= 4 * found.std() / 20 + 1e-5


def test_loss_is_that_of_the_preconditioned_denoiser():
    generator = diffusion.make(**ONE_RESOLUTION, noise_mean=0.3, noise_stddev=0.0, label_dropout=0.0)
    params, batch = randomized(zeros(generator)), images(1)
    noise = np.asarray(jax.random.normal(jax.random.split(jax.random.key(4), 3)[1], SHAPE), np.float64)
    sigma, s = math.exp(0.3), SIGMA_DATA
    clean = batch.pixels[0] / 127.5 - 1
    noisy = clean + sigma * noise
    unet = UNet(CLASSES + 1, (8,), 1, 16, False, 2)
    scaled, level = jnp.asarray(noisy / math.hypot(sigma, s), jnp.float32), jnp.float32(math.log(sigma) / 4)
    output = quick_jit(unet.apply)({"params": params["private"]}, scaled, level, batch.labels[0])
    denoised = s**2 / (sigma**2 + s**2) * noisy + sigma * s / math.hypot(sigma, s) * np.asarray(output)
    weight = (sigma**2 + s**2) / (sigma * s) ** 2
    expected = weight * np.mean(np.square(denoised - clean))
    found = losses(generator, params, batch, jax.random.key(4)[None])
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_levels_are_drawn_as_stated():
    """Of an image of ones the first loss is 4 at high levels and about 1 / 4 at low ones."""
    batch = Images(np.full((2000, *SHAPE), 255, np.uint8), np.zeros(2000, np.int32))
    generator = diffusion.make(**ONE_RESOLUTION, noise_mean=-0.2, noise_stddev=0.7)
    found = losses(generator, zeros(generator), batch, jax.random.split(jax.random.key(2), 2000))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    square = np.exp(2 * (-0.2 + 0.7 * nodes))
    expected = np.average((square / SIGMA_DATA**2 + SIGMA_DATA**2) / (square + SIGMA_DATA**2), weights=weights)
    assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(len(found))


@pytest.mark.parametrize("dropout", [0.0, 0.4, 1.0])
def test_labels_are_hidden_as_often_as_asked(dropout):
    generator = diffusion.make(**ONE_RESOLUTION, label_dropout=dropout)
    pixels = repeated(images(1), 600).pixels
    keys = jnp.repeat(jax.random.split(jax.random.key(5), 300), 2)
    found = losses(generator, randomized(zeros(generator)), Images(pixels, np.arange(600, dtype=np.int32) % 2), keys)
    hidden = np.mean(np.isclose(found[::2], found[1::2], rtol=1e-6))
    assert abs(hidden - dropout) <= 4 * math.sqrt(dropout * (1 - dropout) / 300)


def test_bfloat16_loss_is_near_and_runs_in_bfloat16():
    generator = diffusion.make(**ONE_RESOLUTION, attention=True)
    params, batch = randomized(zeros(generator)), images(16)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    exact, rounded = (
        losses(generator, each, batch, jax.random.split(jax.random.key(0), 16)) for each in (params, half)
    )
    np.testing.assert_allclose(rounded, exact, rtol=0.05)
    assert rounded.dtype == np.float32 and np.any(rounded != exact)

    def products(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("conv_general_dilated", "dot_general"):
                yield {variable.aval.dtype for variable in equation.invars}
            for inner in core.jaxprs_in_params(equation.params):
                yield from products(inner)

    example = jax.tree.map(lambda array: array[0], batch)
    dtypes = list(products(jax.make_jaxpr(generator.private_loss)(half, example, jax.random.key(0)).jaxpr))
    assert len(dtypes) > 12 and all(pair == {jnp.dtype(jnp.bfloat16)} for pair in dtypes)


@pytest.mark.parametrize(
    ("settings", "num_draws"),
    [
        ({"attention": True}, 1),
        pytest.param({"patch_size": 1}, 1, marks=pytest.mark.slow),
        pytest.param({}, 2, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ghost_clipping_agrees_and_tiles_no_kernel(settings, num_draws):
    generator = diffusion.make(**{**TINY, **settings})
    params, batch = randomized(zeros(generator)), images(4)
    padding = np.array([False, False, True, False])
    sums = [
        quick_jit(functools.partial(clipped_grad_sum, generator.private_loss, method=method, num_draws=num_draws))(
            params, batch, padding, jax.random.key(3), l2_clip_norm=0.3
        )
        for method in ("ghost", "vmap")
    ]
    assert int(sums[1].nonprivate_clipped_count) > 0
    difference = np.linalg.norm(flat(sums[0].grad_sum) - flat(sums[1].grad_sum))
    assert difference <= 1e-5 * np.linalg.norm(flat(sums[1].grad_sum))
    np.testing.assert_allclose(flat(sums[0][1:]), flat(sums[1][1:]), rtol=1e-5)

    keys = jax.random.split(jax.random.key(0), 4)
    plan = choose(generator.private_loss, params, batch, keys, method="ghost", num_draws=num_draws).plan
    assert plan is not None and plan.has_conv
    tiled = [
        math.prod(piece.shape)
        for group in plan.groups
        for piece in group.pieces
        if any(view.use.kind == "tile" for view in piece.views)
    ]
    assert max(tiled) <= 4 * 8  # gains and biases of channels


@pytest.mark.parametrize(
    "settings",
    [{}, {"sampler": "ddim", "num_sampling_steps": 150}, {"churn": 8.0}, {"guidance": 3.0}],
    ids=str,
)
def test_untrained_samples_have_the_assumed_spread(settings):
    """A network that says 0 denoises as for data N(0, sigma_data^2), so this is what comes out."""
    settings = {"num_sampling_steps": 40, **settings}
    generator = diffusion.make(**ONE_RESOLUTION, sigma_data=0.2, clip_denoised=False, **settings)
    drawn = generator.sample(zeros(generator), jax.random.key(1), 200, {})
    assert drawn.pixels.shape == (200, *SHAPE) and drawn.pixels.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(drawn.labels), [67, 67, 66])
    values = drawn.pixels / 127.5 - 1
    assert abs(values.mean()) < 4 * 0.2 / math.sqrt(values.size)
    assert abs(values.std() / 0.2 - 1) < 0.04  # standard error 0.6 %, of the solvers' steps 1.3 and 2.2 %


def toy(num, seed=0):
    """Class k has its bright column at 2 k + 1, with noise."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(num) % CLASSES).astype(np.int32)
    bright = np.arange(8)[None] == 2 * labels[:, None] + 1
    pixels = np.where(bright[:, None, :], 220, 40) + rng.normal(0, 8, (num, 8, 8))
    return Images(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], labels)


def read(drawn):
    """What class an image shows; its bright column minus the dark ones."""
    columns = drawn.pixels[..., 0].astype(float).mean(axis=1)
    candidates = columns[:, [1, 3, 5]]
    return candidates.argmax(axis=1), candidates.max(axis=1) - np.median(columns, axis=1)


@functools.cache
def trained():
    generator, data = diffusion.make(**ONE_RESOLUTION, label_dropout=0.3), toy(96)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(private, state, key):
        def loss(private):
            losses = jax.vmap(generator.private_loss, in_axes=(None, 0, 0))
            return losses({"private": private, "public": {}}, data, jax.random.split(key, 96)).mean()

        value, grads = jax.value_and_grad(loss)(private)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(private, updates), state, value

    private = generator.init(jax.random.key(0))["private"]
    state, losses = optimizer.init(private), []
    for number in range(250):
        private, state, value = step(private, state, jax.random.fold_in(jax.random.key(1), number))
        losses.append(float(value))
    assert np.mean(losses[-20:]) < 0.5 * losses[0]
    return {"private": private, "public": {}}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampler": "ddim", "num_sampling_steps": 25},
        pytest.param({"churn": 10.0}, marks=pytest.mark.slow),
        pytest.param({"guidance": 2.0}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_trained_model_draws_what_the_label_says(settings):
    drawn = diffusion.make(**ONE_RESOLUTION, label_dropout=0.3, **settings).sample(trained(), jax.random.key(7), 90, {})
    shown, contrast = read(drawn)
    assert np.mean(shown == drawn.labels) > 0.8
    assert np.median(contrast) > 120
    fixed = diffusion.make(**ONE_RESOLUTION, label_dropout=0.3, **settings).sample(
        trained(), jax.random.key(8), 30, {0: 2}
    )
    assert np.all(fixed.labels == 2) and np.mean(read(fixed)[0] == 2) > 0.7


def test_guidance_zero_ignores_the_label_and_keeps_the_classes():
    generator = diffusion.make(**ONE_RESOLUTION, label_dropout=0.3, guidance=0.0)
    shown, contrast = read(generator.sample(trained(), jax.random.key(7), 240, {0: 1}))
    shares = np.bincount(shown, minlength=CLASSES) / 240
    assert np.all(np.abs(shares - 1 / 3) < 0.2) and np.median(contrast) > 80
    np.testing.assert_array_equal(
        generator.sample(trained(), jax.random.key(7), 9, {0: 0}).pixels,
        generator.sample(trained(), jax.random.key(7), 9, {0: 1}).pixels,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (8, 8, 8, 8)}, "8 x 8 pixels do not fit channels .* must be multiples of 16"),
        ({"image_shape": (28, 28, 1), "channels": (8, 8, 8)}, "must be multiples of 8"),
        ({"channels": ()}, "channels"),
        ({"sigma_data": 0.0}, "sigma_data 0.0 must be"),
        ({"noise_stddev": -1.0}, "noise_stddev -1.0"),
        ({"label_dropout": 1.5}, "label_dropout 1.5 must be a probability"),
        ({"label_dropout": 0.0, "guidance": 2.0}, "guidance 2.0 needs label_dropout"),
        ({"sampler": "euler"}, "sampler 'euler' must be one of heun, ddim"),
        ({"sampler": "ddim", "churn": 1.0}, "churn 1.0 needs the sampler heun"),
        ({"sigma_min": 90.0}, "sigma_min 90.0"),
        ({"num_sampling_steps": 0}, "num_steps 0"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        diffusion.make(**{**TINY, **arguments})
