"""Small sets of texts, how they are written as files, and what tests compare of them."""

import bz2
import csv
import gzip
import io
import json
import tarfile

import numpy as np

from privsyn_jax.types import Texts, TextSchema

FILMS = TextSchema(("bad", "good"), num_records=120, text="review", label="verdict")
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}


def make_texts(num_texts, num_classes=2, *, seed=0):
    """Different texts, some with commas, quotes, line ends, emoji, a NUL or the words that mean "missing" elsewhere."""
    generator = np.random.default_rng(seed)
    odd = (
        "NA",
        "null",
        "nan",
        'He said "no", twice',
        "two\nlines",
        "\U0001f600\u200d",
        "a\0b",
        "caf\u00e9 <br />",
        "1.50",
    )
    texts = np.empty(num_texts, object)
    texts[:] = [f"film {seed}, number {i}: {' '.join(generator.choice(list('abcdefg'), 5))}" for i in range(num_texts)]
    texts[: len(odd)] = odd[:num_texts]
    return Texts(texts, (np.arange(num_texts) % num_classes).astype(np.int32))


def assert_same_texts(found, expected):
    assert found.labels.dtype == np.int32 and found.texts.dtype == object
    assert list(found.texts) == list(expected.texts)
    np.testing.assert_array_equal(found.labels, expected.labels)


def csv_bytes(columns):
    """A CSV of {name: values}, written by the standard library."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return buffer.getvalue().encode()


def json_lines_bytes(columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def columns_of(texts, schema):
    """{name: values} of texts with the names of their classes."""
    return {schema.text: list(texts.texts), schema.label: [schema.classes[label] for label in texts.labels]}


def write_files(folder, texts, names, *, ending=""):
    """NAME.txt in the folders that `names` give to the labels; in the order of the texts."""
    for i, (text, label) in enumerate(zip(texts.texts, texts.labels, strict=True)):
        path = folder / names[label] / f"{i:04d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((text + ending).encode())
    return folder


def pack(folder, path, *, inside):
    """A .tar.gz of a folder, whose files lie under `inside` in it."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, inside)
    return path


def by_class(texts):
    """In the order in which files by class are read, for classes that are sorted by name."""
    order = np.argsort(texts.labels, kind="stable")
    return Texts(texts.texts[order], texts.labels[order])
