"""The translation benchmark: how the languages are split, what is learnt, what is refused."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.sentences.average import average
from benchmarks.sentences.words import END, UNKNOWN
from benchmarks.task import DataError
from benchmarks.trained import Trained
from benchmarks.training import Run
from benchmarks.translation import page, presets, tatoeba
from benchmarks.translation.summary import REPORT
from benchmarks.translation.task import make
from benchmarks.translation.task import read as read_for
from benchmarks.translation.tatoeba import Part, load, split
from tests.support.run_module import printed_json
from tests.support.tiny_run import hooks
from tests.support.tiny_translation import (
    TINY,
    WORDS,
    config,
    short_sources,
    smaller,
    tiny_pairs,
    tiny_tatoeba,
)
from tests.support.translation_engine import engine_results

ROOT = Path(__file__).parents[2]
TATOEBA = ROOT.parent / "shared" / "data" / "tatoeba-en-fr"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", TINY)
    monkeypatch.delenv("TATOEBA_DIR", raising=False)


def trained(folder, chosen, stop_after=None):
    run = Run(make(chosen, None, tiny_tatoeba()), folder)
    if run.checkpoint.exists():
        run.resume()
    run.train(hooks(stop_after), 1e9)
    return run


# The data


def test_words_are_in_lower_case_and_punctuation_apart():
    assert tatoeba.words("Où est-elle, Tom ?") == ("où", "est", "-", "elle", ",", "tom", "?")


def test_no_english_sentence_is_in_two_parts_and_no_pair_is_lost():
    pairs = [*tiny_pairs(), ("Red dog", "un chien rouge"), ("red dog", "chien rouge")]
    parts = split(pairs, 6)
    each = [set(part.english) for part in (parts.train, parts.valid, parts.test)]
    assert [len(one) for one in each] == [len(tiny_pairs()) - 12, 6, 6]
    assert not each[0] & each[1]
    assert not each[2] & (each[0] | each[1])
    kept = {
        (english, french)
        for part in (parts.train, parts.valid, parts.test)
        for english, many in zip(part.english, part.french, strict=True)
        for french in many
    }
    assert kept == {(tatoeba.words(english), tatoeba.words(french)) for english, french in pairs}
    assert parts == split(pairs, 6)


def test_a_part_without_long_sentences_and_its_first_pairs():
    part = Part(
        (("a",), ("a", "b", "c"), ("d",), ("e",)),
        ((("x",), ("x", "y", "z"), ("y",)), (("x",),), (("x", "y", "z"),), (("z",),)),
    )
    short = part.short(2)
    assert short == Part((("a",), ("e",)), ((("x",), ("y",)), (("z",),)))
    assert short.first(1) == short.first(2) == Part((("a",),), ((("x",), ("y",)),))
    assert short.first(3) == short.first(9) == short


def test_a_source_is_read_last_word_first_and_its_empty_places_last():
    task = make(config(), None, tiny_tatoeba())
    sources = task.sources(Part((("red", "dog"), ("blue", "nobody", "ball")), ((), ())))
    number = task.english.numbers
    assert sources.tolist() == [
        [number["dog"], number["red"], 0],
        [number["ball"], UNKNOWN, number["blue"]],
    ]


def saved(folder, monkeypatch):
    """A small file in place of the real one."""
    folder.mkdir()
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as packed:
        lines = "\n".join("\t".join([*pair, "who said it"]) for pair in tiny_pairs())
        packed.writestr(tatoeba.MEMBER, lines)
    (folder / tatoeba.FILE).write_bytes(raw.getvalue())
    monkeypatch.setattr(tatoeba, "SHA256", hashlib.sha256(raw.getvalue()).hexdigest())
    monkeypatch.setattr(tatoeba, "HELD_OUT", 6)
    return folder


def test_the_folder_given_or_the_variable(tmp_path, monkeypatch):
    folder = saved(tmp_path / "tatoeba", monkeypatch)
    assert load(folder) == tiny_tatoeba()
    monkeypatch.setenv("TATOEBA_DIR", str(folder))
    assert load() == tiny_tatoeba()


@pytest.mark.parametrize("damage", ["missing", "changed", "unnamed"])
def test_what_is_not_the_file_is_refused_with_the_way_to_get_it(tmp_path, monkeypatch, damage):
    folder = saved(tmp_path / "tatoeba", monkeypatch)
    if damage == "missing":
        (folder / tatoeba.FILE).unlink()
    elif damage == "changed":
        with (folder / tatoeba.FILE).open("ab") as file:
            file.write(b"x")
    with pytest.raises(DataError, match=r"--data DIR or the variable TATOEBA_DIR"):
        load(None if damage == "unnamed" else folder)


# Pairs of one's own


def lines(pairs):
    return "".join("\t".join(pair) + "\n" for pair in pairs)


@pytest.mark.parametrize("name", ["pairs.tsv", "deu.txt", "x.TAB", "pairs"])
def test_any_file_of_pairs_is_split_and_learnt_from(tmp_path, name):
    """By its path, or as the one file of its kind in a folder."""
    path = tmp_path / name
    path.write_text("\ufeff" + lines([*tiny_pairs(), ("Red dog", "noch was", "who")]) + "\n\n")
    (tmp_path / "LICENSE").touch()
    found = load(path)
    sentences = len(tiny_pairs())
    assert (found.name, found.sha256) == (
        "own text",
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    sizes = [len(part.english) for part in (found.train, found.valid, found.test)]
    assert sizes == [sentences - 2 * (sentences // 10), sentences // 10, sentences // 10]
    for part in (found.train, found.valid, found.test):
        if ("red", "dog") in part.english:
            both = part.french[part.english.index(("red", "dog"))]
            assert set(both) == {("chien", "rouge"), ("noch", "was")}
    if name != "pairs":
        assert load(tmp_path) == found
    task = make(config(), path)
    assert (record := task.record()["translation"])["name"] == "own text"
    assert record["sha256"] == found.sha256
    assert record["pairs"]["valid"] >= sentences // 10
    assert task.train(next(task.batches(0, 0)), 0.1) > 0


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a\tb\nno tab here\n", r"line 2: the line has no tab"),
        (b"a\tb\n\nc\t \n", r"line 3: the line has no words on one side"),
        (b"\tb\n", r"line 1: the line has no words on one side"),
        (b"a\tb\nc\t\xe9\n", r"line 2: the text is not UTF-8.*0xe9"),
        ("a\tb".encode("utf-16"), r"line 1: the text is not UTF-8"),
        (b"", r"3 different first sentences.*Received: 0"),
        (b"a\tb\nA\tc\nb\tc\n", r"3 different first sentences.*Received: 2"),
    ],
)
def test_what_is_not_pairs_is_refused(tmp_path, raw, message):
    (tmp_path / "p.tsv").write_bytes(raw)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path / "p.tsv")
    assert "\n" not in str(error.value)


def test_an_unknown_zip_is_to_be_unpacked(tmp_path, monkeypatch):
    folder = saved(tmp_path / "tatoeba", monkeypatch)
    known = (folder / tatoeba.FILE).rename(folder / "another-name.zip")
    assert load(known).name == "tatoeba"
    with zipfile.ZipFile(known, "a") as packed:
        packed.writestr("more", "x")
    with pytest.raises(DataError, match=r"is a zip file\. Unpack it"):
        load(known)


def test_the_known_sentences_are_known_when_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(tatoeba, "HELD_OUT", 6)
    path = tmp_path / "sentences.txt"
    path.write_text(lines(tiny_pairs()))
    monkeypatch.setattr(tatoeba, "TEXT_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    assert load(tmp_path) == tiny_tatoeba()


@pytest.mark.parametrize("there", [[], ["a.tsv", "b.txt"], ["a.csv"]])
def test_a_folder_without_one_file_of_pairs_is_listed(tmp_path, there):
    for name in there:
        (tmp_path / name).touch()
    found = ", ".join(there) or "nothing"
    with pytest.raises(DataError, match=rf"Found: {found}\. Write the file itself after --data"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": 0}, r"The train part has no pair of at most 0 words"),
        ({"seen": 1000}, r"no word of the first sentences comes 1000 times"),
    ],
)
def test_too_few_pairs_for_a_recipe_are_refused(tmp_path, change, message):
    (tmp_path / "p.tsv").write_text(lines(tiny_pairs()))
    with pytest.raises(DataError, match=message):
        read_for(tmp_path, smaller(**change))


@pytest.mark.skipif(not TATOEBA.is_dir(), reason="the real sentences are not here")
def test_no_real_test_sentence_is_seen_in_training():
    real = load(TATOEBA)
    assert (real.name, real.sha256) == ("tatoeba", None)
    train, valid, test = (set(part.english) for part in (real.train, real.valid, real.test))
    assert (len(valid), len(test)) == (tatoeba.HELD_OUT, tatoeba.HELD_OUT)
    assert len(train) > 100_000
    assert not train & valid
    assert not test & (train | valid)


# What is learnt


def test_a_run_learns_to_translate(tmp_path, monkeypatch):
    recipe = smaller(units=24, learning_rate=1.0, batch=8, full_epochs=60, epochs=60)
    monkeypatch.setitem(presets.PRESETS, "tiny", recipe)
    run = trained(tmp_path, config(policy="none", epochs=60))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["epochs"][-1]["train_perplexity"] < 1.1
    assert result["test_perplexity"] < 1.5
    english = [" ".join(words) for words in run.task.data.test.english]
    right = [
        said == " ".join(WORDS[word] for word in reversed(source.split()))
        for source, said in result["translations"].items()
    ]
    assert list(result["translations"]) == english[: TINY.written]
    assert sum(right) >= 3
    assert result["translation"]["pairs"] == {"train": 143, "valid": 6, "test": 6}


@pytest.mark.parametrize("stop_after", [1, 30])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, stop_after):
    whole = trained(tmp_path / "whole", config())
    trained(tmp_path / "parts", config(), stop_after)
    again = trained(tmp_path / "parts", config())
    assert again.progress.final == whole.progress.final
    for name, array in whole.task.arrays().items():
        np.testing.assert_array_equal(again.task.arrays()[name], array)


@pytest.mark.parametrize("attention", [False, True])
def test_what_stands_after_a_source_is_not_read(monkeypatch, attention):
    """Whatever the embedding of no word is."""
    monkeypatch.setitem(presets.PRESETS, "tiny", smaller(attention=attention))
    task = make(config(), None, tiny_tatoeba())
    sources = short_sources(task, np.random.default_rng(0))
    before = np.full(len(sources), END, np.int32)

    def said():
        state = task.engine.begin(sources)
        return task.engine.step(before, state)[0]

    was, weights = said(), task.engine.weights()
    weights["source"][0] += 5.0
    task.engine.restore(weights, 0)
    np.testing.assert_array_equal(said(), was)
    weights["source"][2] += 5.0
    task.engine.restore(weights, 0)
    assert not np.array_equal(said(), was)


def test_with_attention_more_than_the_last_state_is_read(monkeypatch):
    """Given that state, what is said depends on the steps before."""
    monkeypatch.setitem(presets.PRESETS, "tiny", smaller(attention=True))
    task = make(config(), None, tiny_tatoeba())
    sources = short_sources(task, np.random.default_rng(0))
    h, c, steps, there = task.engine.begin(sources)
    before = np.full(len(sources), END, np.int32)
    said, _ = task.engine.step(before, [h, c, steps, there])
    beyond = np.where(there[..., None] > 0, steps, 9.0).astype(np.float32)
    np.testing.assert_array_equal(task.engine.step(before, [h, c, beyond, there])[0], said)
    assert not np.array_equal(task.engine.step(before, [h, c, -steps, there])[0], said)


def test_masks_fall_in_both_layers_in_training_alone():
    task = make(config(), None, tiny_tatoeba())
    (batch, *_) = task.batches(0, 0)
    np.testing.assert_array_equal(task.engine.costs(batch), task.engine.costs(batch))
    assert task.train(batch, 0.0) != task.train(batch, 0.0)
    encoder, decoder = task.engine.noisy
    assert encoder.calls == decoder.calls == task.calls() == 2
    assert encoder.placement.policy == decoder.placement.policy == config().placement


# The engines


@pytest.fixture(scope="module")
def on_torch():
    return engine_results("torch")


def test_step_by_step_a_translation_costs_what_it_costs_in_one(on_torch):
    for result in on_torch:
        np.testing.assert_allclose(result["stepped"], result["costs"], rtol=1e-5)
    plain, attending = (set(result["arrays"]) for result in on_torch)
    assert attending - plain == {
        prefix + name for prefix in ("", "best.") for name in ("attended.weight", "attended.bias")
    }


@pytest.mark.parametrize("backend", ["jax", "keras-torch"])
def test_an_engine_in_keras_does_what_that_in_pytorch_does(backend, on_torch):
    results = printed_json("tests.support.translation_engine", backend)
    for result, wanted in zip(results, on_torch, strict=True):
        np.testing.assert_allclose(result["losses"], wanted["losses"], rtol=1e-4)
        np.testing.assert_allclose(result["costs"], wanted["costs"], rtol=1e-3)
        np.testing.assert_allclose(result["stepped"], result["costs"], rtol=1e-4)
        assert result["last"] == pytest.approx(wanted["last"], rel=1e-3)
        assert result["said"] == wanted["said"]
        assert result["arrays"] == wanted["arrays"]


# What is printed


def result(policy, seed, test, bleu, epochs=3, preset="paper"):
    chosen = config(policy=policy, seed=seed, epochs=epochs).to_dict() | {"preset": preset}
    return {
        "config": chosen,
        "translation": {
            "pairs": {"train": 60_000, "valid": 2600, "test": 2500},
            "english": 4000,
            "french": 5000,
            "written": 2000,
        },
        "epochs": [{"train_perplexity": 9.0, "valid_perplexity": v} for v in (9.0, 6.0, 7.0)],
        "test_perplexity": test,
        "bleu": bleu,
        "signature": "tok:none",
        "translations": {"a dog .": "un chien ."},
    }


RUNS = [result("none", 1, 6.5, 30.0), result("none", 2, 6.7, 31.0), result("zaremba", 1, 5.5, 33.0)]


def test_the_table_has_the_best_epochs_figures_above_the_papers():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(REPORT.summary(RUNS))
    printed = " ".join(console.export_text().split())
    assert "none torch 2 3/3 6.60 ± 0.14 30.5 ± 0.7" in printed
    assert "zaremba 0.2 torch 1 3/3 5.50 33.0" in printed
    assert "none (paper) 5.8 25.9 zaremba 0.2 (paper) 5 29.03" in printed


def test_the_page_has_the_figures_and_translations_to_read():
    text = "\n".join(page.sections(RUNS, []))
    assert "## Translation (Tatoeba, English to French): preset `paper`" in text
    assert "60,000 pairs of sentences of at most 8 words" in text
    assert "| zaremba 0.2 | torch | 1 | 3 of 3 | 6.00 | 5.50 | 33.0 |" in text
    assert "| a dog . | un chien . | un chien . |" in text


def test_models_averaged_are_scored_together(tmp_path):
    runs = [trained(tmp_path / str(seed), config(seed=seed)) for seed in (1, 2)]
    models = [Trained(run.config, run.task, 3) for run in runs]
    line = average(models, "torch")
    alone = runs[0].progress.final
    assert line["averages"][0]["test_perplexity"] == pytest.approx(alone["test_perplexity"])
    assert line["averages"][0]["bleu"] == pytest.approx(alone["bleu"])
    assert [row["models"] for row in line["averages"]] == [1, 2]
    assert line["averages"][1]["test_perplexity"] != line["averages"][0]["test_perplexity"]
