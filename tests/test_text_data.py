"""Texts: schemas, what is checked of every set, files, IMDB, the grammar, tensorflow-datasets, proposals."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_sets import opened, refusal
from text_sets import (
    FILMS,
    PACKERS,
    assert_same_texts,
    by_class,
    columns_of,
    csv_bytes,
    json_lines_bytes,
    make_texts,
    pack,
    write_files,
)

from launch.schema import main
from privsyn_jax.data import DATASETS, dataset_of
from privsyn_jax.data.texts import grammar, grammar_words, imdb
from privsyn_jax.data.texts.content import (
    PublishedTexts,
    check_published,
    conform_texts,
    digest_of_set,
    hash_texts,
    keep_one_per_unit,
    split_texts,
)
from privsyn_jax.data.texts.schema import (
    check_text_schema,
    read_text_schema,
    text_schema_from_dict,
    text_schema_to_dict,
)
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Texts, TextSchema

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
CONTENTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda text: not text.isspace())

# --- schemas


@settings(max_examples=50, deadline=None)
@given(
    st.lists(WORDS, max_size=9, unique=True).filter(lambda classes: len(classes) != 1),
    st.integers(1, 10**9),
    st.lists(WORDS, min_size=4, max_size=4, unique=True),
    st.booleans(),
    st.lists(st.sampled_from(["classes", "num_records"]), unique=True),
)
def test_a_schema_survives_json(classes, num_records, names, has_unit, declared_public):
    text, label, unit, privacy_unit = names
    unit = unit if has_unit else ""
    schema = TextSchema(tuple(classes), num_records, text, label, unit, privacy_unit, tuple(declared_public))
    assert text_schema_from_dict(json.loads(json.dumps(text_schema_to_dict(schema)))) == schema


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"text": None}, "no text: add"),
        ({"text": ""}, "text of s.json is ''"),
        ({"text": 3}, "text of s.json is 3"),
        ({"label": "review"}, "text and label of s.json are both 'review'"),
        ({"unit": "review"}, "text and unit"),
        ({"unit": "label"}, "label and unit"),
        ({"classes": None}, "[] for texts without labels"),
        (
            {"classes": ["good"]},
            "1 class, and utility is measured by telling classes apart: give at least two",
        ),
        ({"classes": ["good", "good"]}, "'good' twice"),
        ({"classes": [0, 1]}, "hold 0: use names as texts"),
        ({"classes": "good"}, "write a list"),
        ({"num_records": None}, "a public figure"),
        ({"num_records": True}, "is True: give a positive"),
        ({"num_records": 0}, "is 0"),
        ({"privacy_unit": ""}, "say in a word"),
        ({"declared_public": [1]}, "holds 1: use texts"),
        ({"clases": []}, "did you mean 'classes'?"),
        ({"columns": {}}, "describes a table"),
        ({"shape": [8, 8, 1]}, "describes images"),
    ],
)
def test_a_schema_that_breaks_a_rule_is_refused(change, problem):
    content = {"text": "review", "classes": ["bad", "good"], "num_records": 60} | change
    message = refusal(text_schema_from_dict, content, source="s.json")
    assert "s.json" in message and problem in message


def test_a_schema_file_that_is_no_schema_is_refused(tmp_path):
    path = tmp_path / "schema.json"
    for content, problem in ((b"[1]", "not a JSON object"), (b'{"text":', "not valid JSON at line 1")):
        path.write_bytes(content)
        message = refusal(read_text_schema, str(path))
        assert str(path) in message and problem in message
    assert "launch.schema reviews.csv --text" in refusal(read_text_schema, str(tmp_path / "absent.json"))


@pytest.mark.parametrize("name, num_records", [("imdb", 25_000), ("grammar", 20_000)])
def test_public_schemas_keep_the_rules_and_open_no_file(name, num_records):
    schema = DATASETS[name].read_schema(DataSettings(name=name, dir="/absent"))
    check_text_schema(schema)
    assert schema.classes == ("negative", "positive") and schema.declared_public == ()
    assert schema.num_records == num_records and schema.privacy_unit == "review"


# --- content


def frame_of(texts, schema=FILMS, **more):
    return pd.DataFrame(columns_of(texts, schema) | more)


def test_a_frame_and_texts_conform_to_the_same():
    texts = make_texts(120)
    frame = frame_of(texts, other=range(120))
    assert_same_texts(conform_texts(frame, FILMS, source="s"), texts)
    assert_same_texts(conform_texts(texts, FILMS, source="s"), texts)
    named = Texts(list(texts.texts), [FILMS.classes[label] for label in texts.labels])
    assert_same_texts(conform_texts(named, FILMS, source="s"), texts)
    unlabelled = dataclasses.replace(FILMS, classes=())
    no_labels = Texts(texts.texts, np.zeros(120, np.int32))
    assert_same_texts(conform_texts(frame[["review"]], unlabelled, source="s"), no_labels)


@pytest.mark.parametrize("labels", [[0, 1], [0.0, 1.0], ["0", "1"], np.array([0, 1], np.uint8)])
def test_numbers_are_the_classes_that_are_called_so(labels):
    schema = dataclasses.replace(FILMS, classes=("1", "0"))
    frame = pd.DataFrame({"review": make_texts(120).texts, "verdict": np.tile(labels, 60)})
    np.testing.assert_array_equal(conform_texts(frame, schema, source="s").labels, [1, 0] * 60)


@pytest.mark.parametrize("text", ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "a" * 2**20, "\0", "."])
def test_unusual_texts_are_texts(text):
    texts = make_texts(120)
    texts.texts[7] = text
    assert conform_texts(frame_of(texts), FILMS, source="s").texts[7] == text


@pytest.mark.parametrize(
    "column, value, problem",
    [
        ("review", None, "row 8 of s has no text in 'review': fill it in"),
        ("review", float("nan"), "row 8 of s has no text"),
        ("review", "", "row 8 of s has an empty text"),
        ("review", " \t\n\u00a0", "row 8 of s has an empty text"),
        ("review", 5, "row 8 of s has '5' in 'review', which is no text"),
        ("review", "ab\ud800c", "half a character (U+D800) in 'review' at position 3"),
        ("verdict", None, "row 8 of s has no label in 'verdict'"),
        ("verdict", "", "row 8 of s has no label"),
        (
            "verdict",
            "goood",
            "row 8 of s has 'goood' in 'verdict', which is no class of the schema: did you mean",
        ),
        ("verdict", "x" * 10**6, "which is no class of the schema: use one of bad, good"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_row(column, value, problem):
    frame = frame_of(make_texts(120)).astype(object)
    frame.loc[7, column] = value
    assert problem in refusal(conform_texts, frame, FILMS, source="s")


@pytest.mark.parametrize(
    "records, problem",
    [
        (
            frame_of(make_texts(120)).rename(columns={"review": "reviews"}),
            "no column 'review', which is to hold",
        ),
        (frame_of(make_texts(120)).rename(columns={"review": "reviews"}), "did you mean 'reviews'?"),
        (frame_of(make_texts(120))[["review"]], "no column 'verdict', which is to hold the label"),
        (frame_of(make_texts(99)), "99 texts, too few"),
        (frame_of(make_texts(0)), "0 texts, too few"),
        (frame_of(make_texts(120, num_classes=1)), "one class only ('bad')"),
        (make_texts(120, num_classes=3), "the label 2, and labels go from 0 to 1"),
        (Texts(make_texts(120).texts, [0]), "120 texts and labels [1]"),
    ],
)
def test_records_that_do_not_fit_are_refused(records, problem):
    assert problem in refusal(conform_texts, records, FILMS, source="s")


def test_the_hash_sees_texts_labels_boundaries_and_order():
    def hashed(*texts, labels=None):
        return hash_texts(Texts(np.array(texts, object), np.array(labels or [0] * len(texts), np.int64)))

    variants = [("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "c", "c")]
    hashes = {hashed(*variant) for variant in variants} | {hashed("ab", "c", labels=[0, 1])}
    assert len(hashes) == len(variants) + 1
    one, other = make_texts(3), make_texts(2, seed=1)
    assert len({hash_texts(one, other), hash_texts(other, one), hash_texts(one)}) == 3


def test_the_digest_of_a_set_sees_pairs_of_text_and_label_but_no_order():
    texts = make_texts(40)
    order = np.random.default_rng(1).permutation(40)
    assert digest_of_set(texts) == digest_of_set(Texts(texts.texts[order], texts.labels[order]))
    assert digest_of_set(texts) != digest_of_set(Texts(texts.texts[order], texts.labels))
    pairs = (
        hashlib.sha256(bytes([label, 0, 0, 0]) + text.encode()).digest()
        for text, label in zip(texts.texts, texts.labels, strict=True)
    )
    assert digest_of_set(texts) == hashlib.sha256(b"".join(sorted(pairs))).hexdigest()


def known_as(texts):
    """What would be published about these texts."""
    return PublishedTexts(tuple(np.bincount(texts.labels, minlength=2).tolist()), digest_of_set(texts))


def test_other_texts_than_the_published_are_refused():
    texts = make_texts(20)
    check_published(texts, known_as(texts), source="s", remedy="get it again")
    for altered, problem in (
        (Texts(texts.texts[:19], texts.labels[:19]), "10 and 9 texts per class instead of the published 10 and 10"),
        (Texts(texts.texts, 1 - texts.labels), "other content"),
    ):
        message = refusal(check_published, altered, known_as(texts), source="s", remedy="get it again")
        assert problem in message and message.endswith("get it again")


# --- split and units


@settings(max_examples=30, deadline=None)
@given(st.lists(CONTENTS, min_size=30, max_size=60), st.integers(0, 29), st.floats(0.3, 0.7))
def test_taking_a_record_away_moves_no_other(contents, gone, test_fraction):
    def parts(kept):
        texts = np.empty(len(kept), object)
        texts[:] = kept
        train, test = split_texts(Texts(texts, np.arange(len(kept), dtype=np.int32)), test_fraction)
        assert sorted([*train.labels, *test.labels]) == list(range(len(kept)))
        return Counter(train.texts), Counter(test.texts)

    contents = [f"{i}{content}" for i, content in enumerate(contents)]
    (train, test), (other_train, other_test) = parts(contents), parts(contents[:gone] + contents[gone + 1 :])
    assert (train - other_train) + (test - other_test) == Counter([contents[gone]])
    assert not other_train - train and not other_test - test


def test_the_share_held_out_is_the_fraction_and_repeats_stay_together():
    texts = make_texts(5000)
    for test_fraction in (0.1, 0.5):
        num_test = len(split_texts(texts, test_fraction)[1].texts)
        assert abs(num_test - 5000 * test_fraction) < 5 * math.sqrt(5000 * test_fraction * (1 - test_fraction))
    twice = Texts(np.tile(texts.texts[:500], 2), np.repeat(np.array([0, 1], np.int32), 500))
    train, test = split_texts(twice, 0.3)
    assert not set(train.texts) & set(test.texts)


def test_a_split_with_an_empty_part_is_refused():
    assert "data.test_fraction" in refusal(split_texts, make_texts(100), 1e-9)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(CONTENTS, st.integers(0, 1), st.sampled_from("abcdef")), min_size=1, max_size=30), st.randoms()
)
def test_the_text_kept_depends_on_its_unit_alone_and_on_no_order(rows, random):
    def kept(rows):
        texts = Texts(np.empty(len(rows), object), np.array([label for _, label, _ in rows], np.int32))
        texts.texts[:] = [text for text, _, _ in rows]
        found = keep_one_per_unit(texts, [unit for _, _, unit in rows])
        return Counter(zip(found.texts, found.labels.tolist(), strict=True))

    shuffled = random.sample(rows, len(rows))
    units = {unit for _, _, unit in rows}
    alone = [kept([row for row in rows if row[2] == unit]) for unit in units]
    assert kept(rows) == kept(shuffled) == sum(alone, Counter())
    assert all(one.total() == 1 for one in alone)


def test_the_text_kept_says_nothing_on_which_side_of_the_split_it_is():
    texts = make_texts(20_000)
    kept = keep_one_per_unit(texts, [str(i % 2000) for i in range(20_000)])
    assert len(kept.texts) == 2000
    num_test = len(split_texts(kept, 0.3)[1].texts)
    assert abs(num_test - 600) < 5 * math.sqrt(2000 * 0.3 * 0.7)


def test_one_text_of_each_unit_is_kept_in_its_order():
    schema = dataclasses.replace(FILMS, unit="author")
    texts = make_texts(300)
    authors = np.arange(300) % 150
    found = conform_texts(frame_of(texts, author=authors), schema, source="s")
    assert_same_texts(found, keep_one_per_unit(texts, [str(author) for author in authors]))
    places = [list(texts.texts).index(text) for text in found.texts]
    assert sorted(authors[places]) == list(range(150)) and places == sorted(places)
    too_few = refusal(conform_texts, frame_of(texts, author=authors % 40), schema, source="s")
    assert "40 texts of 40 different 'author', too few" in too_few
    missing = frame_of(texts, author=[None, *authors[1:].astype(object)])
    assert "row 1 of s does not say whose it is in 'author'" in refusal(conform_texts, missing, schema, source="s")
    assert "no column 'author'" in refusal(conform_texts, frame_of(texts), schema, source="s")
    assert "the schema has it as unit" in refusal(conform_texts, texts, schema, source="s")


# --- the user's own texts


def load_own(path, folder, schema=FILMS, **more):
    schema_path = folder / "schema.json"
    schema_path.write_text(json.dumps(text_schema_to_dict(schema)))
    data = DataSettings(name="texts", path=str(path), schema=str(schema_path), **more)
    dataset = dataset_of(data)
    return dataset.load(data, dataset.read_schema(data))


def assert_split_of(records, texts, num_records=84):
    train, test = split_texts(texts, 0.3)
    assert_same_texts(opened(records.train), train)
    assert_same_texts(opened(records.test), test)
    assert records.content_hash == hash_texts(texts) and records.schema.num_records == num_records
    assert opened(records.clamped) == {}


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("form, write", [(".csv", csv_bytes), (".jsonl", json_lines_bytes)])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_rows_are_read_as_they_are_whatever_the_container(tmp_path, packing, form, write, mark):
    texts = make_texts(120)
    path = tmp_path / f"a{form}{packing}"
    path.write_bytes(PACKERS[packing](mark + write(columns_of(texts, FILMS) | {"stars": ["3"] * 120})))
    assert_split_of(load_own(path, tmp_path), texts)


def test_a_long_review_is_read(tmp_path):
    texts = make_texts(120)
    texts.texts[50] = "word, " * 350_000
    (tmp_path / "a.csv").write_bytes(csv_bytes(columns_of(texts, FILMS)))
    assert_split_of(load_own(tmp_path / "a.csv", tmp_path), texts)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_files_by_class_are_read_from_folders_and_archives(tmp_path, ending):
    texts = make_texts(120)
    folder = write_files(tmp_path / "films", texts, FILMS.classes, ending=ending)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.png").write_text("")
    (folder / "good" / "Thumbs.db").write_text("")
    assert_split_of(load_own(folder, tmp_path), by_class(texts))
    for inside in ("", "films", "some/where"):
        assert_split_of(load_own(pack(folder, tmp_path / "a.tar.gz", inside=inside), tmp_path), by_class(texts))


def test_texts_without_labels_are_read_from_rows_and_flat_folders(tmp_path):
    texts = make_texts(120, num_classes=1)
    schema = dataclasses.replace(FILMS, classes=())
    (tmp_path / "a.csv").write_bytes(csv_bytes({"review": list(texts.texts)}))
    folder = write_files(tmp_path / "films", texts, [""])
    for path in (tmp_path / "a.csv", folder, pack(folder, tmp_path / "a.tar.gz", inside="films")):
        assert_split_of(load_own(path, tmp_path, schema), texts)
    write_files(folder, texts, ["good"])
    assert "elsewhere than NAME.txt" in refusal(load_own, folder, tmp_path, schema)


def test_texts_of_their_own_can_be_held_out(tmp_path):
    texts, others = make_texts(120), make_texts(110, seed=1)
    (tmp_path / "a.csv").write_bytes(csv_bytes(columns_of(texts, FILMS)))
    test_path = tmp_path / "b.jsonl"
    test_path.write_bytes(json_lines_bytes(columns_of(others, FILMS)))
    records = load_own(tmp_path / "a.csv", tmp_path, test_path=str(test_path))
    assert_same_texts(opened(records.train), texts)
    assert_same_texts(opened(records.test), others)
    assert records.schema.num_records == 120 and records.content_hash == hash_texts(texts, others)


def test_units_are_chosen_before_texts_are_held_out(tmp_path):
    texts = make_texts(240)
    authors = [f"author {i % 120}" for i in range(240)]
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes(columns_of(texts, FILMS) | {"author": authors}))
    schema = dataclasses.replace(FILMS, unit="author")
    assert_split_of(load_own(path, tmp_path, schema), keep_one_per_unit(texts, authors))
    folder = write_files(tmp_path / "films", texts, FILMS.classes)
    assert "do not say whose they are" in refusal(load_own, folder, tmp_path, schema)


def test_reading_the_schema_opens_no_text(tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(text_schema_to_dict(FILMS)))
    data = DataSettings(name="texts", path="/absent", schema=str(tmp_path / "schema.json"))
    assert DATASETS["texts"].read_schema(data).classes == FILMS.classes
    assert "data.schema is not given" in refusal(DATASETS["texts"].read_schema, DataSettings(name="texts"))


LINES = json_lines_bytes(columns_of(make_texts(120), FILMS))
ROWS = csv_bytes(columns_of(make_texts(120), FILMS))


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("absent.csv", None, "does not exist: give one of .csv"),
        ("a.txt", b"text", "unknown format"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b" \n\n", "is empty"),
        ("a.csv", b"review,verdict\n", "0 texts, too few"),
        ("a.csv", b"reviews,verdict\nabc,good\n", "did you mean 'reviews'?"),
        ("a.csv", b"review;verdict\nabc;good\n", "separated by ';'"),
        ("a.csv", b"review,review\nabc,good\n", "2 columns named 'review'"),
        (
            "a.csv",
            b"review,verdict\nabc,good,more\n",
            "commas and quotes (Expected 2 fields in line 2, saw 3)",
        ),
        ("a.csv", b'review,verdict\n"abc,good\n', "check its commas and quotes"),
        ("a.csv", b"review,verdict\nabc\n", "row 1 of"),
        ("a.csv", b"review,verdict\ncaf\xe9,good\n", "not UTF-8 at byte 18"),
        ("a.csv", b"\xef\xbb\xbfreview,verdict\ncaf\xe9,good\n", "not UTF-8 at byte 21"),
        ("a.csv", "review,verdict\nabc,good\n".encode("utf-16"), "not UTF-8 at byte 0"),
        ("a.csv.gz", ROWS, "no valid .csv.gz archive"),
        ("a.csv.gz", PACKERS[".gz"](ROWS)[:-9], "no valid .csv.gz archive"),
        ("a.csv.bz2", ROWS, "no valid .csv.bz2 archive"),
        ("a.csv.bz2", PACKERS[".bz2"](ROWS)[:-9], "no valid .csv.bz2 archive"),
        ("a.jsonl", LINES + b"\n{'review': 1}\n", "line 122 of"),
        ("a.jsonl", LINES + b"\n{'review': 1}\n", "is not JSON (Expecting property name"),
        ("a.jsonl", LINES + b"[" * 100_000, "line 121 of"),
        ("a.jsonl", LINES + b'["abc"]', "is no object"),
        ("a.jsonl", LINES + b'{"verdict": "good"}', "line 121 of"),
        ("a.jsonl", LINES + b'{"review": "abc"}', "has no label in 'verdict'"),
        ("a.jsonl", LINES + b'{"review": ["abc"], "verdict": "good"}', "which is no text"),
        ("a.jsonl", LINES + b'{"review": "\\ud800", "verdict": "good"}', "half a character (U+D800)"),
        ("a.jsonl", LINES.replace(b"review", b"reviews"), "did you mean 'reviews'?"),
        ("a.tar.gz", ROWS, "damaged or unreadable archive"),
        ("absent.tar", None, "does not exist"),
        ("films/good/a.txt", b"caf\xe9", "not UTF-8 at byte 3"),
        ("films/good/a.txt", b"\n", "has an empty text"),
        ("films/goood/a.txt", b"abc", "is no class of the schema: did you mean 'good'?"),
        ("films/a.txt", b"abc", "elsewhere than CLASS/NAME.txt"),
        ("films/good/old/a.txt", b"abc", "elsewhere than CLASS/NAME.txt"),
        ("films/good/a.doc", b"abc", "is no .txt file"),
        ("films/.hidden", b"", "holds no texts: give files CLASS/NAME.txt there"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, name, content, problem):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    given = tmp_path / "films" if name.startswith("films") else path
    message = refusal(load_own, given, tmp_path)
    assert problem in message and str(given) in message


def test_a_forgotten_path_is_said(tmp_path):
    assert "data.path is not given" in refusal(load_own, "", tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_flipped_byte_is_refused_or_read(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("texts")
    content = bytearray(data.draw(st.sampled_from([ROWS, LINES, PACKERS[".gz"](ROWS), PACKERS[".bz2"](LINES)])))
    suffix = ".gz" if content[:2] == b"\x1f\x8b" else ".bz2" if content[:3] == b"BZh" else ""
    form = ".jsonl" if content[:1] == b"{" or suffix == ".bz2" else ".csv"
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / f"a{form}{suffix}").write_bytes(content)
    path = folder / f"a{form}{suffix}"
    try:
        load_own(path, folder)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)


# --- IMDB


PARTS = {"train": make_texts(120), "test": make_texts(110, seed=1)}
WHOLE = Texts(*map(np.concatenate, zip(*PARTS.values(), strict=True)))


def imdb_columns():
    columns = columns_of(WHOLE, TextSchema(imdb.CLASSES, 1, text="review", label="sentiment"))
    return columns | {"split": ["train"] * 120 + ["test"] * 110, "rating": ["7"] * 230}


def write_original(folder):
    for name, texts in PARTS.items():
        write_files(folder / name, texts, ["neg", "pos"])
    write_files(folder / "train", make_texts(30, seed=2), ["unsup", "unsup"])
    (folder / "train" / "labeledBow.feat").write_text("9 0:9")
    return folder


def load_imdb(folder):
    data = DataSettings(name="imdb", dir=str(folder))
    dataset = dataset_of(data)
    return dataset.load(data, dataset.read_schema(data))


@pytest.fixture
def published(monkeypatch):
    monkeypatch.setattr(imdb, "PUBLISHED", {name: known_as(texts) for name, texts in PARTS.items()})
    monkeypatch.setitem(imdb.PUBLISHED, "train and test", known_as(WHOLE))


@pytest.mark.parametrize("container", ["csv", "csv.bz2", "csv.gz", "folder", "its content", "archive"])
def test_imdb_is_read_from_every_container_in_its_published_split(tmp_path, published, container):
    expected = PARTS
    if container.startswith("csv"):
        packing = container.removeprefix("csv")
        (tmp_path / f"imdb.csv{packing}").write_bytes(PACKERS[packing](csv_bytes(imdb_columns())))
    else:
        folder = write_original(tmp_path if container == "its content" else tmp_path / "aclImdb")
        expected = {name: by_class(texts) for name, texts in PARTS.items()}
        if container == "archive":
            pack(folder, tmp_path / "aclImdb_v1.tar.gz", inside="aclImdb")
            folder.rename(tmp_path / "elsewhere")
    records = load_imdb(tmp_path)
    assert_same_texts(opened(records.train), expected["train"])
    assert_same_texts(opened(records.test), expected["test"])
    assert records.content_hash == hash_texts(*expected.values()) and records.schema.text == "review"


def test_imdb_without_a_split_is_halved_by_the_public_rule(tmp_path, published):
    columns = imdb_columns()
    (tmp_path / "imdb.csv").write_bytes(csv_bytes({name: columns[name] for name in ("review", "sentiment")}))
    records = load_imdb(tmp_path)
    train, test = split_texts(WHOLE, 0.5)
    assert_same_texts(opened(records.train), train)
    assert_same_texts(opened(records.test), test)


def test_what_is_not_the_published_imdb_is_refused(tmp_path, monkeypatch):
    assert "data.dir is not given" in refusal(load_imdb, "")
    assert "were not found in" in refusal(load_imdb, tmp_path)
    path = tmp_path / "imdb.csv"
    path.write_bytes(csv_bytes(imdb_columns()))
    message = refusal(load_imdb, tmp_path)
    assert "the part 'train' of IMDB" in message and "60 and 60 texts per class instead of the published" in message
    path.write_bytes(csv_bytes(imdb_columns() | {"split": ["train"] * 229 + ["tset"]}))
    assert "row 230 of" in refusal(load_imdb, tmp_path) and "'tset'" in refusal(load_imdb, tmp_path)
    path.unlink()
    write_files(tmp_path / "aclImdb" / "train", PARTS["train"], ["neg", "pos"])
    assert "0 texts, too few" in refusal(load_imdb, tmp_path)


@pytest.mark.slow
def test_the_published_imdb_is_recognised():
    base = os.environ.get("PRIVSYN_DATA_DIR", Path(__file__).parents[2] / "shared" / "data")
    folder = Path(base) / "imdb"
    if not folder.is_dir():
        pytest.skip("the IMDB reviews are absent: set PRIVSYN_DATA_DIR to the folder that holds imdb/")
    records = load_imdb(folder)
    assert len(opened(records.train).texts) == len(opened(records.test).texts) == 25_000


# --- the grammar


def test_every_place_of_a_review_has_different_sentences_of_one_end_mark_and_total_probability_1():
    openers = [grammar._openers(genre) for genre in grammar_words.GENRES]
    for said in (*openers, grammar._middles("comedy"), grammar._closings()):
        assert len(set(said.texts)) == len(said.texts)
        assert all(text[-1] in ".!?" and not set(text[:-1]) & set(".!?") for text in said.texts)
        np.testing.assert_allclose(said.probabilities.sum(axis=1), 1)
        assert (said.probabilities > 0).all()
    every = [text for said in openers for text in said.texts]
    assert len(set(every)) == len(every)


def test_an_expansion_multiplies_rule_and_words():
    said = grammar.expand(
        {"{a} {b}.": (3, 1), "no {b}.": (1, 3)}, {"a": {"x": 1, "y": (1, 3)}, "b": {"u": (1, 0.5), "v": (4, 0.5)}}
    )
    found = dict(zip(said.texts, said.probabilities.T, strict=True))
    assert found.keys() == {"x u.", "x v.", "y u.", "y v.", "no u.", "no v."}
    np.testing.assert_allclose(found["y v."], [3 / 4 * 1 / 2 * 4 / 5, 1 / 4 * 3 / 4 * 1 / 2])
    np.testing.assert_allclose(found["no u."], [1 / 4 * 1 / 5, 3 / 4 * 1 / 2])
    with pytest.raises(ValueError, match="two derivations"):
        grammar.expand({"{a}.": 1, "x.": 1}, {"a": {"x": 1}})


def test_short_reviews_have_the_probability_of_their_length():
    total = np.zeros(2)
    for genre in grammar_words.GENRES:
        for opener, closing in itertools.product(grammar._openers(genre).texts, grammar._closings().texts):
            total += np.exp([grammar.log_probability(f"{opener} {closing}", label) for label in (0, 1)])
    np.testing.assert_allclose(total, grammar_words.NUM_SENTENCES[2])


@pytest.fixture(scope="module")
def drawn():
    """(reviews, their log-probabilities [n, 2] given each label)."""
    texts = grammar.draw(6000, seed=7)
    return texts, np.array([[grammar.log_probability(text, label) for label in (0, 1)] for text in texts.texts])


def test_the_mean_log_probability_of_reviews_is_the_entropy(drawn):
    texts, logarithms = drawn
    losses = -logarithms[np.arange(6000), texts.labels]
    assert abs(losses.mean() - grammar.entropy_per_text()) < 4 * losses.std() / math.sqrt(6000)
    assert losses.std() / math.sqrt(6000) < 0.01 * losses.mean()


def test_the_posterior_is_calibrated_and_knows_the_label_in_nineteen_of_twenty_reviews(drawn):
    texts, _ = drawn
    positive = np.array([grammar.posterior(text)[1] for text in texts.texts])
    for lower, upper in itertools.pairwise([0, 0.02, 0.1, 0.3, 0.7, 0.9, 0.98, 1]):
        rows = (positive >= lower) & (positive <= upper)
        stddev = math.sqrt((positive[rows] * (1 - positive[rows])).sum())
        assert rows.sum() > 50 and abs(texts.labels[rows].sum() - positive[rows].sum()) < 4 * stddev
    best = np.maximum(positive, 1 - positive)
    assert 0.93 < best.mean() < 0.97
    right = (positive > 0.5) == texts.labels
    assert abs(right.mean() - best.mean()) < 4 * math.sqrt((best * (1 - best)).sum()) / 6000


def test_reviews_parse_vary_and_have_the_stated_lengths(drawn):
    texts, logarithms = drawn
    assert np.isfinite(logarithms).all() and len(set(texts.texts)) > 0.95 * 6000
    counts = Counter(len(grammar.split_sentences(text)) for text in texts.texts)
    assert counts.keys() == grammar_words.NUM_SENTENCES.keys()
    for length, share in grammar_words.NUM_SENTENCES.items():
        assert abs(counts[length] - 6000 * share) < 4 * math.sqrt(6000 * share * (1 - share))
    for text in texts.texts:
        assert len({genre for genre in grammar_words.GENRES if f" {genre} " in text.split(".")[0] + " "}) == 1


def test_the_share_of_a_sentence_is_its_probability():
    openers = {label: Counter() for label in (0, 1)}
    texts = grammar.draw(20_000, seed=3)
    for text, label in zip(texts.texts, texts.labels, strict=True):
        openers[label][grammar.split_sentences(text)[-1]] += 1
    said = grammar._closings()
    for label, counts in openers.items():
        for text, probability in zip(said.texts, said.probabilities[label], strict=True):
            num = counts.total()
            assert abs(counts[text] - num * probability) < 5 * math.sqrt(num * probability)


def test_what_the_grammar_does_not_make_has_no_probability():
    text = "I watched this comedy last night. The jokes were very dull. I expected more."
    assert math.isfinite(grammar.log_probability(text, 0))
    no_closing = text.removesuffix(" I expected more.")
    for other in ("", "Hello.", text.replace("jokes were", "dragons were"), no_closing, text * 3):
        assert grammar.log_probability(other, 0) == grammar.log_probability(other, 1) == -math.inf
        with pytest.raises(ValueError, match="does not make the text"):
            grammar.posterior(other)


def test_the_grammar_is_a_data_set_that_is_the_same_each_time():
    one, again, other = (grammar.draw(200, seed=seed) for seed in (5, 5, 6))
    assert hash_texts(one) == hash_texts(again) != hash_texts(other)
    data = DataSettings(name="grammar")
    records = dataset_of(data).load(data, dataset_of(data).read_schema(data))
    train, test = opened(records.train), opened(records.test)
    assert len(train.texts) == records.schema.num_records == 20_000 and len(test.texts) == 4_000
    assert_same_texts(conform_texts(test, records.schema, source="s"), test)
    assert records.content_hash == hash_texts(train, test)
    assert len(set(test.texts) - set(train.texts)) > 3_000


# --- tensorflow-datasets


@pytest.fixture(scope="module")
def prepared_dir(tmp_path_factory):
    """Sets as tensorflow-datasets prepares them: labelled texts, texts alone, two texts, and no text at all."""
    library = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
    folder = tmp_path_factory.mktemp("tfds")
    texts = make_texts(120)
    features = {
        "text": library.features.Text(),
        "other": library.features.Text(),
        "label": library.features.ClassLabel(names=["neg", "pos"]),
        "number": library.features.Scalar(np.int32),
        "image": library.features.Tensor(shape=(8, 8, 3), dtype=np.uint8),
    }

    def prepare(dataset_name, keys, supervised=None, damage=None):
        def example(text, label):
            values = {"text": damage or text, "other": "x", "label": int(label), "number": 1}
            return {key: values.get(key, np.zeros((8, 8, 3), np.uint8)) for key in keys}

        class Builder(library.core.GeneratorBasedBuilder, skip_registration=True):
            name = dataset_name
            VERSION = library.core.Version("1.0.0")

            def _info(self):
                kept = library.features.FeaturesDict({key: features[key] for key in keys})
                return library.core.DatasetInfo(
                    builder=self, features=kept, supervised_keys=supervised, disable_shuffling=True
                )

            def _split_generators(self, dl_manager):
                del dl_manager
                return {"train": enumerate(map(example, *texts)), "test": enumerate(map(example, *PARTS["test"]))}

            def _generate_examples(self):
                raise NotImplementedError

        Builder(data_dir=str(folder), file_format="array_record").download_and_prepare()

    prepare("labelled", ["text", "label"])
    prepare("plain", ["text"])
    prepare("pair", ["text", "other", "label"])
    prepare("chosen", ["text", "other", "label"], ("text", "label"))
    prepare("numbers", ["number", "label"])
    prepare("captions", ["image", "text", "label"])
    prepare("latin", ["text", "label"], damage=b"caf\xe9")
    return folder


def load_tfds(folder, name):
    data = DataSettings(source=f"tfds:{name}", dir=str(folder))
    dataset = dataset_of(data)
    return dataset.load(data, dataset.read_schema(data))


def test_texts_that_tfds_prepared_are_read_back(prepared_dir):
    for name in ("labelled", "chosen"):
        records = load_tfds(prepared_dir, name)
        assert records.schema == TextSchema(("neg", "pos"), 120, declared_public=("num_records",))
        assert_same_texts(opened(records.train), PARTS["train"])
        assert_same_texts(opened(records.test), PARTS["test"])
        assert records.content_hash == hash_texts(*PARTS.values())
    plain = load_tfds(prepared_dir, "plain")
    assert plain.schema.classes == () and not opened(plain.train).labels.any()
    assert "tensorflow" not in sys.modules


def test_a_tfds_source_is_read_by_what_its_features_are(prepared_dir):
    assert "2 features of kind text" in refusal(load_tfds, prepared_dir, "pair")
    assert "0 features of kind image" in refusal(load_tfds, prepared_dir, "numbers")
    assert "not UTF-8 at byte 3" in refusal(load_tfds, prepared_dir, "latin")
    assert opened(load_tfds(prepared_dir, "captions").train).pixels.shape == (120, 8, 8, 3)
    assert "is not prepared in" in refusal(load_tfds, prepared_dir, "absent")


# --- proposals


def propose(capsys, *arguments):
    """(the schema proposed, what is said on it)."""
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    return text_schema_from_dict(json.loads(printed.out)), printed.err


@pytest.mark.parametrize("kind", ["csv", "jsonl", "folder", "archive"])
def test_a_proposal_fits_the_texts_that_it_was_made_from(tmp_path, capsys, kind):
    texts = make_texts(127)
    names = {"csv": ("review", "verdict")}.get(kind, ("text", "label"))
    columns = columns_of(texts, dataclasses.replace(FILMS, text=names[0], label=names[1]))
    folder = write_files(tmp_path / "films", texts, FILMS.classes)
    arguments = []
    if kind == "csv":
        path, arguments = tmp_path / "a.csv", ["--text", "review", "--label", "verdict"]
        path.write_bytes(csv_bytes(columns))
    elif kind == "jsonl":
        path = tmp_path / "a.jsonl"
        path.write_bytes(json_lines_bytes(columns))
    else:
        path = folder if kind == "folder" else pack(folder, tmp_path / "a.tar.gz", inside="films")
    schema, note = propose(capsys, path, *arguments)
    assert schema == TextSchema(FILMS.classes, 130, *names, declared_public=("classes", "num_records"))
    assert "private texts" in note and "classes, num_records" in note and '"unit"' in note
    assert load_own(path, tmp_path, schema).schema.classes == schema.classes


def test_a_proposal_without_labels_says_so(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes({"label": ["a", "b", ""], "author_id": ["1", "1", "2"]}))
    schema, note = propose(capsys, path, "--text", "label")
    assert schema == TextSchema((), 3, text="label", label="class", declared_public=("num_records",))
    assert "name it with --label" in note and "1 rows have no text in 'label'" in note
    assert "'author_id' seems to say whom a text belongs to" in note
    schema, _ = propose(capsys, write_files(tmp_path / "films", make_texts(5), ["", ""]))
    assert schema == TextSchema((), 5, declared_public=("num_records",))


def test_numbers_as_classes_are_proposed_in_their_order(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines_bytes({"text": ["t"] * 5, "label": [10, 9, None, 0, "other"]}))
    schema, note = propose(capsys, path)
    assert schema.classes == ("0", "9", "10", "other") and "1 rows have no label" in note


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["a.csv", "--text", "reviw"], "did you mean 'review'?"),
        (["a.csv", "--text", "review", "--label", "verdct"], "did you mean 'verdict'?"),
        (["a.csv", "--text", "review", "--label", "same"], "1 class, and utility"),
        (["a.csv", "--text", "review", "--label", "review"], "120 values, more than 100"),
        (["a.csv", "--text", "review", "--target", "verdict"], "is for tables"),
        (["a.csv", "--label", "verdict"], "give --text as well"),
        (["a.parquet", "--text", "review"], "unknown format"),
        (["films", "--text", "review"], "holds files: leave them out"),
        (["absent.jsonl"], "does not exist"),
    ],
)
def test_what_no_text_schema_can_be_proposed_for_is_refused(tmp_path, capsys, monkeypatch, arguments, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_bytes(csv_bytes(columns_of(make_texts(120), FILMS) | {"same": ["x"] * 120}))
    write_files(tmp_path / "films", make_texts(5), FILMS.classes)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and problem in printed.err
