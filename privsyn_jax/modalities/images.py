"""Labelled images: nothing is fitted beforehand, generators learn bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from privsyn_jax import report
from privsyn_jax.data.images.own import read_synthetic
from privsyn_jax.data.images.schema import image_schema_to_dict
from privsyn_jax.data.procedural import procedural_images
from privsyn_jax.evaluation.attacks import IMAGE_ATTACKS, attack_images
from privsyn_jax.evaluation.images import evaluate_images
from privsyn_jax.evaluation.images.grid import grid_png
from privsyn_jax.files import write_bytes, write_json
from privsyn_jax.modalities.modality import Modality
from privsyn_jax.models import IMAGE_GENERATORS, make_of
from privsyn_jax.one_shot import NoisySums, absorb, image_buyer
from privsyn_jax.plan import Plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.settings import Settings
from privsyn_jax.synthesis.conditions import parse_conditions
from privsyn_jax.synthesis.labelled import refuse_constraints, synthesize, wanted_classes
from privsyn_jax.training.purchases import Purchases
from privsyn_jax.training.stages import buy_stages
from privsyn_jax.training.warm_up import warm_up
from privsyn_jax.transforms.images import ImageTransform
from privsyn_jax.types import Generator, Images, ImageSchema, Params, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE


def check(schema: ImageSchema, settings: Settings) -> None:
    """Raises UserError for conditions, a generator or a rule that do not fit the schema."""
    wanted_classes(schema, parse_conditions(settings.synthesis.conditions))
    refuse_constraints(settings.synthesis.constraints)
    generator = build(settings, ImageTransform(schema))
    if settings.privacy.adaptive.rule == "loss":
        raise UserError(
            "privacy.adaptive.rule='loss' needs a loss with a public bound, which image generators do not have: "
            "use another rule"
        )
    if generator.private_loss is None and settings.warm_start.images:
        raise UserError(
            f"warm_start.images is {settings.warm_start.images!r}, but model.name={settings.model['name']!r} takes no "
            "steps that could start warm: set it to ''"
        )


def buy(
    images: Private[Images], schema: ImageSchema, plan: Plan, settings: Settings, ledger: Ledger, noise: HostNoise
) -> Purchases:
    """The noisy sums that a one-shot generator learns from, or that a warm start is drawn from; or nothing."""
    transform, buyer = ImageTransform(schema), image_buyer(settings, schema)
    if buyer is None:
        return Purchases(transform, None)
    bought = buy_stages(
        buyer.generator,
        images,
        plan=plan,
        seed=settings.seed,
        ledger=ledger,
        noise=noise,
        what="all images and labels",
    )
    return Purchases(transform, bought)


def build(settings: Settings, transform: ImageTransform) -> Generator:
    """The generator named by the settings, for images of the schema's shape and classes.

    Raises:
      UserError: an argument that the generator refuses.
    """
    arguments, schema = dict(settings.model), transform.schema
    make = make_of(arguments.pop("name"))
    try:
        return make(image_shape=schema.shape, num_classes=len(schema.classes), **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"the section model of the settings does not fit: {error}") from None


def warm_up_of(
    generator: Generator, settings: Settings, bought: Purchases, announce: Callable[[str], None]
) -> Callable[[Params], Params] | None:
    """What `dp_sgd.train` calls before its first step."""
    if not settings.warm_start.kinds:
        return None

    def run(params: Params) -> Params:
        announce(f"warm start on {' and '.join(settings.warm_start.kinds)} images")
        return warm_up(generator, params, _warm_images(settings, bought), settings)

    return run


def _warm_images(settings: Settings, bought: Purchases) -> Iterator[tuple[str, Images]]:
    """Public and released images, in the order that they are learned from."""
    schema, warm = bought.transform.schema, settings.warm_start
    assert isinstance(schema, ImageSchema)
    for kind in warm.kinds:
        if kind == "procedural":
            images = procedural_images(
                schema.shape, warm.num_images, num_classes=len(schema.classes), seed=settings.seed
            )
        else:
            buyer = image_buyer(settings, schema)
            assert buyer is not None and isinstance(bought.released, NoisySums)
            params = absorb(buyer.generator, bought.released, seed=settings.seed)
            images = buyer.generator.sample(params, jax.random.key(settings.seed), warm.num_images, {})
        yield kind, images


def random_records(settings: Settings, schema: ImageSchema, rng: np.random.Generator) -> tuple[Generator, Images]:
    pixels = rng.integers(0, 256, (schema.num_records, *schema.shape), np.uint8)
    labels = rng.integers(0, len(schema.classes), schema.num_records, np.int32)
    return build(settings, ImageTransform(schema)), Images(pixels, labels)


def write(images: Images, schema: ImageSchema, folder: Path) -> None:
    """Arrays as `data.name=images` reads them, and a picture of some of them."""
    np.savez_compressed(
        folder / "synthetic.npz", images=images.pixels, labels=images.labels, classes=np.array(schema.classes)
    )
    write_bytes(folder / "grid.png", grid_png(images, schema))


def evaluate(
    run: Any,
    train: Images,
    test: Images,
    synthetic: Images,
    schema: ImageSchema,
    settings: Settings,
    folder: Path,
    announce: Callable[[str], None],
) -> None:
    del run
    of_images = settings.evaluation
    result = evaluate_images(schema, train, test, synthetic, settings=of_images, seed=settings.seed, announce=announce)
    write_json(folder / "metrics.json", result.metrics)
    names = {}
    for number, (caption, png) in enumerate(result.pictures.items()):
        names[caption] = f"picture_{number}.png"
        write_bytes(folder / names[caption], png)
    details = {"notice": PRIVATE_NOTICE, "pictures": names, "skipped": result.skipped, "tests": result.tests}
    write_json(folder / "details.json", details)


def metrics_of(run: Any, schema: ImageSchema, train: Images, test: Images, synthetic: Images, settings: Settings):
    del run
    return evaluate_images(schema, train, test, synthetic, settings=settings.evaluation, seed=settings.seed).metrics


def render(
    common: Mapping[str, Any], train: Images, test: Images, synthetic: Images, schema: ImageSchema, folder: Path
) -> str:
    details = {"pictures": {}, "skipped": ["the evaluation was switched off"]}
    if common["metrics"]:
        details = json.loads((folder / "details.json").read_text())
    return report.render_image_page(
        report.ImagePageData(
            **common,
            pictures={caption: (folder / name).read_bytes() for caption, name in details["pictures"].items()},
            skipped=details["skipped"],
            tests=details.get("tests", {}),
            num_synthetic=len(synthetic.labels),
            num_train=len(train.labels),
            num_test=len(test.labels),
            schema=schema,
        )
    )


IMAGES = Modality(
    name="images",
    generators=IMAGE_GENERATORS,
    check=check,
    buy=buy,
    build_generator=build,
    loss_bound=lambda transform: None,
    warm_up=warm_up_of,
    random_records=random_records,
    synthesize=synthesize,
    finish=lambda images, schema, dtypes: images,
    write=write,
    released_files={"synthetic images": "synthetic.npz", "some of them": "grid.png"},
    read_synthetic=read_synthetic,
    evaluate=evaluate,
    attacks=IMAGE_ATTACKS,
    attack=attack_images,
    render=render,
    metrics=metrics_of,
    schema_to_dict=image_schema_to_dict,
    public_facts=lambda schema: [
        f"the shape of the images, {' x '.join(map(str, schema.shape))}, and the names of the {len(schema.classes)} "
        "classes; synthetic images have all classes equally often, whatever their shares are"
    ],
)
