"""The contract of types.Generator, over every entry of models.IMAGE_GENERATORS; and the losses of GANs and VAEs."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ghost_oracle import draw, flat, quick_jit
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from privsyn_jax.models import IMAGE_GENERATORS, ONE_SHOT, beta_vae, gan_layers
from privsyn_jax.privacy.clipping import choose, clipped_grad_sum
from privsyn_jax.types import Images

SHAPE, NUM_CLASSES, BATCH = (8, 8, 1), 3, 5
OTHER_SHAPES = [(28, 28, 1), (32, 32, 3), (64, 64, 3)]
TINY = {"channels": (4, 8), "latent_dim": 3}
GANS = ("dcgan", "conditional_gan", "acgan", "wgan_gp")
NETWORKS = (*GANS, "beta_vae", "vae_gan")
SMALLER = {  # to compile faster; a name that is not listed is built with its defaults
    **dict.fromkeys(NETWORKS, TINY),
    "diffusion": {"channels": (8,), "embedding_dim": 8, "num_sampling_steps": 2, "label_dropout": 0.0},
    "block_codes": {"width": 8, "num_layers": 1, "num_heads": 2, "num_frequencies": 2, "num_levels": 3},
    "class_gaussian": {"num_frequencies": 6},
    "mean_embedding": {**TINY, "num_features": 20, "num_steps": 3, "batch_size": 2},
}
DRAWS_NOTHING = ("block_codes",)  # whose loss is an exact likelihood
RNG = np.random.default_rng(0)
IMAGES = Images(RNG.integers(0, 256, (BATCH, *SHAPE)).astype(np.uint8), np.array([0, 1, 2, 0, 1], np.int32))


@functools.cache
def built(name, **arguments):
    return IMAGE_GENERATORS[name](
        **{"image_shape": SHAPE, "num_classes": NUM_CLASSES, **SMALLER.get(name, {}), **arguments}
    )


@functools.cache
def init_of(name):
    return quick_jit(built(name).init)


@functools.cache
def fresh(name):
    return init_of(name)(jax.random.key(0))


@functools.cache
def moved(name):
    """Parameters some way from their initial values, where none is zero."""
    leaves, tree = jax.tree.flatten(fresh(name))
    return jax.tree.unflatten(tree, [leaf + draw(*leaf.shape, seed=i, scale=0.1) for i, leaf in enumerate(leaves)])


@functools.cache
def batched(name):
    """Jitted (params, images, key) -> losses [n] and gradients [n, ...]."""
    private_loss = built(name).private_loss
    value_and_grad = jax.value_and_grad(
        lambda private, public, example, key: private_loss({"private": private, "public": public}, example, key)
    )
    return quick_jit(jax.vmap(value_and_grad, in_axes=(None, None, 0, None)))


@functools.cache
def public_value_and_grad(name):
    """Jitted (public, private, key) -> loss of one draw and its gradient."""
    loss = built(name).public_loss
    return quick_jit(jax.value_and_grad(lambda public, private, key: loss({"private": private, "public": public}, key)))


@functools.cache
def usable(name):
    """Parameters that can be sampled from: fresh ones, or of a one-shot generator those learned from some images."""
    return learned(name)[-1]


@functools.cache
def learned(name):
    """Parameters before the first stage and after each."""
    params = [fresh(name)]
    for number, stage in enumerate(built(name).stages):
        params.append(stage.absorb(params[-1], *noisy_sum(stage, params[-1], seed=number), jax.random.key(number)))
    return params


def noisy_sum(stage, params, *, seed, copies=100):
    """Sum over copies of every image, plus noise, and the stddev of that."""
    groups, vectors = quick_jit(jax.vmap(stage.embed, in_axes=(None, 0)))(params, IMAGES)
    exact = np.zeros((stage.num_groups, vectors.shape[1]))
    np.add.at(exact, np.asarray(groups), copies * np.asarray(vectors, np.float64))
    return exact + draw(*exact.shape, seed=seed), 1.0


def losses_and_grads(name, images, seed=1):
    params = moved(name)
    return batched(name)(params["private"], params["public"], images, jax.random.key(seed))


def same(left, right):
    """Whether two trees are equal bit for bit."""
    equal = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), left, right)
    return all(jax.tree.leaves(equal))


def same_leaves(left, right):
    """`same`, of trees that may hold different leaves."""
    return jax.tree.structure(left) == jax.tree.structure(right) and same(left, right)


def moves(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)) and any(
        np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree)
    )


@pytest.fixture(params=IMAGE_GENERATORS)
def name(request):
    return request.param


@pytest.fixture(params=[name for name in IMAGE_GENERATORS if built(name).private_loss is not None])
def trained(request):
    return request.param


def test_init_is_a_function_of_the_key(name):
    init, params = init_of(name), fresh(name)
    assert set(params) == {"private", "public"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert same(params, init(jax.random.key(0)))
    if built(name).private_loss is not None:
        assert not same(params, init(jax.random.key(1)))


def test_loss_of_every_image_is_a_finite_scalar_and_so_is_its_gradient(trained):
    one = jax.tree.map(lambda array: array[0], IMAGES)
    single = jax.eval_shape(built(trained).private_loss, fresh(trained), one, jax.random.key(0))
    assert single.shape == () and single.dtype == jnp.float32
    losses, grads = losses_and_grads(trained, IMAGES)
    assert losses.shape == (BATCH,) and np.isfinite(losses).all()
    assert jax.tree.structure(grads) == jax.tree.structure(fresh(trained)["private"])
    for number in range(BATCH):
        assert moves(jax.tree.map(lambda leaf, number=number: leaf[number], grads))


def test_no_image_sees_its_batch_mates(trained):
    mates = Images(*(np.roll(array, 2, axis=0) for array in IMAGES))
    for array, original in zip(mates, IMAGES, strict=True):
        array[3] = original[3]
    one, other = (losses_and_grads(trained, batch) for batch in (IMAGES, mates))
    pick = functools.partial(jax.tree.map, lambda leaf: leaf[3])
    assert same(pick(one), pick(other)) and not same(one, other)


def test_loss_is_a_function_of_pixels_label_and_key(trained):
    reference = losses_and_grads(trained, IMAGES)
    assert same(reference, losses_and_grads(trained, IMAGES))
    others = [
        losses_and_grads(trained, IMAGES._replace(pixels=IMAGES.pixels // 4)),
        losses_and_grads(trained, IMAGES._replace(labels=(IMAGES.labels + 1) % NUM_CLASSES)),
    ]
    for losses, _ in others:
        assert (losses != reference[0]).all()
    redrawn = losses_and_grads(trained, IMAGES, seed=2)
    assert same(redrawn, reference) if trained in DRAWS_NOTHING else (redrawn[0] != reference[0]).all()


def test_public_loss_trains_public_parameters(name):
    if built(name).public_loss is None:
        pytest.skip("no public loss")
    params = fresh(name)
    value, grads = public_value_and_grad(name)(params["public"], params["private"], jax.random.key(0))
    assert value.shape == () and value.dtype == jnp.float32 and np.isfinite(value)
    assert moves(grads)


def test_samples_are_images_and_a_function_of_params_and_key(name):
    sample, params = built(name).sample, usable(name)
    images = sample(params, jax.random.key(2), 13, {})
    assert images.pixels.shape == (13, *SHAPE) and images.pixels.dtype == np.uint8
    assert images.labels.shape == (13,) and images.labels.dtype == np.int32
    assert sorted(np.bincount(images.labels, minlength=NUM_CLASSES)) == [4, 4, 5]
    assert same(images, sample(params, jax.random.key(2), 13, {}))
    assert (images.pixels != sample(params, jax.random.key(3), 13, {}).pixels).any()
    assert len(np.unique(images.pixels.reshape(13, -1), axis=0)) > 1


def test_a_label_that_is_exact_holds(name):
    generator = built(name)
    exact = generator.exact_conditions((0,))
    assert set(exact) <= {0} and generator.exact_conditions(()) == ()
    if exact:
        fixed = generator.sample(usable(name), jax.random.key(4), 7, {0: 1})
        assert (fixed.labels == 1).all() and fixed.pixels.shape == (7, *SHAPE)
    with pytest.raises(ValueError):
        generator.sample(usable(name), jax.random.key(4), 7, {1: 1})


@pytest.mark.parametrize("shape", OTHER_SHAPES, ids=str)
def test_images_of_any_size_fit(name, shape):
    generator = IMAGE_GENERATORS[name](image_shape=shape, num_classes=NUM_CLASSES, **SMALLER.get(name, {}))
    example = Images(jax.ShapeDtypeStruct(shape, jnp.uint8), jax.ShapeDtypeStruct((), jnp.int32))
    params, key = jax.eval_shape(generator.init, jax.random.key(0)), jax.eval_shape(lambda: jax.random.key(0))
    if generator.private_loss is not None:
        assert jax.eval_shape(generator.private_loss, params, example, key).shape == ()
    if generator.public_loss is not None:
        assert jax.eval_shape(generator.public_loss, params, key).shape == ()
    if generator.stages:  # the later ones need what the earlier ones learned
        group, vector = jax.eval_shape(generator.stages[0].embed, params, example)
        assert group.shape == () and len(vector.shape) == 1 and vector.dtype == jnp.float32


def test_a_generator_learns_either_in_steps_or_from_noisy_sums(name):
    generator = built(name)
    assert (generator.private_loss is None) == (name in ONE_SHOT) == bool(generator.stages)
    assert isinstance(generator.stages, tuple)
    if generator.stages:
        assert math.isclose(sum(stage.share for stage in generator.stages), 1.0)
        assert all(stage.share > 0 for stage in generator.stages)
        assert len({stage.name for stage in generator.stages}) == len(generator.stages)


@pytest.mark.parametrize("kind", sorted(ONE_SHOT & set(IMAGE_GENERATORS)))
def test_every_stage_embeds_any_image_and_absorbs_its_noisy_sum(kind):
    extremes = [np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8), *IMAGES.pixels]
    for number, (before, after) in enumerate(itertools.pairwise(learned(kind))):
        stage = built(kind).stages[number]
        embed, vectors = quick_jit(stage.embed), []
        for label, pixels in itertools.product(range(NUM_CLASSES), extremes):
            group, vector = embed(before, Images(pixels, np.int32(label)))
            assert 0 <= int(group) < stage.num_groups and np.isfinite(vector).all()
            vectors.append(np.asarray(vector, np.float64))
        assert np.linalg.norm(vectors, axis=1).max() <= 1 + 1e-5  # the rest would be cut off
        assert set(after) == {"private", "public"} and not same_leaves(after, before)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
        total = noisy_sum(stage, before, seed=number)
        assert same(after, stage.absorb(before, *total, jax.random.key(number)))


@pytest.mark.parametrize("kind", sorted(ONE_SHOT & set(IMAGE_GENERATORS)))
def test_images_can_be_drawn_after_noise_alone(kind):
    params = fresh(kind)
    for number, stage in enumerate(built(kind).stages):
        total, stddev = noisy_sum(stage, params, seed=number, copies=0)
        params = stage.absorb(params, 30.0 * total, 30.0 * stddev, jax.random.key(number))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert built(kind).sample(params, jax.random.key(5), 4, {}).pixels.shape == (4, *SHAPE)


# ---- adversarial and variational networks


def zeros(tree):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)


def first(images):
    return jax.tree.map(lambda array: array[0], images)


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("conditional_gan", "acgan", "vae_gan")]


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp", "beta_vae", *SLOW])
def test_ghost_sums_are_those_of_vmap_and_no_matrix_falls_back(kind):
    shape = (16, 15, 1) if kind == "dcgan" else SHAPE  # two layers that halve it, one of them unevenly
    images = Images(RNG.integers(0, 256, (BATCH, *shape)).astype(np.uint8), IMAGES.labels)
    generator = IMAGE_GENERATORS[kind](image_shape=shape, num_classes=NUM_CLASSES, channels=(2, 4), latent_dim=3)
    params = quick_jit(generator.init)(jax.random.key(0))
    run = quick_jit(
        functools.partial(clipped_grad_sum, generator.private_loss, l2_clip_norm=0.5), static_argnames="method"
    )
    one, other = (run(params, images, np.arange(BATCH) == 2, jax.random.key(1), method=m) for m in ("vmap", "ghost"))
    total = flat(one.grad_sum)
    assert np.linalg.norm(flat(other.grad_sum) - total) <= 1e-5 * np.linalg.norm(total)
    np.testing.assert_allclose(one.nonprivate_norm_sum, other.nonprivate_norm_sum, rtol=1e-5)
    assert int(one.nonprivate_clipped_count) > 0

    keys = jax.random.split(jax.random.key(2), BATCH)
    plan = choose(generator.private_loss, params, images, keys, method="ghost").plan
    matrices = ("Conv_0/kernel",) if kind == "wgan_gp" else ("kernel", "embedding")  # the slope is of the dense kernel
    kernels = {i for i, name in enumerate(plan.names) if name.endswith(matrices)}
    seen = set()
    for piece in (piece for group in plan.groups for piece in group.pieces):
        if piece.node.params & kernels:
            seen |= piece.node.params
            assert all(view.use.kind != "tile" for view in piece.views), plan.lines()
    assert kernels <= seen


@pytest.mark.parametrize("kind", NETWORKS)
def test_losses_in_bfloat16_are_finite_and_convolve_in_bfloat16(kind):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), fresh(kind))
    jaxpr = jax.make_jaxpr(jax.grad(lambda params: built(kind).private_loss(params, first(IMAGES), jax.random.key(0))))
    convolutions = [line for line in str(jaxpr(params)).splitlines() if "= conv_general_dilated[" in line]
    assert convolutions and all("bf16[" in line.split("=")[0] for line in convolutions)
    assert np.isfinite(quick_jit(built(kind).private_loss)(params, first(IMAGES), jax.random.key(0)))


@pytest.mark.parametrize("kind", GANS)
def test_samples_of_a_gan_need_its_public_half_alone(kind):
    params = fresh(kind)
    others = [{**params, "private": zeros(params["private"])}, {**params, "public": zeros(params["public"])}]
    images, same_half, other_half = (built(kind).sample(p, jax.random.key(0), 5, {}).pixels for p in (params, *others))
    assert (images == same_half).all() and (images != other_half).any()


@pytest.mark.parametrize(
    ("kind", "critic_loss", "generator_loss"),
    [
        ("dcgan", 2 * math.log(2), math.log(2)),
        ("conditional_gan", 2.0, 0.0),
        ("acgan", 2 * math.log(2) + 2 * math.log(NUM_CLASSES), math.log(2) + math.log(NUM_CLASSES)),
        ("wgan_gp", 10.0, 0.0),
    ],
)
def test_losses_of_a_critic_that_knows_nothing(kind, critic_loss, generator_loss):
    params = {**fresh(kind), "private": zeros(fresh(kind)["private"])}
    losses, grads = batched(kind)(params["private"], params["public"], IMAGES, jax.random.key(0))
    np.testing.assert_allclose(losses, critic_loss, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    loss, _ = public_value_and_grad(kind)(params["public"], params["private"], jax.random.key(0))
    np.testing.assert_allclose(loss, generator_loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", GANS)
def test_a_critic_step_tells_real_from_fake_and_a_generator_step_fools_it(kind):
    params = fresh(kind)

    def value_and_grad(half, params):
        """Of the mean loss over images, or of the loss of one draw."""
        if half == "private":
            losses, grads = batched(kind)(params["private"], params["public"], IMAGES, jax.random.key(0))
            return losses.mean(), jax.tree.map(lambda leaf: leaf.mean(axis=0), grads)
        return public_value_and_grad(kind)(params["public"], params["private"], jax.random.key(0))

    for half in ("private", "public"):
        loss, grads = value_and_grad(half, params)
        square = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(grads))
        stepped = jax.tree.map(lambda leaf, grad, square=square: leaf - 1e-3 * grad / square, params[half], grads)
        np.testing.assert_allclose(loss - value_and_grad(half, {**params, half: stepped})[0], 1e-3, rtol=0.2)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_the_gradient_penalty_is_that_of_the_slope_between_a_real_and_a_fake_image(scale):
    params = fresh("wgan_gp")
    critic = jax.tree.map(lambda leaf: scale * leaf, params["private"])
    halves = {"private": critic, "public": zeros(params["public"])}  # whose fakes are grey; so is the real image
    example = Images(np.full(SHAPE, 127, np.uint8), np.int32(2))
    without, with_penalty = (
        quick_jit(built("wgan_gp", penalty_weight=weight).private_loss)(halves, example, jax.random.key(0))
        for weight in (0.0, 3.0)
    )
    network = gan_layers.Critic(TINY["channels"], NUM_CLASSES)
    scores = quick_jit(jax.vmap(lambda image: network.apply({"params": critic}, image, 2)[0]))
    steps = np.eye(math.prod(SHAPE), dtype=np.float32).reshape(-1, *SHAPE) * 1e-2
    slope = np.float64(scores(steps - 0.002) - scores(-steps - 0.002)) / 2e-2
    np.testing.assert_allclose(with_penalty - without, 3 * (np.linalg.norm(slope) - 1) ** 2, rtol=2e-3)


def encoder_bias(params, mean, log_variance, output=0.0):
    """Parameters of a VAE that are zero but for the latent's mean and log variance, and the output, of every image."""
    empty = zeros(params["private"])
    empty["encoder"]["Dense_0"]["bias"][:] = [*mean, *log_variance]
    empty["decoder"]["Conv_0"]["bias"][:] = output
    return {"public": {}, "private": empty}


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "learned"])
def test_the_bound_is_that_of_a_constant_decoder_in_closed_form(likelihood):
    settings = {
        "bernoulli": {},
        "gaussian": {"likelihood": "gaussian", "pixel_stddev": 0.3},
        "learned": {"likelihood": "gaussian"},
    }[likelihood]
    generator = built("beta_vae", kl_weight=2.5, **settings)
    mean, log_variance = np.array([0.5, -1.0, 2.0]), np.array([0.1, -0.7, 0.4])
    params = encoder_bias(jax.eval_shape(generator.init, jax.random.key(0)), mean, log_variance, output=0.7)
    signed = IMAGES.pixels[0] / 127.5 - 1
    white = 1 / (1 + math.exp(-0.7))
    nll = {
        "bernoulli": -np.sum((1 + signed) / 2 * math.log(white) + (1 - signed) / 2 * math.log(1 - white)),
        "gaussian": -norm.logpdf(signed, math.tanh(0.7), 0.3).sum(),
        "learned": -norm.logpdf(signed, math.tanh(0.7), 1.0 + 2 / 255).sum(),
    }[likelihood]
    divergence = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum()
    loss = quick_jit(generator.private_loss)(params, first(IMAGES), jax.random.key(1))
    np.testing.assert_allclose(loss, nll + 2.5 * divergence, rtol=1e-5)


@pytest.mark.parametrize(("likelihood", "stddev"), [("bernoulli", 127.5), ("gaussian", 0.2 * 127.5)])
def test_drawn_pixels_have_the_stated_scale_and_means_have_none(likelihood, stddev):
    fixed = {"pixel_stddev": 0.2} if likelihood == "gaussian" else {}
    generator = built("beta_vae", likelihood=likelihood, draws_pixels=True, **fixed)
    params = {"private": zeros(fresh("beta_vae")["private"]), "public": {}}
    drawn = generator.sample(params, jax.random.key(0), 250, {}).pixels.astype(np.float64)  # 16,000 of them
    assert abs(drawn.mean() - 127.5) < 5 * stddev / math.sqrt(drawn.size) + 0.5
    assert abs(drawn.std() - stddev) < 5 * stddev / math.sqrt(2 * drawn.size)
    means = built("beta_vae").sample(params, jax.random.key(0), 250, {}).pixels
    assert (means == means[0, 0, 0]).all()


def test_an_unconditional_vae_does_not_see_the_label():
    generator = built("beta_vae", conditional=False)
    params, loss = quick_jit(generator.init)(jax.random.key(0)), quick_jit(generator.private_loss)
    losses = [loss(params, first(IMAGES)._replace(labels=np.int32(k)), jax.random.key(1)) for k in range(2)]
    assert losses[0] == losses[1] and generator.exact_conditions((0,)) == ()
    encode = beta_vae.make_encoder(image_shape=SHAPE, num_classes=NUM_CLASSES, conditional=False, **TINY)
    latents = quick_jit(jax.vmap(encode, in_axes=(None, 0)))
    mean, log_variance = latents(params, IMAGES)
    assert mean.shape == log_variance.shape == (BATCH, TINY["latent_dim"]) and (mean[0] != mean[1]).all()
    known = latents(encoder_bias(params, [1.0, 2.0, 3.0], [0.0, -1.0, -2.0]), IMAGES)
    np.testing.assert_array_equal(known, np.tile([[[1.0, 2.0, 3.0]], [[0.0, -1.0, -2.0]]], (1, BATCH, 1)))


def test_each_part_of_the_vae_gan_loss_reaches_its_own_network_alone():
    private = fresh("vae_gan")["private"]
    dense = private["critic"]["Dense_0"]

    @functools.cache
    def grad(adversarial_weight, kl_weight):
        loss = built("vae_gan", adversarial_weight=adversarial_weight, kl_weight=kl_weight).private_loss
        return quick_jit(jax.grad(lambda own: loss({"private": own, "public": {}}, first(IMAGES), jax.random.key(3))))

    def grads(adversarial_weight, kl_weight=1.0, score=1.0):
        """By network; the critic's score, but none of its features, is multiplied by `score`."""
        scored = {**private["critic"], "Dense_0": jax.tree.map(lambda leaf: score * leaf, dense)}
        by_network = grad(adversarial_weight, kl_weight)({**private, "critic": scored})
        return {name: flat(part) for name, part in by_network.items()}

    def differ(one, other):
        return {name for name in one if not np.allclose(one[name], other[name], rtol=1e-4, atol=1e-7)}

    plain = grads(0.0)
    assert differ(plain, grads(5.0)) == {"decoder"}
    assert differ(plain, grads(0.0, kl_weight=5.0)) == {"encoder"}
    assert differ(plain, grads(0.0, score=7.0)) == {"critic"}
    blind = grads(0.0, score=0.0)  # a constant score: nothing to learn but its last layer
    of_features = slice(flat(dense).size, None)
    assert (blind["critic"][of_features] == 0).all() and (plain["critic"][of_features] != 0).any()


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        *((kind, {"channels": ()}, r"channels \(\) must be a list of whole numbers") for kind in NETWORKS),
        *((kind, {"latent_dim": 0}, "latent_dim 0 must be a whole number, at least 1") for kind in NETWORKS),
        *((kind, {"image_shape": (3, 8, 1)}, r"image_shape \(3, 8, 1\) must be") for kind in NETWORKS),
        ("dcgan", {"channels": (8, 0)}, r"channels \(8, 0\) must be"),
        ("dcgan", {"generator_channels": (0,)}, r"channels \(0,\) must be"),
        ("dcgan", {"num_classes": 0}, "num_classes 0 must be at least 1"),
        ("acgan", {"class_weight": -1.0}, "class_weight -1.0 must be a finite number, 0 or more"),
        ("wgan_gp", {"penalty_weight": float("nan")}, "penalty_weight nan must be"),
        ("beta_vae", {"kl_weight": float("inf")}, "kl_weight inf must be"),
        ("beta_vae", {"likelihood": "laplace"}, "likelihood 'laplace' must be one of bernoulli, gaussian"),
        ("beta_vae", {"pixel_stddev": 0.1}, "pixel_stddev 0.1 must be above 0, and belongs to the gaussian"),
        ("beta_vae", {"likelihood": "gaussian", "pixel_stddev": 0.0}, "pixel_stddev 0.0 must be above 0"),
        ("vae_gan", {"adversarial_weight": -0.5}, "adversarial_weight -0.5 must be"),
    ],
)
def test_bad_arguments_are_named(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        IMAGE_GENERATORS[kind](**{"image_shape": SHAPE, "num_classes": NUM_CLASSES, **arguments})


def test_channels_may_be_a_list_as_saved_settings_hold_them():
    shapes = lambda generator: jax.eval_shape(generator.init, jax.random.key(0))  # noqa: E731
    listed = built.__wrapped__("dcgan", channels=list(TINY["channels"]), image_shape=list(SHAPE))
    plain, wider = built("dcgan"), built("dcgan", generator_channels=(16, 16))
    assert shapes(listed) == shapes(plain)
    assert shapes(wider)["private"] == shapes(plain)["private"]
    assert shapes(wider)["public"] != shapes(plain)["public"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_it_learns_handwritten_digits(kind):
    """Without noise: a classifier of real digits names the labels of most samples."""
    digits = load_digits()
    images = Images(np.round(digits.images * 255 / 16).astype(np.uint8)[..., None], digits.target.astype(np.int32))
    generator = IMAGE_GENERATORS[kind](image_shape=SHAPE, num_classes=10, channels=(32, 64), latent_dim=16)
    params, optimizer = generator.init(jax.random.key(0)), optax.adam(1e-3, b1=0.5)
    states, rng = {half: optimizer.init(params[half]) for half in params}, np.random.default_rng(0)

    @jax.jit
    def step(params, states, batch, key):
        keys = jax.random.split(key, 2 * 128).reshape(2, 128)
        losses = {"private": lambda p: jax.vmap(generator.private_loss, in_axes=(None, 0, 0))(p, batch, keys[0]).mean()}
        if generator.public_loss is not None:
            losses["public"] = lambda p: jax.vmap(generator.public_loss, in_axes=(None, 0))(p, keys[1]).mean()
        for half, loss in losses.items():
            updates, state = optimizer.update(jax.grad(loss)(params)[half], states[half])
            params = {**params, half: optax.apply_updates(params[half], updates)}
            states = {**states, half: state}
        return params, states

    for number in range(800):
        rows = rng.integers(0, len(images.labels), 128)
        batch = Images(images.pixels[rows], images.labels[rows])
        params, states = step(params, states, batch, jax.random.fold_in(jax.random.key(1), number))
    classify = LogisticRegression(max_iter=1000).fit(images.pixels.reshape(-1, 64) / 255.0, images.labels)
    samples = generator.sample(params, jax.random.key(2), 500, {})
    assert classify.score(samples.pixels.reshape(-1, 64) / 255.0, samples.labels) > 0.6
