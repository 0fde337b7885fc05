"""Texts that tensorflow-datasets prepared as array_record files: read without TensorFlow, and never downloaded.

Source: https://www.tensorflow.org/datasets (package tensorflow-datasets, an optional dependency).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from privsyn_jax.data.images.tfds import (
    import_tfds,
    in_blocks,
    is_image,
    label_names,
    num_in_training_part,
    one_of_kind,
    open_prepared,
    refuse_damage,
)
from privsyn_jax.data.texts.content import conform_texts, hash_texts, split_texts
from privsyn_jax.data.texts.rows import decode
from privsyn_jax.data.texts.schema import check_text_schema
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Records, Texts, TextSchema, UserError


def holds_texts(settings: DataSettings) -> bool:
    """Whether the prepared examples have a text and no image.

    Where nothing readable is prepared it is False, and the reader of images says what is wrong.
    """
    try:
        features = open_prepared(settings).info.features
    except UserError:
        return False
    return bool(_text_names(features)) and not any(map(is_image, features.values()))


def read_schema(settings: DataSettings) -> TextSchema:
    """The public facts in the prepared metadata; no text is read.

    num_records is the size of split "train" (of its training part where there is no split "test"), which whoever
    prepared the texts wrote down: it is listed as declared public. Without a class label, the texts have no labels.

    Raises:
      UserError: tensorflow-datasets is not installed, nothing usable is prepared there, or it is not one text and at
        most one class label per example.
    """
    info = open_prepared(settings).info
    text_key, label_key = _find_keys(info, settings.source)
    schema = TextSchema(
        classes=tuple(info.features[label_key].names) if label_key else (),
        num_records=num_in_training_part(info, settings),
        text=text_key,
        label=label_key or "label",
        declared_public=("num_records",),
    )
    check_text_schema(schema, source=settings.source)
    return schema


def load(settings: DataSettings, schema: TextSchema) -> Records:
    """The records of splits "train" and "test"; without the latter, some of "train" are held out by `split_texts`.

    Raises:
      UserError: see `read_schema`; or an example cannot be read, is not UTF-8, or does not fit the schema.
    """
    builder = open_prepared(settings)
    parts = [_read_split(builder, name, schema, settings) for name in ("train", "test") if name in builder.info.splits]
    train, test = parts if len(parts) == 2 else split_texts(parts[0], settings.test_fraction)
    return Records(schema, Private(train), Private(test), hash_texts(*parts), Private({}))


def _text_names(features: Any) -> list[str]:
    text = import_tfds().features.Text
    return [name for name, feature in features.items() if isinstance(feature, text)]


def _find_keys(info: Any, source: str) -> tuple[str, str | None]:
    """(name of the text, name of the label or None) among the features."""
    labels = label_names(info)
    text_key = one_of_kind(info, _text_names(info.features), "text", source)
    return text_key, one_of_kind(info, labels, "class label", source) if labels else None


def _read_split(builder: Any, name: str, schema: TextSchema, settings: DataSettings) -> Texts:
    text_key, label_key = _find_keys(builder.info, settings.source)
    place = f"split {name!r} of {settings.source}"
    contents, labels = [], []
    with refuse_damage(place):
        for example in in_blocks(builder.as_data_source(split=name)):
            contents.append(bytes(example[text_key]))
            labels.append(int(example[label_key]) if label_key else 0)
    texts = [decode(content, f"text {i + 1} of {place}") for i, content in enumerate(contents)]
    return conform_texts(Texts(texts, np.array(labels, np.int32)), schema, source=place)
