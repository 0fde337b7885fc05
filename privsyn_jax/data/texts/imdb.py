"""IMDB film reviews, positive or negative, from one CSV or from the original folder or archive.

Source: Maas et al. 2011, "Learning Word Vectors for Sentiment Analysis" (the Large Movie Review Dataset).
"""

from __future__ import annotations

import os

import numpy as np

from privsyn_jax.data.texts.content import (
    PublishedTexts,
    check_published,
    conform_texts,
    hash_texts,
    split_texts,
)
from privsyn_jax.data.texts.files import Parts, read_files
from privsyn_jax.data.texts.rows import decode, read_rows
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Records, Texts, TextSchema, UserError

CLASSES = ("negative", "positive")
PUBLISHED = {
    "train": PublishedTexts((12_500, 12_500), "a41aed3bb141ee5b5e90cb9002a1e025e37c5569a686474fc0cf0aa584377eee"),
    "test": PublishedTexts((12_500, 12_500), "7f326580cc04cd0a60dd4c257fcb5cc898bdd06296b182a206a4a3ee1315764d"),
    "train and test": PublishedTexts(
        (25_000, 25_000), "5bcf69100d1c7d066b5de0c1e7c2fa3764d8038447e3d84f411d4de3264450e2"
    ),
}
_TABLES = ("imdb.csv", "imdb.csv.bz2", "imdb.csv.gz")
_FOLDERS = {"neg": 0, "pos": 1}
_ARCHIVE, _FOLDER = "aclImdb_v1.tar.gz", "aclImdb"
_WHERE = f"put imdb.csv (or .bz2, .gz; columns review, sentiment, split), {_FOLDER}/ or {_ARCHIVE} there"
_REMEDY = "get the original files, or read yours with data.name=texts and a schema"


def read_schema(settings: DataSettings) -> TextSchema:
    """The public codebook; num_records is that of the published training part."""
    del settings
    num_records = sum(PUBLISHED["train"].class_counts)
    return TextSchema(CLASSES, num_records, text="review", label="sentiment", privacy_unit="review")


def load(settings: DataSettings, schema: TextSchema) -> Records:
    """The records of the folder `settings.dir`, in the published split; `<br />` marks are left as they are.

    Where a CSV does not say the split, half of all reviews are held out by `split_texts`.

    Raises:
      UserError: a file is absent or damaged, or its reviews are not the published ones.
    """
    train, test = read_published(settings.dir, schema)
    return Records(schema, Private(train), Private(test), hash_texts(train, test), Private({}))


def read_published(folder: str, schema: TextSchema) -> tuple[Texts, Texts]:
    """(train, test), which are the published reviews."""
    parts = read(folder, schema)
    for name, texts in parts.items():
        source = f"the part {name!r} of IMDB in {folder}"
        check_published(texts, PUBLISHED[name], source=source, remedy=_REMEDY)
    return (parts["train"], parts["test"]) if len(parts) == 2 else split_texts(parts["train and test"], 0.5)


def read(folder: str, schema: TextSchema) -> dict[str, Texts]:
    """Texts of the parts "train" and "test", or of "train and test" where no split is said, whatever their number.

    Raises:
      UserError: nothing of IMDB is in `folder`, or it is damaged.
    """
    if not folder:
        raise UserError(f"data.dir is not given: give the folder of the IMDB reviews, {_WHERE}")
    for name in _TABLES:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return _read_table(path, schema)
    for path, inside in ((os.path.join(folder, _FOLDER), "train"), (folder, "train"), (folder, _ARCHIVE)):
        if os.path.exists(os.path.join(path, inside)):
            return _read_original(os.path.join(path, inside) if inside == _ARCHIVE else path, schema)
    raise UserError(f"the IMDB reviews were not found in {folder!r}: {_WHERE}")


def _read_table(path: str, schema: TextSchema) -> dict[str, Texts]:
    frame, places = read_rows(path)
    texts = conform_texts(frame, schema, source=path, places=places)
    if "split" not in frame.columns:
        return {"train and test": texts}
    splits = frame["split"].to_numpy()
    for row in np.flatnonzero(~np.isin(splits, ("train", "test"))):
        raise UserError(f"{places[row]} has the split {splits[row]!r}: write train or test")
    return {name: Texts(texts.texts[splits == name], texts.labels[splits == name]) for name in ("train", "test")}


def _read_original(path: str, schema: TextSchema) -> dict[str, Texts]:
    """What is in {train,test}/{pos,neg}/*.txt, possibly within aclImdb; unlabelled reviews are passed over."""
    files = read_files(path, wanted=_is_review)
    parts = {}
    for name in ("train", "test"):
        own = [file for file in files if file.parts[-3] == name]
        texts = np.empty(len(own), object)
        texts[:] = [decode(file.content, os.path.join(path, *file.parts)) for file in own]
        labels = np.array([_FOLDERS[file.parts[-2]] for file in own], np.int32)
        parts[name] = conform_texts(Texts(texts, labels), schema, source=f"{name} of {path}")
    return parts


def _is_review(parts: Parts) -> bool:
    """Whether a path is [aclImdb/]{train,test}/{pos,neg}/NAME.txt."""
    part, label, name = parts[-3:] if len(parts) >= 3 else ("", "", "")
    return parts[:-3] in ((), (_FOLDER,)) and part in ("train", "test") and label in _FOLDERS and name.endswith(".txt")
