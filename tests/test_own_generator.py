"""A generator of one's own, by import path: trained like the others, checked, and watched when a run goes on."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import privsyn_jax
from privsyn_jax import ImageSchema, UserError
from privsyn_jax.modalities import IMAGES
from privsyn_jax.models import kind_of, own
from privsyn_jax.models.flat_codes import FlatCodes
from privsyn_jax.settings import model_defaults, settings_from_dict
from privsyn_jax.training.attempt import open_attempt
from privsyn_jax.training.processes import Leader
from privsyn_jax.transforms.images import ImageTransform
from privsyn_jax.types import Column, Generator, Schema

SCHEMA = Schema((Column("a", "categorical", categories=("x", "y", "z")), Column("b", "boolean")), num_records=200)


def make(*, cardinalities, column_order=(), scale=1.0, loss=lambda nats: nats, **more):
    """Independent columns."""
    del column_order
    codes = FlatCodes(tuple(cardinalities))

    def private_loss(params, record, key):
        del key
        logits = scale * params["private"]["logits"]
        return loss(codes.log_normalizers(logits).sum() - jnp.sum(logits * codes.one_hot(record)))

    def sample(params, key, num_samples, conditions=None):
        logits = jnp.tile(scale * jnp.asarray(params["private"]["logits"])[None], (num_samples, 1))
        return np.asarray(codes.draw(logits, key))

    def init(key):
        return {"private": {"logits": 0.0 * jax.random.normal(key, (codes.num_codes,))}, "public": {}}

    whole = {"public_loss": None, "calibrate": None, "exact_conditions": lambda columns: (), **more}
    return Generator(init=init, private_loss=private_loss, sample=sample, **whole)


def table_of(make, *, scale=1.0):
    """`make` with a signature that settings can be read from."""

    def made(*, cardinalities, column_order=(), scale=scale):
        return make(cardinalities=cardinalities, column_order=column_order, scale=scale)

    return made


simple = table_of(make)


def images(*, image_shape, num_classes, width=3):
    def init(key):
        return {"private": {"mean": jax.random.normal(key, image_shape)}, "public": {}}

    def private_loss(params, record, key):
        return jnp.sum(jnp.square(params["private"]["mean"] - record.pixels)) + 0.0 * record.labels

    return Generator(init, private_loss, None, None, lambda *_: None, lambda columns: ())


def texts(*, num_classes, length, frequencies, kinds):
    raise NotImplementedError


not_a_function = 3


def without_default(*, cardinalities, column_order, width):
    raise NotImplementedError


def of_nothing(*, width=3):
    raise NotImplementedError


not_a_generator = table_of(lambda **arguments: 5)
with_calibration = table_of(lambda **arguments: make(**arguments, calibrate=lambda *_: None))
loss_of_many = table_of(lambda **arguments: make(**arguments, loss=lambda nats: jnp.tile(nats[None], 2)))
broken = table_of(lambda **arguments: make(**arguments, loss=lambda nats: nats.no_such_thing))


def fit(name, **arguments):
    frame = pd.DataFrame({"a": ["x", "x", "y", "z"] * 50, "b": [True, False] * 100})
    settings = {"training": {"num_steps": 3, "expected_batch_size": 50}, "privacy": {"seed": 0}, "model": arguments}
    return privsyn_jax.fit(frame, SCHEMA, model=name, settings=settings)


def test_it_is_trained_saved_and_loaded_like_any_other(tmp_path):
    run = fit(f"{__name__}:simple", scale=2.0)
    assert run.privacy["private"] and [entry["name"] for entry in run.privacy["ledger"]] == ["histograms", "training"]
    assert any(warning.startswith("GENERATOR TAKEN ON TRUST") for warning in run.privacy["warnings"])
    run.save(tmp_path / "model")
    again = privsyn_jax.load(tmp_path / "model")
    pd.testing.assert_frame_equal(run.sample(20, seed=1), again.sample(20, seed=1))


def test_its_arguments_are_settings():
    assert model_defaults(f"{__name__}:simple") == {"name": f"{__name__}:simple", "column_order": (), "scale": 1.0}
    assert model_defaults(f"{__name__}:images") == {"name": f"{__name__}:images", "width": 3}
    with pytest.raises(UserError, match=r"unknown setting 'model.scal': did you mean 'model.scale'"):
        fit(f"{__name__}:simple", scal=2.0)


def test_what_it_makes_is_told_by_what_it_takes():
    assert [kind_of(f"{__name__}:{name}") for name in ("simple", "images", "texts")] == ["tables", "images", "texts"]
    with pytest.raises(UserError, match="does not make tables"):
        fit(f"{__name__}:images")


def test_a_generator_of_images_is_built_for_their_shape():
    settings = settings_from_dict({"model": {"name": f"{__name__}:images"}})
    schema = ImageSchema((4, 5, 1), ("cat", "dog"), num_records=10)
    params = IMAGES.build_generator(settings, ImageTransform(schema)).init(jax.random.key(0))
    assert params["private"]["mean"].shape == (4, 5, 1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent_module:make", "cannot be imported"),
        (f"{__name__}:absent", "cannot be imported"),
        (":make", "cannot be imported"),
        (f"{__name__}:not_a_function", "which is no function"),
        (f"{__name__}:without_default", "whose argument 'width' has no default"),
        (f"{__name__}:of_nothing", "takes none of cardinalities, image_shape, frequencies"),
        (f"{__name__}:not_a_generator", "returned int: return a types.Generator"),
        (f"{__name__}:with_calibration", "with calibrate, for which nothing is bought"),
        (f"{__name__}:loss_of_many", "return one float"),
        (f"{__name__}:broken", "fails on one record"),
    ],
)
def test_what_is_none_is_refused_in_one_sentence(name, reason):
    with pytest.raises(UserError, match=reason) as refused:
        fit(name)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_a_run_that_goes_on_knows_whether_its_file_has_changed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = f"my_generator_{tmp_path.name.replace('-', '_')}"
    file, digests = tmp_path / f"{path}.py", []
    for content in ("make = 1\n", "make = 2  # another\n", "make = 1\n"):
        file.write_text(content)
        sys.modules.pop(path, None)
        importlib.invalidate_caches()
        digests.append(own.source_digest(f"{path}:make"))
    assert digests[0] == digests[2] != digests[1]
    sys.modules.pop(path)


def test_an_attempt_depends_on_the_file_of_the_generator(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(own, "source_digest", lambda name: asked.append(name) or "digest")
    for name in ("tvae", f"{__name__}:simple"):
        private = tmp_path / name.replace(":", "_") / "private"
        private.mkdir(parents=True)
        settings = settings_from_dict({"model": {"name": name}})
        with open_attempt(private, settings, leader=Leader(), announce=print):
            pass
    assert asked == [f"{__name__}:simple"]
