"""Texts to ids and back without loss, vocabularies from files, and words bought by a thresholded noisy histogram."""

import base64
import hashlib
import inspect
import itertools
import json
import math
import string
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from privsyn_jax.privacy import word_release
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.transforms.tokens import END, FIRST, PAD, english_words, tokenizer_from_dict, tokenizer_of
from privsyn_jax.transforms.tokens.buy import buy_words
from privsyn_jax.transforms.tokens.pieces import Pieces, fewest, learn_pieces, public_pieces
from privsyn_jax.transforms.tokens.spacing import CLOSE, MARKS
from privsyn_jax.transforms.tokens.units import unknown_words
from privsyn_jax.transforms.tokens.words import CAP, FIRST_BYTE, FIRST_MARK, FLIP, UPPER, WordTokenizer
from privsyn_jax.types import UserError

LIST = ("the", "film", "i", "don't", "was", "good", "i'm", "10", "straße", "well", "ǆ", "ı")
PIECES = Pieces(
    (*"abcdefghijklmnopqrstuvwxyz0123456789", "mc", "str"), (*"abcdefghijklmnopqrstuvwxyz0123456789'", "ing", "er")
)
WORDS = WordTokenizer(LIST, PIECES)
ENGLISH = tokenizer_of("english", 5_000)
BYTES = tokenizer_of("bytes", 1)
STANDARD_ERRORS = 5.0

any_text = st.text(st.characters(codec="utf-8"))
cased = ["The", "FILM", "I", "Film's", "DON'T", "I'M", "fIlm", "Straße", "STRASSE", "ǅ", "Ǆ", "İ", "Σς", "xyz", "10's"]
unknown = [
    "filming",
    "McGood",
    "FILMSTER",
    "stringent's",
    "o'brien",
    "O'Brien",
    "iPod",
    "DVDs",
    "1987",
    "Good'S",
    "cafés",
]
others = [
    *unknown,
    "1٢3",
    "\u212aelvin",
    "straßen",
    "éa",
    "CAFÉS",
    "aBcDe",
    "e\u0301",
    "😀",
    "\u200d",
    "\r\n",
    " ",
    "  ",
    "   ",
    "....",
    "'''",
    "\x00",
]
pieces = st.sampled_from([*WORDS.words, *MARKS, *cased, *others])
likely_text = st.lists(st.tuples(st.sampled_from(["", " "]), pieces)).map(lambda parts: "".join(map("".join, parts)))


def bytes_of(text):
    return [FIRST_BYTE + byte for byte in text.encode()]


def ids_of(*units):
    """Ids from markers, words, marks and pieces by name, "str-" or "-ing"."""
    names = [*MARKS, *(f"{piece}-" for piece in PIECES[0]), *(f"-{piece}" for piece in PIECES[1]), *LIST]
    return [unit if isinstance(unit, int) else FIRST_MARK + names.index(unit) for unit in units]


@settings(deadline=None)
@given(any_text | likely_text)
@example(" two  spaces   and more ")
@example('"He said \'no\'," (she said) "-- the film" ... \n\n\tIt\'s 9/10.')
@example("Iıİi Straße STRASSE ﬁne ǅ ǆ ʼn ẞ")
@example("McDonald's DVDs, O'BRIEN's iPods & the naïve CAFÉS (1987-88) straßen \u212aelvin a's's's 1٢3")
@example("a" + "'s" * 3000)
def test_every_text_comes_back_exactly(text):
    for tokenizer in (WORDS, ENGLISH, BYTES):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(FIRST <= token < tokenizer.size for token in ids)


@settings(deadline=None)
@given(st.lists(st.integers(0, WORDS.size - 1)))
def test_any_ids_have_a_text_that_ends_at_end_and_knows_no_pad(ids):
    for tokenizer in (WORDS, BYTES):
        known = [token for token in ids if token < tokenizer.size]
        before = known[: known.index(END)] if END in known else known
        text = tokenizer.decode(known)
        assert text == tokenizer.decode([token for token in before if token != PAD])
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bytes_are_shifted_by_the_two_ids_of_every_tokenizer():
    assert (PAD, END, FIRST) == (0, 1, 2)
    assert BYTES.encode("aé\x00") == [2 + 0x61, 2 + 0xC3, 2 + 0xA9, 2]
    assert BYTES.decode([2 + 0x61, PAD, 2 + 0xC3, END, 2 + 0x61]) == "a\ufffd"
    assert BYTES.size == 258


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("the film was good.", ["the", "film", "was", "good", "."]),
        ("The FILM, don't", [CAP, "the", UPPER, "film", ",", "don't"]),
        ("I'm good; I was", ["i'm", "good", ";", "i", "was"]),
        ("the film's good", ["the", "film", "'s", "good"]),
        ("well-good film - the", ["well", "-", "good", "film", FLIP, "-", "the"]),
        ("the (good) film", ["the", "(", "good", ")", "film"]),
        ('the "good" film', ["the", '"', "good", '"', "film"]),
        ("'the 'film' was'", ["'", "the", FLIP, "'", "film", "'", "was", FLIP, "'"]),
        ("10/10... good<br /><br />The", ["10", "/", "10", "...", "good", "<br />", "<br />", CAP, "the"]),
        (" the.film", [FLIP, "the", ".", FLIP, "film"]),
        ("STRASSE", [UPPER, "str-", "-a", "-s", "-s", "-e"]),
        ("the Zog was", ["the", CAP, "z-", "-o", "-g", "was"]),
        ("filming filmers strings", ["film", "-ing", "film", "-er", "-s", "str-", "-ing", "-s"]),
        ("(FILMING) the", ["(", UPPER, "film", "-ing", ")", "the"]),
        ("Zog's film'll", [CAP, "z-", "-o", "-g", "'s", "film", "-'", "-l", "-l"]),
        ("McWell", [CAP, "mc-", FLIP, CAP, "well"]),
        ("O'Well the", [CAP, "o-", "-'", FLIP, CAP, "well", "the"]),
        ("the FILMs", ["the", UPPER, "film", FLIP, "s-"]),
        ("the DVDs", ["the", *bytes_of(" DVDs")]),
        ("the 1987 was 105", ["the", "1-", "-9", "-8", "-7", "was", "10", "-5"]),
        ("the mcé was", ["the", "mc-", *bytes_of("é"), "was"]),
        ("the émc was", ["the", *bytes_of(" é"), FLIP, "mc-", "was"]),
        ("straßer", ["straße", "-r"]),
        ("aBcD  the ", [*bytes_of("aBcD "), "the", *bytes_of(" ")]),
        ("日本 the", [*bytes_of("日本"), "the"]),
        ("i ing", ["i-", "i-", "-n", "-g"]),
    ],
)
def test_words_take_the_ids_that_the_rules_say(text, units):
    assert WORDS.encode(text) == ids_of(*units)


def test_markers_mean_the_next_unit_alone():
    assert WORDS.decode(ids_of(FLIP, CAP, "the", "film", UPPER, "good", FLIP, "film")) == " The film GOODfilm"
    assert WORDS.decode(ids_of("the", FLIP, CAP, *bytes_of("x"), "film", CAP)) == "thex film"


def test_a_continuation_is_glued_and_goes_on_in_the_case_of_its_word():
    assert WORDS.decode(ids_of("the", UPPER, "film", "-ing", "-er", "the", "-ing")) == "the FILMINGER theing"
    assert WORDS.decode(ids_of(CAP, "film", "-ing", ".", "-ing", "(", "-er", FLIP, "-s")) == "Filming.ing (er s"
    assert WORDS.decode(ids_of("-ing", *bytes_of("x"), "-er", "str-")) == "ingxer str"


def all_spellings(word, initials, continuations):
    """Every way to cut a word, by trying them all."""
    for cuts in range(len(word)):
        for inner in itertools.combinations(range(1, len(word)), cuts):
            first, *rest = (word[start:end] for start, end in itertools.pairwise((0, *inner, len(word))))
            if first in initials and all(piece in continuations for piece in rest):
                yield [first, *rest]


short = st.text("ab", min_size=1, max_size=4)


@settings(deadline=None)
@given(st.text("ab", min_size=1, max_size=9), st.frozensets(short, max_size=6), st.frozensets(short, max_size=6))
def test_a_word_is_cut_into_the_fewest_pieces_and_of_these_the_longest_first(word, initials, continuations):
    begin_ids = {piece: number for number, piece in enumerate(sorted(initials))}
    next_ids = {piece: 100 + number for number, piece in enumerate(sorted(continuations))}
    found = fewest(word, begin_ids, next_ids, 4)
    spellings = list(all_spellings(word, initials, continuations))
    if not spellings:
        assert found is None
    else:
        best = min(spellings, key=lambda pieces: (len(pieces), *(-len(piece) for piece in pieces)))
        assert found == [begin_ids[best[0]], *(next_ids[piece] for piece in best[1:])]


def test_merges_are_of_the_most_common_neighbours():
    # Of three each, st of the start, n g and i n are merged from the end of the alphabet; then i ng; then st o.
    words = ("sting", "sto", "sto'a", "ring", "x2", "bing")
    learned = learn_pieces(words, num_beginnings=50, num_continuations=50)
    assert learned.beginnings[:3] == ("s", "b", "r") and set(learned.beginnings[:26]) == set(string.ascii_lowercase)
    assert learned.beginnings[26:] == (*string.digits, "st")  # sto is itself a word
    assert learned.continuations[:4] == ("g", "i", "n", "t")
    assert set(learned.continuations[:27]) == {*string.ascii_lowercase, "'"}
    assert learned.continuations[27:] == (*string.digits, "ng", "ing")
    fewer = learn_pieces(words, num_beginnings=36, num_continuations=38)
    assert fewer == (learned.beginnings[:36], learned.continuations[:38])


@pytest.mark.slow
def test_the_pieces_shipped_are_those_learned_from_common_words():
    words = english_words(20_000)
    learned = learn_pieces(words, num_beginnings=500, num_continuations=700)
    assert public_pieces() == learned and (len(learned.beginnings), len(learned.continuations)) == (500, 700)
    path = Path(inspect.getfile(learn_pieces)).with_name("pieces.txt")
    comment, *lines = path.read_text().splitlines()
    assert comment.startswith("# ") and "learn_pieces(english_words(20_000), num_beginnings=500" in comment
    assert tuple(lines) == learned.names()
    assert not set(learned.beginnings) & {word for word in words if len(word) > 1}


def test_unknown_english_words_take_a_few_tokens_and_no_bytes():
    words = tuple(english_words(5_000))
    few = WordTokenizer(tuple(word for number, word in enumerate(words) if number % 5))
    unknown = [word for word in words[::5] if word.isalpha()]
    spelled = [few.encode(word) for word in unknown]
    assert min(min(ids) for ids in spelled) >= FIRST_MARK + len(MARKS)
    assert sum(map(len, spelled)) / len(unknown) < 2.6
    assert unknown_words("The " + " ".join(unknown), few.words) == set(unknown)


@pytest.mark.parametrize("tokenizer", [WORDS, ENGLISH, BYTES], ids=["words", "english", "bytes"])
def test_every_id_has_a_piece_of_its_own(tokenizer):
    assert len(tokenizer.pieces) == tokenizer.size == len(set(tokenizer.pieces))
    assert all(piece.isprintable() for piece in tokenizer.pieces)


@pytest.mark.parametrize("words", [(), LIST])
@pytest.mark.parametrize("word_pieces", [Pieces((), ()), Pieces(("a",), ()), PIECES])
@pytest.mark.parametrize("marks", [(), ((".", CLOSE),), tuple(MARKS.items())])
def test_frequencies_are_shares_and_kinds_have_no_gaps(words, word_pieces, marks):
    assert_guesses_are_valid(WordTokenizer(words, word_pieces, marks))


@pytest.mark.parametrize("tokenizer", [ENGLISH, BYTES], ids=["english", "bytes"])
def test_frequencies_are_shares_of_other_tokenizers_too(tokenizer):
    assert_guesses_are_valid(tokenizer)


def assert_guesses_are_valid(tokenizer):
    assert len(tokenizer.frequencies) == len(tokenizer.kinds) == tokenizer.size
    assert tokenizer.frequencies[PAD] == 0.0 < min(tokenizer.frequencies[END:])
    assert math.fsum(tokenizer.frequencies) == pytest.approx(1.0, rel=1e-12)
    assert set(tokenizer.kinds) == set(range(max(tokenizer.kinds) + 1))


def test_words_share_what_is_theirs_by_their_frequencies():
    shares = np.array(ENGLISH.frequencies[ENGLISH.first_word :])
    assert np.all(np.diff(shares) <= 0) and 0.6 < shares.sum() < 0.8
    words = english_words(5_000)
    assert shares / shares[0] == pytest.approx(np.array(list(words.values())) / words["the"])
    assert ENGLISH.frequencies[CAP] > max(ENGLISH.frequencies[UPPER], ENGLISH.frequencies[FLIP])
    by_place = WORDS.frequencies[WORDS.first_word :]
    assert by_place[0] / by_place[10] == pytest.approx(2.0)  # 1 / 10 to 1 / 20


def test_markers_marks_both_sorts_of_pieces_and_words_are_of_different_kinds():
    ids = [END, CAP, FIRST_BYTE, FIRST_MARK, WORDS.first_piece, WORDS.first_word - 1, WORDS.first_word, WORDS.size - 1]
    assert [WORDS.kinds[token] for token in ids] == [0, 0, 0, 1, 2, 3, 4, 4]


def test_further_words_get_the_median_of_the_known_frequencies():
    known = WordTokenizer(("the", "film", "good"), word_frequencies=(0.7, 0.01, 0.001))
    longer = known.with_words(("balrog", "elf"))
    assert longer.words == ("the", "film", "good", "balrog", "elf")
    assert longer.word_frequencies == (0.7, 0.01, 0.001, 0.01, 0.01)
    assert WORDS.with_words(("elf",)) == WordTokenizer((*LIST, "elf"), PIECES)
    assert known.with_words(()) == known


@pytest.mark.parametrize("frequency", [0.0, -1.0, math.nan, math.inf])
def test_a_frequency_that_is_no_positive_number_is_refused(frequency):
    with pytest.raises(UserError, match=f"frequency of the word 'film' is {frequency}: give a finite number above 0"):
        WordTokenizer(("the", "film"), word_frequencies=(0.5, frequency))


def test_frequencies_of_some_words_alone_are_refused():
    with pytest.raises(UserError, match="1 frequencies are given for 2 words: give one for every word, or none"):
        WordTokenizer(("the", "film"), word_frequencies=(0.5,))


@pytest.mark.parametrize("tokenizer", [WORDS, ENGLISH, BYTES], ids=["words", "english", "bytes"])
def test_an_equal_tokenizer_is_made_from_its_json(tokenizer):
    again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again == tokenizer and hash(again) == hash(tokenizer)
    assert again.frequencies == tokenizer.frequencies
    assert again.encode("The filming was 😀") == tokenizer.encode("The filming was 😀")


def test_the_marks_and_pieces_of_its_json_count_and_not_those_shipped():
    content = {"kind": "words", "words": ["film"], "marks": [[".", CLOSE]], "word_frequencies": [0.5]}
    content["word_pieces"] = {"beginnings": ["x"], "continuations": ["s"]}
    tokenizer = tokenizer_from_dict(content)
    assert tokenizer.pieces[FIRST_MARK:] == (".", "x-", "-s", "film")
    assert tokenizer.to_dict() == content
    assert tokenizer.encode("films. x") == [FIRST_MARK + 3, FIRST_MARK + 2, FIRST_MARK, FIRST_MARK + 1]
    text = "films. (x's) 'xyz' xs's Xss FILMS"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="kind is 'letters': give one of bytes, words, tokenizers, sentencepiece"):
        tokenizer_from_dict({"kind": "letters"})


def test_english_words_are_common_ones_cut_from_the_front():
    words = english_words(10_000)
    assert len(words) == 10_000 and list(words)[:3] == ["the", "to", "and"]
    assert {"a", "i", "don't", "masterpiece", "disappointing", "delicious", "hospital", "seventeen"} <= set(words)
    assert {*map(str, range(100)), *map(str, range(1950, 2031))} <= set(words)
    assert not {"b", "00", "0000", "1st", "café"} & set(words)
    assert list(words.values()) == sorted(words.values(), reverse=True)
    assert words["hospital"] == pytest.approx(1e-4, rel=0.5)


@pytest.mark.parametrize("num_words", [1, 7, 500, 999])
def test_fewer_english_words_are_the_first_of_more(num_words):
    assert list(english_words(num_words).items()) == list(english_words(1_000).items())[:num_words]


def test_the_english_tokenizer_knows_the_first_words_and_their_frequencies():
    words = english_words(7)
    expected = WordTokenizer(tuple(words), word_frequencies=tuple(words.values()))
    assert tokenizer_of("english", 7) == expected
    assert len(ENGLISH.encode("The food was terrible, and we couldn't find our hospital!")) == 13


@pytest.mark.parametrize("word", ["Film", "two words", "", "x-y", "'tis", "film ", "a1", "İ"])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(UserError, match="is no word of a vocabulary: give letters in lower case"):
        WordTokenizer(("the", word))


def test_a_word_that_stands_twice_is_refused():
    with pytest.raises(UserError, match="'film' stands twice in the vocabulary: remove one"):
        WordTokenizer(("the", "film", "film"))


def test_a_list_of_words_is_read_from_a_file(tmp_path):
    path = tmp_path / "words.TXT"
    path.write_bytes("\ufeff# public\r\nthe\r\n\r\n film\r\ncafé".encode())
    assert tokenizer_of(str(path), 10) == WordTokenizer(("the", "film", "café"))
    assert tokenizer_of(str(path), 2) == WordTokenizer(("the", "film"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the\nfilm\nthe\n", "holds 'the' in lines 1 and 3: remove one of them"),
        (b"the\nNew York\n", "line 2 is 'New York': give letters in lower case"),
        (b"the\n\xff\n", "is not UTF-8 at byte 4: save it as UTF-8"),
        (b"# nothing\n\n", "holds no words: give one word a line"),
    ],
)
def test_a_damaged_list_of_words_is_refused(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        tokenizer_of(str(path), 10)


@pytest.mark.parametrize("ending", [".txt", ".json", ".model"])
def test_an_absent_file_is_refused(tmp_path, ending):
    with pytest.raises(UserError, match=r"tokenizer file .* cannot be read \(No such file or directory\): check"):
        tokenizer_of(str(tmp_path / f"absent{ending}"), 10)


@pytest.mark.parametrize("vocabulary", ["german", "words.csv", "tokenizer"])
def test_another_name_or_ending_is_refused(vocabulary):
    with pytest.raises(UserError, match=f"tokens.vocabulary is '{vocabulary}': give english, bytes, or a file"):
        tokenizer_of(vocabulary, 10)


@pytest.mark.parametrize(("ending", "name"), [(".json", "tokenizers"), (".model", "sentencepiece")])
def test_without_its_library_the_remedy_is_named(tmp_path, monkeypatch, ending, name):
    monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / f"some{ending}"
    path.write_text("{}")
    with pytest.raises(UserError, match=rf"needs {name}, which is not installed: pip install 'privsyn_jax\[tokeniz"):
        tokenizer_of(str(path), 10)


LETTERS = "ab c"


class PretendedJson:
    """The calls of tokenizers.Tokenizer that are made: letters, one hole among the ids, and a special token."""

    @classmethod
    def from_str(cls, content):
        if content != "letters":
            raise Exception("expected value\nat line 1.")
        return cls()

    def no_truncation(self): ...

    def no_padding(self): ...

    def get_vocab(self, with_added_tokens):
        assert with_added_tokens
        return {**{letter: number for number, letter in enumerate(LETTERS)}, "<s>": 5}

    def id_to_token(self, number):
        return {number: letter for letter, number in self.get_vocab(True).items()}.get(number)

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return types.SimpleNamespace(ids=[LETTERS.index(letter) for letter in text])

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(LETTERS[number] for number in ids if number < len(LETTERS))


class PretendedPieces:
    """The calls of sentencepiece.SentencePieceProcessor that are made."""

    def __init__(self, model_proto):
        if model_proto != b"letters":
            raise RuntimeError("could not parse ModelProto")

    def get_piece_size(self):
        return len(LETTERS)

    def id_to_piece(self, number):
        return LETTERS[number]

    def encode(self, text, out_type):
        assert out_type is int
        return [LETTERS.index(letter) for letter in text]

    def decode(self, ids):
        return "".join(LETTERS[number] for number in ids)


@pytest.fixture
def pretended(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=PretendedJson))
    monkeypatch.setitem(sys.modules, "sentencepiece", types.SimpleNamespace(SentencePieceProcessor=PretendedPieces))


@pytest.mark.parametrize(("ending", "size"), [(".json", 8), (".model", 6)])
def test_ids_of_other_libraries_are_shifted_and_their_files_embedded(tmp_path, pretended, ending, size):
    path = tmp_path / f"some{ending}"
    path.write_text("letters")
    tokenizer = tokenizer_of(str(path), 1)
    path.unlink()
    assert tokenizer.encode("ba c") == [3, 2, 4, 5]
    assert tokenizer.decode([3, PAD, 2, END, 5]) == "ba" and tokenizer.decode([END]) == ""
    assert tokenizer.size == size == len(tokenizer.pieces)
    assert_guesses_are_valid(tokenizer)
    assert list(tokenizer.frequencies[FIRST:]) == sorted(tokenizer.frequencies[FIRST:], reverse=True)
    assert tokenizer.pieces[:4] == ("<pad>", "<end>", "a", "b")
    content = json.loads(json.dumps(tokenizer.to_dict()))
    assert tokenizer_from_dict(content) == tokenizer
    assert content["content"] == ("letters" if ending == ".json" else base64.b64encode(b"letters").decode())


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        (".json", "{", r"some.json is no file of the library tokenizers \(expected value at line 1\): save it again"),
        (".model", "{", r"some.model is no model of sentencepiece \(could not parse ModelProto\): save it again"),
        (".model", "", r"some.model is no model of sentencepiece \(it is empty\): save it again"),
    ],
)
def test_a_damaged_file_of_another_library_is_refused(tmp_path, pretended, ending, content, message):
    path = tmp_path / f"some{ending}"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        tokenizer_of(str(path), 1)


def test_a_file_of_the_real_library_tokenizers_is_read(tmp_path):
    library = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["the film was good", "the food was bad"] * 5, trainer)
    made.enable_truncation(3)
    path = tmp_path / "bpe.json"
    made.save(str(path))
    tokenizer = tokenizer_of(str(path), 1)
    text = "The film wasn't good 😀"
    ids = tokenizer.encode(text)
    assert tokenizer.decode([*ids, END, ids[0]]) == text
    assert min(ids) >= FIRST and max(ids) < tokenizer.size == len(tokenizer.pieces)
    assert isinstance(tokenizer.decode(list(range(tokenizer.size))), str)
    assert isinstance(tokenizer.decode(list(range(FIRST, tokenizer.size))), str)
    assert tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict()))).encode(text) == ids
    path.write_text("{}")
    with pytest.raises(UserError, match="is no file of the library tokenizers"):
        tokenizer_of(str(path), 1)


@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
def test_a_model_of_the_real_library_sentencepiece_is_read(tmp_path):
    library = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    path = tmp_path / "pieces.model"
    with path.open("wb") as model:
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(["the film was good", "the food was bad"] * 20),
            model_writer=model,
            vocab_size=290,
            hard_vocab_limit=False,
            byte_fallback=True,
            minloglevel=2,
        )
    tokenizer = tokenizer_of(str(path), 1)
    text = "the film was bad 😀"
    ids = tokenizer.encode(text)
    assert tokenizer.decode([*ids, END, ids[0]]) == text
    assert min(ids) >= FIRST and max(ids) < tokenizer.size == len(tokenizer.pieces)
    assert isinstance(tokenizer.decode(list(range(FIRST, tokenizer.size))), str)
    assert tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict()))).encode(text) == ids
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is no model of sentencepiece"):
        tokenizer_of(str(path), 1)


class NoNoise(HostNoise):
    """Zeros, and a record of the shapes and stddevs asked for."""

    def __init__(self):
        self.asked: list[tuple[tuple[int, ...], float]] = []

    def normal(self, shape, *, stddev):
        self.asked.append((shape, stddev))
        return np.zeros(shape)


records = st.lists(st.frozensets(st.sampled_from("abcdefghij")), max_size=8)


@settings(deadline=None)
@given(records, st.frozensets(st.sampled_from("abcdefghijkl")), st.integers(1, 4), st.integers(0, 8))
def test_a_record_adds_one_to_at_most_so_many_of_its_own_words_wherever_it_stands(others, record, bound, place):
    before = word_release.bounded_counts(others, bound)
    after = word_release.bounded_counts([*others[:place], record, *others[place:]], bound)
    change = {word: after.get(word, 0) - before.get(word, 0) for word in {*before, *after}}
    changed = {word for word, step in change.items() if step}
    assert set(change.values()) <= {0, 1} and changed <= record
    assert len(changed) == min(bound, len(record))
    assert changed == word_release.bounded_counts([record], bound).keys()  # no other record decides which
    assert math.sqrt(sum(step**2 for step in change.values())) <= math.sqrt(bound)


def test_which_words_a_record_counts_is_fixed_and_not_their_order():
    words = [f"w{number}" for number in range(50)]
    kept = word_release.bounded_counts([words], 5).keys()
    assert kept == word_release.bounded_counts([words[::-1]], 5).keys()
    assert kept == set(sorted(words, key=lambda word: hashlib.blake2b(word.encode(), digest_size=16).digest())[:5])


def release(records, noise, *, words_per_record=4, noise_multiplier=1.5, delta=1e-6):
    bounds = {"words_per_record": words_per_record, "noise_multiplier": noise_multiplier, "delta": delta}
    return word_release.words(records, **bounds, noise=noise)


@pytest.mark.parametrize("words_per_record", [1, 3])
def test_only_words_above_the_threshold_come_out_most_common_first(words_per_record):
    noise, delta = NoNoise(), 1e-6
    stddev = 2.0 * math.sqrt(words_per_record)
    threshold = 1 + stddev * norm.isf(delta / words_per_record)
    holders = {
        "above": math.ceil(threshold),
        "below": math.floor(threshold),
        "b": 90,
        "a": 90,
        "common": 100,
        "once": 1,
    }
    alone = [[word] for word, count in holders.items() for _ in range(count)]
    kwargs = {"words_per_record": words_per_record, "noise_multiplier": 2.0, "delta": delta}
    for order in (alone, alone[::-1]):
        released, gaussian, approximate = release(order, noise, **kwargs)
        assert released == ("common", "a", "b", "above")
    assert noise.asked == [((len(holders),), pytest.approx(stddev))] * 2
    assert gaussian == {"kind": "gaussian", "noise_multiplier": 2.0, "count": 1}
    assert approximate == {"kind": "approximate", "epsilon": 0.0, "delta": delta, "count": 1}


def test_the_same_noise_releases_the_same_words_in_whatever_order_records_stand():
    records = [[f"w{number % 60}", f"v{number % 40}"] for number in range(1200)]
    released = release(records, HostNoise(3))[0]
    assert 0 < len(released) < 100
    assert release(records[::-1], HostNoise(3))[0] == released != release(records, HostNoise(4))[0]


def test_a_word_of_one_record_comes_out_with_probability_delta_shared_by_its_words():
    delta, count, bound = 0.08, 200_000, 4
    singles = [[f"{number}.{which}" for which in range(bound)] for number in range(count // bound)]
    released, _, _ = release(singles, HostNoise(4), words_per_record=bound, delta=delta)
    error = math.sqrt(delta / bound * (1 - delta / bound) / count)
    assert abs(len(released) / count - delta / bound) < STANDARD_ERRORS * error < 0.1 * delta / bound


@pytest.mark.parametrize("noise_multiplier", [0.5, 3.0])
def test_noise_is_the_multiplier_times_the_sensitivity(noise_multiplier):
    # At a threshold of one stddev above their count, words pass by the Gaussian tail: a wrong scale changes the share.
    bound, size, delta = 9, 40_000, 0.01
    stddev = 3 * noise_multiplier
    holders = 1 + math.floor(stddev * (norm.isf(delta / bound) - 1))
    words = [f"w{number}" for number in range(size)]
    blocks = [words[start : start + bound] for start in range(0, size, bound)] * holders
    kwargs = {"words_per_record": bound, "noise_multiplier": noise_multiplier, "delta": delta}
    share = len(release(blocks, HostNoise(5), **kwargs)[0]) / size

    def expected(scale):
        return norm.sf((1 + stddev * norm.isf(delta / bound) - holders) / (scale * stddev))

    error = STANDARD_ERRORS * math.sqrt(0.25 / size)
    assert abs(share - expected(1.0)) < error
    assert abs(share - expected(1.1)) > error and abs(share - expected(0.9)) > error


def test_words_that_are_public_or_no_words_are_not_bought():
    text = "The Balrog's film, the BALROG wasn't 1984 😀 İstanbul don't films film's"
    texts = [text] * 200 + ["rare"]
    kwargs = {"words_per_record": 10, "noise_multiplier": 1.0, "delta": 1e-6, "noise": HostNoise(6)}
    found, events = buy_words(texts, ("the", "film", "don't"), num_words=10, **kwargs)
    assert set(found) == {"balrog", "wasn't", "1984", "films"}
    assert [event["kind"] for event in events] == ["gaussian", "approximate"]
    assert len(buy_words(texts, (), num_words=2, **kwargs)[0]) == 2
    bought = WordTokenizer(("the", "film", "don't", *found))
    assert bought.decode(bought.encode(text)) == text
    assert len(bought.encode("the Balrog's films")) == 5


def test_a_text_buys_no_more_words_than_its_bound():
    texts = ["alpha beta gamma delta epsilon"] * 100
    kwargs = {"num_words": 10, "noise_multiplier": 1.0, "delta": 1e-6}
    for bound, expected in ((2, 2), (5, 5)):
        found, _ = buy_words(texts, (), words_per_record=bound, noise=HostNoise(7), **kwargs)
        assert len(found) == expected
