"""Data sets: one file each, giving public facts and records. To add one: its file, and its line below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from privsyn_jax.data import adult, mimic3, rand_hie, table
from privsyn_jax.data.images import cifar10, digits, mnist, own, tfds
from privsyn_jax.data.texts import grammar, imdb
from privsyn_jax.data.texts import own as own_texts
from privsyn_jax.data.texts import tfds as tfds_texts
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Records, UserError


class Dataset(NamedTuple):
    """A source of records, of a table (`Schema`), images (`ImageSchema`) or texts (`TextSchema`).

    Attributes:
      read_schema: settings -> the public facts, with num_records of the training part; opens no private record.
      load: (settings, schema) -> the records, conforming to the schema and split.
    """

    read_schema: Callable[[DataSettings], Any]
    load: Callable[[DataSettings, Any], Records]


DATASETS = {
    "adult": Dataset(adult.read_schema, adult.load),
    "cifar10": Dataset(cifar10.read_schema, cifar10.load),
    "csv": Dataset(table.read_schema, table.load),
    "digits": Dataset(digits.read_schema, digits.load),
    "grammar": Dataset(grammar.read_schema, grammar.load),
    "images": Dataset(own.read_schema, own.load),
    "imdb": Dataset(imdb.read_schema, imdb.load),
    "mimic3": Dataset(mimic3.read_schema, mimic3.load),
    "mimic3_demo": Dataset(mimic3.read_demo_schema, mimic3.load),
    "mnist": Dataset(mnist.read_schema, mnist.load),
    "rand_hie": Dataset(rand_hie.read_schema, rand_hie.load),
    "texts": Dataset(own_texts.read_schema, own_texts.load),
}

_ROWS_OF_OWNERS = frozenset({"csv", "mimic3", "mimic3_demo"})  # read data.target and data.max_records_per_unit


def dataset_of(settings: DataSettings) -> Dataset:
    """The data set that the settings name.

    Raises:
      UserError: there is none of that name, no such kind of source, or a setting that it does not read.
    """
    if settings.source.startswith(tfds.PREFIX):
        kind = tfds_texts if tfds_texts.holds_texts(settings) else tfds
        found = Dataset(kind.read_schema, kind.load)
    elif settings.source:
        raise UserError(f"data.source is {settings.source!r}: write tfds:NAME, or leave it empty and set data.name")
    elif settings.name not in DATASETS:
        raise UserError(f"data.name is {settings.name!r}: use one of {', '.join(DATASETS)}")
    else:
        found = DATASETS[settings.name]
    for name in ("target", "max_records_per_unit"):
        if getattr(settings, name) and (settings.source or settings.name not in _ROWS_OF_OWNERS):
            raise UserError(
                f"data.{name} is {getattr(settings, name)!r}, which {settings.source or settings.name} does not read "
                f"({', '.join(sorted(_ROWS_OF_OWNERS))} do): leave it out"
            )
    return found
