"""Texts, labelled or not: a public or a bought vocabulary, released counts of words, generators of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from privsyn_jax import report
from privsyn_jax.data.texts.own import read_synthetic
from privsyn_jax.data.texts.schema import text_schema_to_dict
from privsyn_jax.evaluation.attacks import TEXT_ATTACKS, attack_texts
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts import evaluate_texts
from privsyn_jax.files import write_json
from privsyn_jax.modalities.modality import Modality
from privsyn_jax.models import TEXT_GENERATORS
from privsyn_jax.one_shot import NoisySums, absorb, text_buyer, text_generator
from privsyn_jax.plan import Plan
from privsyn_jax.privacy import release
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger, check_charged
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.settings import Settings
from privsyn_jax.synthesis.conditions import parse_conditions
from privsyn_jax.synthesis.labelled import refuse_constraints, synthesize, wanted_classes
from privsyn_jax.training.purchases import Purchases
from privsyn_jax.transforms.texts import TextTransform, public_transform
from privsyn_jax.transforms.tokens import FIRST
from privsyn_jax.transforms.tokens.buy import buy_words
from privsyn_jax.transforms.tokens.words import WordTokenizer
from privsyn_jax.types import CountStage, Generator, Texts, TextSchema, Tokens, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

_JUDGED = 2_000  # real texts whose likelihood is taken


def check(schema: TextSchema, settings: Settings) -> None:
    """Raises UserError for conditions, a generator, a warm start or a rule that do not fit the schema."""
    if settings.warm_start.images:
        raise UserError(f"warm_start.images is {settings.warm_start.images!r}, which is for images: set it to ''")
    wanted_classes(schema, parse_conditions(settings.synthesis.conditions))
    refuse_constraints(settings.synthesis.constraints)
    if settings.privacy.adaptive.rule == "loss":
        raise UserError(
            "privacy.adaptive.rule='loss' needs a loss with a public bound, which text generators do not have: use "
            "another rule"
        )
    text_generator(settings, public_transform(schema, settings.tokens))


def buy(
    texts: Private[Texts], schema: TextSchema, plan: Plan, settings: Settings, ledger: Ledger, noise: HostNoise
) -> Purchases:
    """A vocabulary, where it is bought, and statistics of words that a generator learns or starts from."""
    transform = _buy_vocabulary(texts, public_transform(schema, settings.tokens), plan, settings, ledger, noise)
    buyer = text_buyer(settings, transform)
    if buyer is None:
        return Purchases(transform, None)
    bought, tokens = NoisySums((), ()), texts.map(transform.encode)
    for number, stage in enumerate(buyer.generator.stages):
        planned = plan.release(stage.name)
        assert planned is not None and isinstance(stage, CountStage)
        params = absorb(buyer.generator, bought, seed=settings.seed, num_stages=number)
        what = "noisy sum of a vector of norm at most 1 for each text"
        receipt = ledger.charge(planned.name, "all texts and labels", what, planned.event, upto=1)
        noisy_sum, stddev, event = release.sparse_sum(
            stage.count(params, tokens.open(receipt)),
            size=stage.size,
            noise_multiplier=planned.noise_multiplier,
            noise=noise,
        )
        check_charged([planned.event], [event])
        bought = NoisySums((*bought.sums, noisy_sum), (*bought.stddevs, stddev))
    return Purchases(transform, bought)


def _buy_vocabulary(
    texts: Private[Texts],
    transform: TextTransform,
    plan: Plan,
    settings: Settings,
    ledger: Ledger,
    noise: HostNoise,
) -> TextTransform:
    """The transform with the words that are frequent enough to be released."""
    planned = plan.release("vocabulary")
    if planned is None:
        return transform
    alone = {"kind": "approximate", "epsilon": 0.0, "delta": plan.category_delta, "count": 1}
    ledger.charge("words of one text", "all texts", "the chance that such a word passes the threshold", alone, upto=1)
    what = "words whose noisy count is above a threshold"
    receipt = ledger.charge(planned.name, "all texts", what, planned.event, upto=1)
    assert isinstance(transform.tokenizer, WordTokenizer)
    words, events = buy_words(
        texts.open(receipt).texts,
        transform.tokenizer.words,
        words_per_record=settings.tokens.words_per_record,
        num_words=settings.tokens.num_words,
        noise_multiplier=planned.noise_multiplier,
        delta=plan.category_delta,
        noise=noise,
    )
    check_charged([planned.event, alone], list(events))
    return transform.with_words(words)


def build(settings: Settings, transform: TextTransform) -> Generator:
    return text_generator(settings, transform)


def random_records(settings: Settings, schema: TextSchema, rng: np.random.Generator) -> tuple[Generator, Tokens]:
    transform = public_transform(schema, settings.tokens)
    shape = (schema.num_records, transform.max_length)
    ids = rng.integers(FIRST, transform.tokenizer.size, shape, np.int32)
    labels = rng.integers(0, transform.num_classes, schema.num_records, np.int32)
    return text_generator(settings, transform), Tokens(ids, labels)


def to_frame(texts: Texts, schema: TextSchema) -> pd.DataFrame:
    """Columns named as in the schema; labels by name, where there are classes."""
    columns = {schema.text: np.asarray(texts.texts, object)}
    if schema.classes:
        columns[schema.label] = np.array(schema.classes, object)[np.asarray(texts.labels)]
    return pd.DataFrame(columns)


def write(texts: Texts, schema: TextSchema, folder: Path) -> None:
    """A JSON object a line, as `data.name=texts` reads them."""
    with open(folder / "synthetic.jsonl", "w", encoding="utf-8") as file:
        for row in to_frame(texts, schema).to_dict("records"):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def evaluate(
    run: Any,
    train: Texts,
    test: Texts,
    synthetic: Texts,
    schema: TextSchema,
    settings: Settings,
    folder: Path,
    announce: Callable[[str], None],
) -> None:
    of_texts = settings.evaluation
    result = evaluate_texts(schema, train, test, synthetic, settings=of_texts, seed=settings.seed, announce=announce)
    likelihoods = likelihood_rows(run, train, test, settings) if run is not None else []
    write_json(folder / "metrics.json", [*result.metrics, *likelihoods])
    details = {"notice": PRIVATE_NOTICE, "examples": result.examples, "skipped": result.skipped, "tests": result.tests}
    write_json(folder / "details.json", details)


def metrics_of(run: Any, schema: TextSchema, train: Texts, test: Texts, synthetic: Texts, settings: Settings):
    result = evaluate_texts(schema, train, test, synthetic, settings=settings.evaluation, seed=settings.seed)
    return [*result.metrics, *likelihood_rows(run, train, test, settings)]


def likelihood_rows(run: Any, train: Texts, test: Texts, settings: Settings) -> list[dict[str, Any]]:
    """Bits per byte of held-out texts (reference: of training texts) under the generator itself, or bounds of them.

    Texts are cut off at tokens.max_length, as in training.
    """
    rows, rng = Rows("fidelity", settings.seed), np.random.default_rng(settings.seed)
    found, transform = [], run.transform
    for number, texts in enumerate((test, train)):
        chosen = rng.permutation(len(texts.texts))[:_JUDGED]
        texts = Texts(texts.texts[chosen], texts.labels[chosen])
        nats = run.negative_log_likelihood(texts, key=jax.random.key(settings.seed + number))
        num_bytes = sum(len(text.encode()) for text in transform.decode(transform.encode(texts)).texts)
        found.append(nats.sum() / np.log(2) / max(1, num_bytes))
    rows.add("bits_per_byte", *found)
    return rows.metrics


def render(
    common: Mapping[str, Any], train: Texts, test: Texts, synthetic: Texts, schema: TextSchema, folder: Path
) -> str:
    details = {"examples": [], "skipped": ["the evaluation was switched off"]}
    if common["metrics"]:
        details = json.loads((folder / "details.json").read_text())
    return report.render_text_page(
        report.TextPageData(
            **common,
            examples=details["examples"],
            skipped=details["skipped"],
            tests=details.get("tests", {}),
            num_synthetic=len(synthetic.texts),
            num_train=len(train.texts),
            num_test=len(test.texts),
            schema=schema,
        )
    )


def _no_warm_up(generator: Generator, settings: Settings, bought: Purchases, announce: Callable[[str], None]) -> None:
    """Texts have released counts to start from, by `Generator.stages`."""


TEXTS = Modality(
    name="texts",
    generators=TEXT_GENERATORS,
    check=check,
    buy=buy,
    build_generator=build,
    loss_bound=lambda transform: None,
    warm_up=_no_warm_up,
    random_records=random_records,
    synthesize=synthesize,
    finish=lambda texts, schema, dtypes: to_frame(texts, schema),
    write=write,
    released_files={"synthetic texts": "synthetic.jsonl"},
    read_synthetic=read_synthetic,
    evaluate=evaluate,
    attacks=TEXT_ATTACKS,
    attack=attack_texts,
    render=render,
    metrics=metrics_of,
    schema_to_dict=text_schema_to_dict,
    public_facts=lambda schema: [
        f"the names of the {len(schema.classes)} classes; synthetic texts have all of them equally often, whatever "
        "their shares are"
        if schema.classes
        else "that the texts have no labels"
    ],
)
