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
from flax.traverse_util import flatten_dict, unflatten_dict

from privsyn_jax.files import write_json
from privsyn_jax.modalities import modality_of
from privsyn_jax.report import privacy_markdown
from privsyn_jax.settings import Settings, settings_from_dict
from privsyn_jax.transforms import Transform, transform_from_dict
from privsyn_jax.types import AnySchema, Params, UserError
from privsyn_jax.views import html_parts as html
from privsyn_jax.views.privacy_report import PrivacyReport
from privsyn_jax.workdir import plain

_FORMAT = 1
_BLOCK = 128  # records whose likelihood is taken at once


class Run:
    """What `privsyn_jax.fit` returns and `privsyn_jax.load` brings back. Holds released values only."""

    def __init__(
        self,
        settings: Settings,
        transform: Transform,
        params: Params,
        privacy: Mapping[str, Any],
        dtypes: Mapping[str, str] | None = None,
    ):
        self.privacy = PrivacyReport(privacy)
        self._settings = settings
        self._transform = transform
        self._params = params
        self._dtypes = dict(dtypes or {})
        self._modality = modality_of(transform.schema)
        self._generator = self._modality.build_generator(settings, transform)

    @property
    def schema(self) -> AnySchema:
        return self._transform.schema

    @property
    def transform(self) -> Transform:
        """Records to encoded examples and back."""
        return self._transform

    def with_dtypes(self, dtypes: Mapping[str, str]) -> Run:
        """The same run, whose `sample` gives these pandas dtypes by column. They are facts about the table."""
        facts = [*self.privacy["declared_public"], "pandas dtypes of the columns, as in the table given"]
        privacy = {**self.privacy, "declared_public": facts}
        return Run(self._settings, self._transform, self._params, privacy, dtypes)

    def sample(self, num_samples: int, *, conditions: Mapping[str, Any] | None = None, seed: int | None = None) -> Any:
        """Synthetic records: a table with the columns, order and dtypes of the training table, Images, or a table of
        texts and labels. Costs no privacy.

        Args:
          num_samples: rows, images or texts.
          conditions: column -> value, list of values, or {"min": ..., "max": ...}; of images and texts: "label" ->
            class or list.
          seed: repeats a sample; by default every call draws anew.
        """
        if num_samples < 1:
            raise UserError(f"num_samples is {num_samples}: ask for at least 1")
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        drawn = self.synthesize(num_samples, conditions=conditions, key=jax.random.key(seed)).records
        return self._modality.finish(drawn, self.schema, self._dtypes)

    def synthesize(self, num_samples: int, *, conditions: Mapping[str, Any] | None, key: jax.Array) -> Any:
        """`sample` in canonical dtypes, with the acceptance report; see synthesis.sampler and synthesis.labelled."""
        return self._modality.synthesize(
            self._generator,
            self._params,
            self._transform,
            num_samples=num_samples,
            conditions=conditions,
            constraints=self._settings.synthesis.constraints,
            key=key,
        )

    def negative_log_likelihood(self, records: Any, *, key: jax.Array) -> np.ndarray | None:
        """Nats of every record, float64 [n], or bounds from above on average; None where the generator knows none.

        Args:
          records: as the data set gives them.
        """
        function = self._generator.negative_log_likelihood
        if function is None:
            return None
        encoded = self._transform.encode(records)
        num_records, params = len(jax.tree.leaves(encoded)[0]), jax.device_put(self._params)
        block_nats, found = jax.jit(jax.vmap(function, in_axes=(None, 0, 0))), []
        for start in range(0, num_records, _BLOCK):
            rows = np.minimum(np.arange(start, start + _BLOCK), num_records - 1)
            keys = jax.random.split(jax.random.fold_in(key, start), _BLOCK)
            found.append(block_nats(params, jax.tree.map(lambda array, rows=rows: array[rows], encoded), keys))
        return np.concatenate(jax.device_get(found)).astype(np.float64)[:num_records]

    def write_records(self, records: Any, folder: Path) -> None:
        """Writes synthetic records into an existing folder, as a release has them."""
        self._modality.write(records, self.schema, folder)

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
        np.savez_compressed(model / "params.npz", **flat)
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
        return html.block(
            f"{self._settings.model['name']}: generator of {self._modality.name}",
            *self.privacy.stamps,
            html.note(f"{self.privacy.claim}. More in its privacy (the ledger) and schema (what is taken as public)."),
        )


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
        return Run(settings, transform_from_dict(saved["transform"]), params, privacy, saved["dtypes"])
    except UserError:
        raise
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"the model in {folder} is damaged ({error}): save it again") from None
