"""Data sets: one file each, giving public facts and records. To add one: its file, and its line below."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from privsyn_jax.data import adult, rand_hie, table
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Records, Schema


class Dataset(NamedTuple):
    """A source of records.

    Attributes:
      read_schema: settings -> the public facts, with num_records of the training part; opens no private row.
      load: (settings, schema) -> the records, conforming to the schema and split.
    """

    read_schema: Callable[[DataSettings], Schema]
    load: Callable[[DataSettings, Schema], Records]


DATASETS = {
    "adult": Dataset(adult.read_schema, adult.load),
    "csv": Dataset(table.read_schema, table.load),
    "rand_hie": Dataset(rand_hie.read_schema, rand_hie.load),
}
