"""Synthetic images against real ones: distances, neighbours and nets with a known answer, and the whole evaluation."""

import dataclasses
import gzip
import io
import itertools
import json
import math
import operator
import os
import sys
import types
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from privsyn_jax.evaluation import headline
from privsyn_jax.evaluation.downstream import orders, resamples
from privsyn_jax.evaluation.images import classifiers, evaluate_images, grid_png, neighbours, nets, utility
from privsyn_jax.evaluation.images.coverage import coverage_metrics
from privsyn_jax.evaluation.images.features import custom_features, random_features
from privsyn_jax.evaluation.images.frechet import frechet_distance, kernel_distance, moments
from privsyn_jax.evaluation.images.neighbours import nearest, neighbour_rows
from privsyn_jax.evaluation.images.pixels import pixel_rows
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Images, ImageSchema, UserError

SCHEMA = ImageSchema((8, 8, 1), ("left", "right", "both"), num_records=240)
SETTINGS = EvaluationSettings(classifier_steps=30, classifier_shifts=False)
ROW_KEYS = {"family", "metric", "value", "reference", "higher_is_better", "column", "seed"}


def toy(num_images, seed, shape=(8, 8, 1)):
    """Noise, with a bright left half (class 0), right half (1) or both (2)."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images) % 3).astype(np.int32)
    pixels = rng.integers(0, 120, (num_images, *shape))
    middle = shape[1] // 2
    pixels[labels != 1, :, :middle] += 100
    pixels[labels != 0, :, middle:] += 100
    return Images(pixels.astype(np.uint8), labels)


TRAIN, TEST, SYNTHETIC = toy(240, 0), toy(120, 1), toy(120, 2)


def covariance(rng, dimension, rank):
    factor = rng.normal(size=(rank, dimension)) * np.geomspace(1, 0.01, dimension)[None, :]
    return factor.T @ factor / rank, factor / math.sqrt(rank)


@pytest.mark.parametrize("dimension", [1, 5, 64])
def test_frechet_distance_equals_scipy(dimension):
    rng = np.random.default_rng(dimension)
    (cov1, _), (cov2, _) = (covariance(rng, dimension, 2 * dimension) for _ in range(2))
    mean1, mean2 = rng.normal(size=(2, dimension))
    root = np.real(scipy.linalg.sqrtm(cov1 @ cov2))
    expected = np.square(mean1 - mean2).sum() + np.trace(cov1 + cov2 - 2 * root)
    assert frechet_distance(mean1, cov1, mean2, cov2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ranks", [(10, 10), (10, 200), (1, 3)])
def test_frechet_distance_of_singular_covariances(ranks):
    """tr (C1 C2)^(1/2) is the sum of singular values of F1 F2', where C = F' F: no root of a matrix is taken."""
    rng = np.random.default_rng(0)
    (cov1, factor1), (cov2, factor2) = (covariance(rng, 64, rank) for rank in ranks)
    shared = np.linalg.svd(factor1 @ factor2.T, compute_uv=False).sum()
    expected = np.trace(cov1) + np.trace(cov2) - 2 * shared
    assert frechet_distance(np.zeros(64), cov1, np.zeros(64), cov2) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_two_gaussians_in_closed_form():
    stddev1, stddev2, shift = np.array([1.0, 2.0, 0.0]), np.array([3.0, 2.0, 1.0]), np.array([0.5, 0.0, -1.0])
    rotation = scipy.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    covs = [rotation @ np.diag(stddev**2) @ rotation.T for stddev in (stddev1, stddev2)]
    found = frechet_distance(np.zeros(3), covs[0], shift, covs[1])
    assert found == pytest.approx(np.square(stddev1 - stddev2).sum() + np.square(shift).sum())


@pytest.mark.parametrize("num_samples", [20, 500])
def test_frechet_distance_of_a_set_from_itself_and_from_itself_moved(num_samples):
    features = np.random.default_rng(0).normal(size=(num_samples, 64)).astype(np.float32)
    mean, cov = moments(features)
    np.testing.assert_allclose(cov, np.cov(features.T.astype(np.float64)), atol=1e-12)
    assert frechet_distance(mean, cov, mean, cov) == pytest.approx(0.0, abs=1e-5)
    assert frechet_distance(*moments(features + 0.5), mean, cov) == pytest.approx(64 * 0.25, rel=1e-5)


def brute_force_mmd(x, y):
    def kernel(a, b):
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    n = len(x)
    within = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(n) for j in range(n) if i != j)
    return within / (n * (n - 1)) - 2 * sum(kernel(a, b) for a in x for b in y) / n**2


def test_kernel_distance_equals_a_double_loop_over_blocks():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 3)), rng.normal(0.5, 2.0, size=(31, 3))
    blocks = [brute_force_mmd(x[i : i + 12], y[i : i + 12]) for i in (0, 12)]
    found = kernel_distance(x, y, block_size=12)
    assert found.value == pytest.approx(np.mean(blocks), rel=1e-9)
    assert found.standard_error == pytest.approx(abs(blocks[0] - blocks[1]) / 2, rel=1e-9)
    whole = kernel_distance(x, y)
    assert whole.value == pytest.approx(brute_force_mmd(x, y[:25]), rel=1e-9) and math.isnan(whole.standard_error)


def test_kernel_distance_is_unbiased():
    """Blocks as small as 5, where the biased estimate would be far above 0."""
    rng = np.random.default_rng(0)
    same = kernel_distance(*rng.normal(size=(2, 3000, 4)), block_size=5)
    assert abs(same.value) < 4 * same.standard_error
    moved = kernel_distance(rng.normal(size=(3000, 4)), rng.normal(0.5, 1.0, size=(3000, 4)), block_size=5)
    assert moved.value > 8 * moved.standard_error


def trained(images, *, name="small_cnn", num_steps=30, max_shift=0, seed=0):
    net = nets.NETS[name](num_classes=3)
    key = jax.random.key(seed)
    return net, classifiers.train_classifier(net, images, num_steps=num_steps, max_shift=max_shift, key=key)


def accuracy(net, params, images):
    return float(np.mean(classifiers.predict(net, params, images.pixels)[1].argmax(axis=1) == images.labels))


@pytest.mark.parametrize("name", nets.NETS)
def test_nets_learn_what_can_be_learned(name):
    assert accuracy(*trained(TRAIN, name=name), TEST) > 0.95


def test_nets_learn_nothing_from_shuffled_labels():
    labels = np.random.default_rng(0).permutation(TRAIN.labels)
    assert accuracy(*trained(TRAIN._replace(labels=labels)), TEST) < 0.65  # chance is a third


def test_training_is_fixed_by_its_key():
    outputs = []
    for seed in (0, 0, 1):
        net, params = trained(TRAIN, seed=seed)
        outputs.append(classifiers.predict(net, params, TEST.pixels)[1])
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3


def test_an_image_is_judged_alone():
    net, params = trained(TRAIN)
    features, probabilities = classifiers.predict(net, params, TEST.pixels)
    alone = classifiers.predict(net, params, TEST.pixels[7:8])
    np.testing.assert_allclose(alone[0][0], features[7], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    assert features.shape == (len(TEST.labels), nets.FEATURE_DIM)


def test_fewer_images_than_a_batch_are_all_used():
    few = Images(TRAIN.pixels[:3], np.arange(3, dtype=np.int32))
    assert accuracy(*trained(few), few) == 1.0


def test_shifts_move_an_image_and_nothing_else():
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 1)).astype(np.uint8)
    moved = np.asarray(classifiers._shifted(images, jax.random.key(0), 2))
    places = []
    for image, found in zip(images, moved, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
        windows = [(y, x) for y in range(5) for x in range(5) if (padded[y : y + 6, x : x + 6] == found).all()]
        assert len(windows) == 1
        places += windows
    assert len(set(places)) > 5


def test_nets_of_seeds_are_those_trained_alone(monkeypatch):
    """A net feels nothing of the others, whether they are trained one after another or all at once."""
    net, key = nets.SmallCNN(num_classes=3), jax.random.key(0)
    batches = orders(resamples(240, 1, seed=0), num_steps=4, batch_size=classifiers.BATCH_SIZE, seed=0)
    at_once = classifiers._all_at_once(net, TRAIN, batches, *classifiers._keys_of_nets(key, num_nets=2), max_shift=1)
    monkeypatch.setattr(classifiers, "_all_at_once", None)  # too slow for a CPU, which must do without
    after_another = classifiers.train_classifiers(net, TRAIN, batches, max_shift=1, key=key)
    keys, outputs = zip(*classifiers._keys_of_nets(key, num_nets=2), strict=True), []
    for number, (init_key, shifts) in enumerate(keys):
        params = nets.initial_params(init_key, net=net, shape=SCHEMA.shape)
        state = params, classifiers._optimizer(4).init(params)
        for step, batch in enumerate(batches[number]):
            shift_key = jax.random.fold_in(shifts, step)
            of_batch = TRAIN.pixels[batch], TRAIN.labels[batch], shift_key
            state = classifiers._train_step(state, *of_batch, net=net, num_steps=4, max_shift=1)
        outputs.append(classifiers.predict(net, state[0], TEST.pixels)[1])
        for stacked in (after_another, at_once):
            found = classifiers.predict(net, jax.tree.map(operator.itemgetter(number), stacked), TEST.pixels)[1]
            np.testing.assert_allclose(found, outputs[-1], atol=1e-3)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_nets_see_every_size_on_a_small_grid(shape):
    for make in nets.NETS.values():
        net = make(num_classes=10)
        params = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, *shape), np.float32))
        features, logits = jax.eval_shape(net.apply, params, np.zeros((5, *shape), np.float32))
        assert features.shape == (5, nets.FEATURE_DIM) and logits.shape == (5, 10)
        assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) < 2.5e6


def test_nearest_equals_brute_force(monkeypatch):
    monkeypatch.setattr(neighbours, "_CHUNK", 16)
    rng = np.random.default_rng(0)
    queries, candidates = (rng.integers(0, 256, (n, 4, 5, 3)).astype(np.uint8) for n in (23, 50))
    queries[3] = candidates[49]
    distances = np.square(queries[:, None].astype(int) - candidates[None]).sum(axis=(2, 3, 4))
    found = nearest(queries, candidates)
    np.testing.assert_array_equal(found.index, distances.argmin(axis=1))
    np.testing.assert_array_equal(found.distance, distances.min(axis=1))
    assert found.distance[3] == 0


def by_name(rows):
    return {row["metric"]: row for row in rows.metrics if row["column"] is None}


def test_copies_are_counted():
    pixels = SYNTHETIC.pixels.copy()
    pixels[:30], pixels[30:36] = TRAIN.pixels[:30], pixels[36]
    rows = by_name(neighbour_rows(TRAIN, TEST, SYNTHETIC._replace(pixels=pixels), seed=0)[0])
    assert rows["copy_of_training_rate"]["value"] == 30 / 120 and rows["copy_of_training_rate"]["reference"] == 0
    assert rows["repeated_image_rate"]["value"] == pytest.approx(6 / 120)


def test_memorised_images_are_nearer_to_training_images():
    noise = np.random.default_rng(3).integers(-5, 6, TRAIN.pixels.shape)
    memorised = Images(np.clip(TRAIN.pixels + noise, 0, 255).astype(np.uint8), TRAIN.labels)
    honest, leaking = (by_name(neighbour_rows(TRAIN, TEST, images, seed=0)[0]) for images in (SYNTHETIC, memorised))
    rows = honest["nearer_to_training_rate"], leaking["nearer_to_training_rate"]
    assert all(abs(row["reference"] - 0.5) < 4 * 0.5 / math.sqrt(120) for row in rows)
    assert abs(rows[0]["value"] - 0.5) < 4 * 0.5 / math.sqrt(120)
    assert rows[1]["value"] > 0.7  # half of the training images are compared with: 0.75


def decoded(png):
    return np.round(255 * matplotlib.image.imread(io.BytesIO(png))[..., :3]).astype(np.uint8)


def test_the_most_suspicious_image_comes_first():
    pixels = SYNTHETIC.pixels.copy()
    pixels[77] = TRAIN.pixels[200]
    _, png = neighbour_rows(TRAIN, TEST, SYNTHETIC._replace(pixels=pixels), seed=0)
    picture = decoded(png)
    assert picture.shape == (3 * 52 + 4, 12 * 52 + 4, 3)
    synthetic, training, heldout = (picture[y : y + 48 : 6, 4 : 4 + 48 : 6, :1] for y in (4, 56, 108))
    np.testing.assert_array_equal(synthetic, TRAIN.pixels[200])
    np.testing.assert_array_equal(training, TRAIN.pixels[200])
    assert any((heldout == image).all() for image in TEST.pixels)


@pytest.mark.parametrize(("shape", "factor"), [((8, 8, 1), 6), ((28, 28, 1), 2), ((32, 32, 3), 2), ((64, 64, 3), 1)])
def test_grid_has_a_row_for_every_class(shape, factor):
    images = toy(30, 0, shape)
    kept = (images.labels != 1) | (np.arange(30) < 8)  # class 1 lacks images
    images = Images(images.pixels[kept], images.labels[kept])
    picture = decoded(grid_png(images, ImageSchema(shape, SCHEMA.classes, 30), per_class=5))
    step = factor * shape[0] + 4
    assert picture.shape == (3 * step + 4, 5 * step + 4, 3)
    for k in range(3):
        of_class = images.pixels[images.labels == k]
        for j in range(5):
            tile = picture[4 + k * step : (k + 1) * step, 4 + j * step : (j + 1) * step]
            if j < len(of_class):
                np.testing.assert_array_equal(tile[::factor, ::factor], np.broadcast_to(of_class[j], (*shape[:2], 3)))
            else:
                assert (tile == 224).all()
    assert (images.labels == 1).sum() < 5


def test_pixel_statistics_against_a_loop_over_classes():
    darker = SYNTHETIC._replace(pixels=(SYNTHETIC.pixels // 2).astype(np.uint8))
    rows, _ = pixel_rows(SCHEMA, TRAIN, TEST, darker, seed=0)
    for metric, statistic in (("class_mean_difference", np.mean), ("class_stddev_difference", np.std)):
        values = []
        for k, name in enumerate(SCHEMA.classes):
            of_synthetic, of_train = (
                statistic(images.pixels[images.labels == k] / 255, axis=0) for images in (darker, TRAIN)
            )
            values.append(np.abs(of_synthetic - of_train).mean())
            (row,) = [r for r in rows.metrics if r["metric"] == metric and r["column"] == name]
            assert row["value"] == pytest.approx(values[-1], rel=1e-5) and row["value"] > row["reference"]
        assert by_name(rows)[metric]["value"] == pytest.approx(np.mean(values), rel=1e-5)


def evaluated(synthetic, *, settings=SETTINGS, train=TRAIN, test=TEST, seed=0):
    evaluation = evaluate_images(SCHEMA, train, test, synthetic, settings=settings, seed=seed)
    json.dumps(evaluation.metrics, allow_nan=False)
    for row in evaluation.metrics:
        assert set(row) == ROW_KEYS and row["family"] in ("utility", "fidelity", "sanity")
        assert type(row["value"]) is float and type(row["reference"]) is float
    names = [(row["metric"], row["column"]) for row in evaluation.metrics]
    assert len(set(names)) == len(names)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in evaluation.skipped)
    assert all(decoded(png).ndim == 3 for png in evaluation.pictures.values())
    return evaluation


@pytest.fixture(scope="module")
def good():
    return evaluated(SYNTHETIC)


@pytest.fixture
def one_net(monkeypatch):
    """Only the net that judges, to save time."""
    monkeypatch.setattr(utility, "NETS", {"small_cnn": nets.SmallCNN})


def test_good_images_score_like_real_ones(good):
    rows = by_name(good)
    for name in (*nets.NETS, "mean"):
        assert rows[f"{name}_accuracy"]["value"] > 0.95 and rows[f"{name}_accuracy"]["reference"] > 0.95
    accuracies = [rows[f"{name}_accuracy"]["value"] for name in nets.NETS]
    assert rows["mean_accuracy"]["value"] == pytest.approx(np.mean(accuracies))
    assert rows["label_agreement"]["value"] > 0.95
    assert rows["fid_trained_features"]["value"] < 3 * rows["fid_trained_features"]["reference"]
    assert len(good.pictures) == 4 and len(good.skipped) == 1 and "120 images of each kind" in good.skipped[0]
    chosen = [row["metric"] for row in headline(good.metrics)]
    assert chosen == ["mean_accuracy", "fid_trained_features", "label_agreement", *chosen[3:]] and len(chosen) == 5


def test_bad_images_score_badly(good, one_net):
    mislabelled = SYNTHETIC._replace(labels=((SYNTHETIC.labels + 1) % 3).astype(np.int32))
    rows = by_name(evaluated(mislabelled))
    assert rows["mean_accuracy"]["value"] < 0.1 and rows["label_agreement"]["value"] < 0.1
    assert rows["small_cnn_accuracy"]["reference"] == by_name(good)["small_cnn_accuracy"]["reference"]
    noise = SYNTHETIC._replace(pixels=np.random.default_rng(0).permuted(SYNTHETIC.pixels, axis=2))
    for metric in ("fid_trained_features", "kid_trained_features"):
        assert by_name(evaluated(noise))[metric]["value"] > 10 * by_name(good)[metric]["value"]


def test_evaluation_is_fixed_by_its_seed(good, one_net):
    again, other = by_name(evaluated(SYNTHETIC)), by_name(evaluated(SYNTHETIC, seed=1))
    shared = again.keys() - {"mean_accuracy"}  # of one net here, of three there
    assert len(shared) > 8 and all(again[name] == by_name(good)[name] for name in shared)
    assert other["fid_trained_features"]["value"] != again["fid_trained_features"]["value"]


def test_scores_over_seeds_are_tested_against_real_ones(good, one_net):
    settings = dataclasses.replace(SETTINGS, net_seeds=2)
    mislabelled = SYNTHETIC._replace(labels=((SYNTHETIC.labels + 1) % 3).astype(np.int32))
    found = evaluated(mislabelled, settings=settings)
    json.dumps(found.tests, allow_nan=False)
    assert good.tests == {} and by_name(found).keys() <= by_name(good).keys()
    assert by_name(found)["label_agreement"]["reference"] == by_name(good)["label_agreement"]["reference"]
    names = [tuple(row[field] for field in ("model", "trained_on", "metric")) for row in found.tests["scores"]]
    sources = ("synthetic", "real", "real_plus_synthetic")
    expected = [*itertools.product(["small_cnn"], sources, utility.METRICS)]
    assert names == [*expected, *itertools.product(["mean_of_nets"], sources, ["accuracy"])]
    assert all(len(row["values"]) == 2 and row["low"] <= row["mean"] <= row["high"] for row in found.tests["scores"])
    assert len(found.tests["against_real"]) == 8 and found.tests["num_seeds"] == 2
    for row in found.tests["against_real"]:
        if row["trained_on"] == "synthetic":
            assert row["difference"] < -0.8  # real ones are all but certain, these wrong
    for row in found.tests["scores"]:
        if row["trained_on"] == "synthetic" and row["model"] == "small_cnn":
            assert row["value"] == by_name(found)[f"small_cnn_{row['metric']}"]["value"]


@pytest.mark.parametrize("kept", ["a class is absent", "one class", "two images", "one image"])
def test_what_a_generator_lacks_is_said(kept, one_net):
    chosen = {
        "a class is absent": SYNTHETIC.labels != 1,
        "one class": SYNTHETIC.labels == 2,
        "two images": np.arange(120) < 2,
        "one image": np.arange(120) < 1,
    }[kept]
    synthetic = Images(SYNTHETIC.pixels[chosen], SYNTHETIC.labels[chosen])
    evaluation = evaluated(synthetic)
    absent = set(range(3)) - set(synthetic.labels.tolist())
    for k in absent:
        assert any("synthetic image" in sentence and SCHEMA.classes[k] in sentence for sentence in evaluation.skipped)
    assert ("fid_trained_features" in by_name(evaluation)) == (kept != "one image")
    assert by_name(evaluation)["mean_accuracy"]["value"] < 0.8


def test_random_features_do_not_depend_on_images(one_net):
    first, again = (random_features((8, 8, 1)).function(TEST.pixels) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    settings = dataclasses.replace(SETTINGS, features="random", feature_images=50)
    evaluation = evaluated(SYNTHETIC, settings=settings)
    assert "50 images of each kind" in evaluation.skipped[0] and "random weights" in evaluation.skipped[0]
    assert headline(evaluation.metrics)[1]["metric"] == "fid_random_features"


def test_your_own_features(monkeypatch):
    module = types.ModuleType("own_features")
    module.flat = lambda pixels: pixels.reshape(len(pixels), -1) / 255  # type: ignore[attr-defined]
    module.bad = lambda pixels: pixels  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_features", module)
    found = custom_features("own_features:flat").function(np.repeat(TEST.pixels, 9, axis=0))
    np.testing.assert_allclose(found, np.repeat(TEST.pixels, 9, axis=0).reshape(-1, 64) / 255)
    with pytest.raises(UserError, match=r"own_features:bad.*return finite floats"):
        custom_features("own_features:bad").function(TEST.pixels)
    for path in ("own_features:absent", "no_such_module:f", ":f"):
        with pytest.raises(UserError, match="cannot be imported"):
            custom_features(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": SYNTHETIC.pixels[:0], "labels": SYNTHETIC.labels[:0]}, "no synthetic images"),
        ({"pixels": SYNTHETIC.pixels[:, :7]}, "give uint8"),
        ({"pixels": SYNTHETIC.pixels / 255}, "give uint8"),
        ({"labels": SYNTHETIC.labels[1:]}, "give uint8"),
        ({"labels": SYNTHETIC.labels + 1}, "labels run from 1 to 3"),
    ],
)
def test_images_that_do_not_conform_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        evaluate_images(SCHEMA, TRAIN, TEST, SYNTHETIC._replace(**change), settings=SETTINGS, seed=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", "inception"),
        ("features", "a:b:c"),
        ("feature_images", 1),
        ("classifier_steps", 0),
        ("net_seeds", 1),
        ("net_seeds", -2),
    ],
)
def test_settings_are_checked(name, value):
    with pytest.raises(UserError, match=f"evaluation.{name}"):
        settings_from_dict({"evaluation": {name: value}})


@pytest.mark.slow
def test_nets_reach_their_accuracy_on_mnist():
    folder = Path(os.environ.get("PRIVSYN_DATA_DIR", Path(__file__).parents[2] / "shared" / "data")) / "mnist"
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("the MNIST files are absent: set PRIVSYN_DATA_DIR to the folder that holds mnist/")

    def read(part):
        pixels, labels = (
            np.frombuffer(gzip.decompress((folder / f"{part}-{name}-ubyte.gz").read_bytes()), np.uint8)[header:]
            for name, header in (("images-idx3", 16), ("labels-idx1", 8))
        )
        return Images(pixels.reshape(-1, 28, 28, 1), labels.astype(np.int32))

    train, test = read("train"), read("t10k")
    for make in nets.NETS.values():
        net = make(num_classes=10)
        params = classifiers.train_classifier(net, train, num_steps=1000, max_shift=2, key=jax.random.key(0))
        assert accuracy(net, params, test) > 0.98


def test_precision_and_recall_agree_with_counting_balls():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(40, 3)), rng.normal(1.5, 0.8, (30, 3))

    def radii(points):
        return np.sort(cdist(points, points), axis=1)[:, 4]  # the 0th is the point itself

    across = cdist(real, synthetic)
    in_real, in_synthetic = across <= radii(real)[:, None], across <= radii(synthetic)[None, :]
    found = coverage_metrics(real.astype(np.float32), synthetic.astype(np.float32), num_neighbours=4)
    expected = [in_real.any(0).mean(), in_synthetic.any(1).mean(), in_real.sum(0).mean() / 4, in_real.any(1).mean()]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert 0 < found.precision < 1 and 0 < found.recall < 1


def test_a_collapsed_generator_has_precision_without_recall():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(200, 4)).astype(np.float32)
    same = coverage_metrics(real, real)
    assert same.precision == same.recall == same.coverage == 1
    collapsed = np.repeat(real[np.abs(real).sum(axis=1).argmin()][None], 200, axis=0)
    found = coverage_metrics(real, collapsed + rng.normal(0, 1e-3, real.shape).astype(np.float32))
    assert found.precision == 1 and found.recall < 0.05 and found.coverage < 0.1
    with pytest.raises(ValueError, match="more than num_neighbours = 5"):
        coverage_metrics(real[:5], real)
