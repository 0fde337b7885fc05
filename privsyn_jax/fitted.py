"""A trained generator with all that is needed to sample from it, and the guarantee that it was trained under."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from flax.traverse_util import flatten_dict, unflatten_dict

from privsyn_jax.data.dtypes import restore_dtypes
from privsyn_jax.data.validate import to_file_frame
from privsyn_jax.files import write_json
from privsyn_jax.models import GENERATORS
from privsyn_jax.report import privacy_markdown
from privsyn_jax.settings import Settings, settings_from_dict
from privsyn_jax.synthesis.sampler import Synthesis, synthesize
from privsyn_jax.transforms.discretize import Discretizer
from privsyn_jax.types import Generator, Params, Schema, UserError
from privsyn_jax.workdir import plain

_FORMAT = 1


class Run:
    """What `privsyn_jax.fit` returns and `privsyn_jax.load` brings back. Holds released values only."""

    def __init__(
        self,
        settings: Settings,
        transform: Discretizer,
        params: Params,
        privacy: Mapping[str, Any],
        dtypes: Mapping[str, str] | None = None,
    ):
        self.privacy = dict(privacy)
        self._settings = settings
        self._transform = transform
        self._params = params
        self._dtypes = dict(dtypes or {})
        self._generator = build_generator(settings, transform.schema, transform.cardinalities)

    @property
    def schema(self) -> Schema:
        return self._transform.schema

    def with_dtypes(self, dtypes: Mapping[str, str]) -> Run:
        """The same run, whose `sample` gives these pandas dtypes by column. They are facts about the table."""
        facts = [*self.privacy["declared_public"], "pandas dtypes of the columns, as in the table given"]
        privacy = {**self.privacy, "declared_public": facts}
        return Run(self._settings, self._transform, self._params, privacy, dtypes)

    def sample(
        self, num_samples: int, *, conditions: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> pd.DataFrame:
        """Synthetic records with the columns, order and dtypes of the training table; costs no privacy.

        Args:
          num_samples: rows.
          conditions: column -> value, list of values, or {"min": ..., "max": ...}.
          seed: repeats a sample; by default every call draws anew.
        """
        if num_samples < 1:
            raise UserError(f"num_samples is {num_samples}: ask for at least 1 row")
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        frame = self.synthesize(num_samples, conditions=conditions, key=jax.random.key(seed)).frame
        return restore_dtypes(frame, self.schema, self._dtypes)

    def synthesize(self, num_samples: int, *, conditions: Mapping[str, Any] | None, key: jax.Array) -> Synthesis:
        """`sample` in canonical dtypes, with the acceptance report; see synthesis.sampler."""
        return synthesize(
            self._generator, self._params, self._transform, num_samples=num_samples, conditions=conditions, key=key
        )

    def save(self, path: str | Path) -> None:
        """Writes the model and its privacy report to a new folder: arrays and JSON, no pickle."""
        folder = Path(path)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UserError(f"{folder} is not empty: name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.write(folder)
        except BaseException:
            shutil.rmtree(folder)
            raise

    def write(self, folder: Path) -> None:
        """Writes model/ and the privacy report into an existing folder."""
        model = folder / "model"
        model.mkdir()
        flat: dict[str, Any] = dict(flatten_dict(jax.tree.map(np.asarray, dict(self._params)), sep="/"))
        np.savez(model / "params.npz", **flat)
        write_json(
            model / "model.json",
            {
                "format": _FORMAT,
                "private": self.privacy["private"],
                "settings": self._public_settings(),
                "transform": self._transform.to_dict(),
                "dtypes": self._dtypes,
            },
        )
        write_json(folder / "privacy_report.json", self.privacy)
        (folder / "privacy_report.md").write_text(privacy_markdown(self.privacy))
        if not self.privacy["private"]:
            (folder / "NOT_PRIVATE.txt").write_text(
                "NOT PRIVATE: everything here was made without differential privacy. Do not publish it.\n"
            )

    def _public_settings(self) -> dict[str, Any]:
        """Settings as strict JSON, without where the records lie and without the seed of the noise."""
        settings = plain(self._settings.to_dict())
        del settings["data"], settings["privacy"]["seed"]
        return settings

    def _repr_html_(self) -> str:
        epsilon = self.privacy["epsilon"]
        cost = f"epsilon {epsilon:.3f}, delta {self.privacy['delta']:.1e}" if epsilon is not None else "NOT PRIVATE"
        return f"<p><b>{self._settings.model['name']}</b> generator of {len(self.schema.columns)} columns: {cost}</p>"


def load(path: str | Path) -> Run:
    """A saved Run: from the folder given to `save`, a run's release/ folder, or the run's workdir.

    Raises:
      UserError: there is no model in it.
    """
    folder = Path(path)
    if not (folder / "model").is_dir() and (folder / "release").is_dir():
        folder = folder / "release"
    model = folder / "model"
    if not (model / "model.json").is_file():
        raise UserError(f"{path} holds no saved model: name a folder made by save() or a finished run's workdir")
    try:
        saved = json.loads((model / "model.json").read_text())
        if saved["format"] != _FORMAT:
            raise UserError(f"{model} was saved in format {saved['format']}, this version reads {_FORMAT}: retrain it")
        settings = settings_from_dict(saved["settings"])
        with open(model / "params.npz", "rb") as file, np.load(file, allow_pickle=False) as arrays:
            params = unflatten_dict({tuple(name.split("/")): arrays[name] for name in arrays.files})
        privacy = json.loads((folder / "privacy_report.json").read_text())
        return Run(settings, Discretizer.from_dict(saved["transform"]), params, privacy, saved["dtypes"])
    except UserError:
        raise
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"the model in {folder} is damaged ({error}): save it again") from None


def build_generator(settings: Settings, schema: Schema, cardinalities: tuple[int, ...]) -> Generator:
    """The generator named by the settings, for columns with these numbers of codes.

    Raises:
      UserError: an argument that the generator refuses, or a column order that is not one.
    """
    arguments = dict(settings.model)
    make = GENERATORS[arguments.pop("name")]
    order = column_order(arguments.pop("column_order"), schema)
    try:
        return make(cardinalities=cardinalities, column_order=order, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"the section model of the settings does not fit: {error}") from None


def column_order(names: tuple[str, ...], schema: Schema) -> tuple[int, ...]:
    """Indices of the modelled columns in the order that the generator draws them."""
    known = [column.name for column in schema.modelled]
    if not names:
        names = tuple(sorted(known, key=lambda name: name != schema.target))
    if sorted(names) != sorted(known):
        odd = sorted(set(names) ^ set(known))
        raise UserError(
            f"model.column_order must name every modelled column once; it disagrees with the schema on "
            f"{', '.join(map(repr, odd)) or 'how often a column occurs'}: correct it or leave it empty"
        )
    return tuple(known.index(name) for name in names)


def write_table(frame: pd.DataFrame, schema: Schema, path: Path) -> None:
    """CSV in the form of the source: dates by their format, booleans by their labels, missing as empty."""
    to_file_frame(frame, schema).to_csv(path, index=False)
