"""The captioning benchmark: what is learnt, what is kept, what is refused, what is printed."""

import copy
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.captions import flickr, page, presets, summary
from benchmarks.captions.__main__ import app
from benchmarks.captions.baselines import consensus, nearest, ngrams, retrieved
from benchmarks.captions.flickr import Part, load
from benchmarks.captions.task import Captioning, make, scores
from benchmarks.sentences.average import average
from benchmarks.sentences.page import draw
from benchmarks.task import DataError
from benchmarks.trained import load as load_trained
from benchmarks.training import Hooks, Run
from tests.support.caption_engine import engine_results
from tests.support.run_module import printed_json
from tests.support.tiny_captions import (
    TINY,
    config,
    first_batch,
    smaller,
    tiny_flickr,
)
from tests.support.tiny_run import hooks

ROOT = Path(__file__).parents[2]
FLICKR = ROOT.parent / "shared" / "data" / "flickr8k"
real = pytest.mark.skipif(not FLICKR.is_dir(), reason="Flickr8k is not beside this repository")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", TINY)
    monkeypatch.delenv("FLICKR8K_DIR", raising=False)


def made(chosen):
    return make(chosen, None, tiny_flickr())


def trained(folder, chosen, stop_after=None):
    run = Run(made(chosen), folder)
    if run.checkpoint.exists():
        run.resume()
    run.train(hooks(stop_after), 1e9)
    return run


def same(ours, expected):
    assert ours.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


# Training


def test_a_run_learns_to_say_what_an_image_shows(tmp_path, monkeypatch):
    """Only a caption's first word is left to chance: two of eleven cost log 2, the others none."""
    monkeypatch.setitem(
        presets.PRESETS, "tiny", smaller(full_epochs=60, units=16, written=3, learning_rate=1.0)
    )
    run = trained(tmp_path, config(policy="none", epochs=60, same_start=False))
    result = json.loads((tmp_path / "result.json").read_text())
    floor = 2.0 ** (2 / 11)
    assert result["finished"]
    assert result["config"]["task"] == "captions"
    assert result["epochs"][0]["train_perplexity"] > 4 * floor
    assert result["epochs"][-1]["train_perplexity"] < 1.05 * floor
    assert floor < result["best_perplexity"] < 1.05 * floor
    assert floor < result["test_perplexity"] < 1.05 * floor
    test = run.task.data.test
    assert list(result["captions"]) == list(test.names)
    for said, right in zip(result["captions"].values(), test.captions, strict=True):
        assert tuple(said.split()) in right
    assert result["bleu_1"] == pytest.approx(100.0)
    assert result["captioning"] == {
        "images": {"train": 6, "valid": 3, "test": 3},
        "vocabulary": 13,
        "written": 3,
    }
    assert run.progress.epochs[0]["words_per_second"] > 0


@pytest.mark.parametrize("stop_after", [1, 3, 5, 8])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, stop_after):
    """Of three batches an epoch."""
    whole = trained(tmp_path / "whole", config())
    trained(tmp_path / "parts", config(), stop_after)
    again = trained(tmp_path / "parts", config())
    assert whole.task.steps == 3
    assert again.progress.final == whole.progress.final
    assert again.progress.first_losses == whole.progress.first_losses
    same(again.task.arrays(), whole.task.arrays())


def scripted(monkeypatch, *valid):
    """Let the epochs' validation perplexities be these."""
    script, real = iter(valid), Captioning.perplexities

    def perplexities(self, engines, part):
        return [next(script)] if part == "valid" else real(self, engines, part)

    monkeypatch.setattr(Captioning, "perplexities", perplexities)


def test_the_best_epochs_weights_are_tested_and_the_last_go_on(tmp_path, monkeypatch):
    after = []
    run = Run(made(config()), tmp_path / "best")
    scripted(monkeypatch, 5.0, 3.0, 4.0)
    silent = hooks()
    run.train(
        Hooks(silent.batch, lambda _: after.append(run.task.engine.weights()), silent.stop), 1e9
    )
    same(run.task.best, after[1])
    assert run.progress.final["best_perplexity"] == 3.0
    scripted(monkeypatch, 5.0, 3.0, 2.0)
    last = trained(tmp_path / "last", config())
    same(run.task.engine.weights(), last.task.engine.weights())
    assert run.progress.final["test_perplexity"] != last.progress.final["test_perplexity"]
    run.task.to_best()
    same(run.task.engine.weights(), after[1])
    (tested,) = run.task.perplexities([run.task.engine], "test")
    assert run.progress.final["test_perplexity"] == tested
    assert list(run.progress.final["captions"].values()) == run.task.write([run.task.engine])


def test_the_best_epochs_weights_are_kept_through_a_checkpoint(tmp_path, monkeypatch):
    scripted(monkeypatch, 5.0, 3.0, 4.0, 6.0)
    run = trained(tmp_path, config())
    again = Run(made(config(epochs=4)), tmp_path)
    again.resume()
    same(again.task.best, run.task.best)
    same(again.task.engine.weights(), run.task.engine.weights())
    again.train(hooks(), 1e9)
    assert again.progress.final["best_perplexity"] == 3.0
    assert again.progress.final["test_perplexity"] == run.progress.final["test_perplexity"]
    same(again.task.best, run.task.best)


def test_a_finished_run_that_is_trained_for_longer_is_the_longer_run(tmp_path, monkeypatch):
    """Though it was tested with the weights of another epoch."""
    scripted(monkeypatch, 3.0, 5.0, 4.0)
    trained(tmp_path / "parts", config(epochs=2))
    longer = trained(tmp_path / "parts", config(epochs=3))
    scripted(monkeypatch, 3.0, 5.0, 4.0)
    whole = trained(tmp_path / "whole", config(epochs=3))
    assert longer.progress.final == whole.progress.final
    same(longer.task.arrays(), whole.task.arrays())


def test_batches_of_an_epoch_are_the_same_at_every_call_and_others_in_the_next():
    task = made(config())

    def words(epoch, start):
        return [
            (batch.given.tolist(), batch.words.tolist()) for batch in task.batches(epoch, start)
        ]

    first = words(0, 0)
    assert len(first) == task.steps
    assert first[1:] == words(0, 1)
    assert first != words(1, 0)


@pytest.mark.parametrize("policy", ["none", "zaremba", "variational"])
def test_padding_has_no_part_in_training(policy):
    """Beyond the end, and in rows that fill the last batch up, there may be any word."""
    task, other = (made(config(policy=policy)) for _ in range(2))
    rng = np.random.default_rng(1)
    filled = 0
    for batch in task.batches(0, 0):
        padding = batch.weight == 0.0
        beyond = np.cumsum(padding, axis=1) > 0
        assert (beyond == padding).all()
        drawn = rng.integers(1, len(task.vocabulary), (2, *padding.shape)).astype(np.int32)
        changed = batch._replace(
            words=np.where(padding, drawn[0], batch.words),
            before=np.where(padding, drawn[1], batch.before),
        )
        filled += padding.all(axis=1).sum()
        assert padding.any()
        assert task.train(batch, 0.5) == pytest.approx(other.train(changed, 0.5), rel=1e-5)
    assert filled == 3
    for name, array in task.engine.weights().items():
        np.testing.assert_allclose(other.engine.weights()[name], array, atol=1e-6)


# The engines


def test_step_by_step_a_caption_costs_what_it_costs_in_one_and_masks_fall_in_training_alone():
    task = made(config(same_start=True))
    engine, batch = task.engine, first_batch(task)
    state = engine.begin(batch.given)
    for once, again in (
        (engine.costs(batch), engine.costs(batch)),
        (state[0], engine.begin(batch.given)[0]),
        (engine.step(batch.before[:, 0], state)[0], engine.step(batch.before[:, 0], state)[0]),
    ):
        np.testing.assert_array_equal(once, again)
    assert task.calls() == 0
    assert task.train(batch, 0.0) != task.train(batch, 0.0)
    assert task.calls() == 2
    plain = made(config(policy="none"))
    assert plain.train(batch, 0.0) == plain.train(batch, 0.0)
    np.testing.assert_array_equal(plain.engine.costs(batch), engine.costs(batch))
    mean = (engine.costs(batch) * batch.weight).sum() / batch.weight.sum()
    assert plain.train(batch, 0.0) == pytest.approx(mean, rel=1e-5)


@pytest.fixture(scope="module")
def on_torch():
    return engine_results("torch")


def check_engine(result):
    np.testing.assert_allclose(result["stepped"], result["costs"], rtol=1e-5)
    image, words = np.array(result["unfed"]).transpose(1, 0, 2)
    np.testing.assert_array_equal(image, words)
    assert 0 < image.sum() < image.size


def test_an_image_and_its_words_share_a_mask_that_stays_for_a_sequence(on_torch):
    """And a caption costs the same step by step."""
    check_engine(on_torch)


@pytest.mark.parametrize("backend", ["jax", "keras-torch"])
def test_an_engine_in_keras_does_what_that_in_pytorch_does(backend, on_torch):
    result = printed_json("tests.support.caption_engine", backend)
    check_engine(result)
    assert result["unfed"] == on_torch["unfed"]
    np.testing.assert_allclose(result["losses"], on_torch["losses"], rtol=1e-4)
    np.testing.assert_allclose(result["costs"], on_torch["costs"], rtol=1e-3)
    assert result["said"] == on_torch["said"]


# The data


def saved(folder, monkeypatch):
    """Small files in place of the real ones, in another order than the parts'."""
    folder.mkdir()
    names = {"train": ["b.jpg", "c.jpg"], "dev": ["d.jpg"], "test": ["a.jpg"]}
    for part, images in names.items():
        (folder / f"Flickr_8k.{part}Images.txt").write_text("\n".join(images) + "\n")
    lines = [
        f'{image}.jpg,"{which} dog\'s {image}-ball, over there ."'
        for image in "abcd"
        for which in ("A", "The")
    ]
    (folder / "captions.txt").write_text("\n".join(["image,caption", *lines]))
    features = np.random.default_rng(0).uniform(0, 5, (4, 520)).astype(np.float32)
    features[1:3, 3] = 2.0  # the same in every training image
    order = ["d.jpg", "c.jpg", "b.jpg", "a.jpg"]
    np.savez(folder / "squeezenet11_features.npz", names=order, features=features)
    for name in flickr.SHA256:
        sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        monkeypatch.setitem(flickr.SHA256, name, sha256)
    return folder, features[:, : flickr.POOLED]


def test_images_come_with_their_own_features_and_captions(tmp_path, monkeypatch):
    folder, features = saved(tmp_path / "flickr", monkeypatch)
    data = load(folder)
    assert [part.names for part in (data.train, data.valid, data.test)] == [
        ("b.jpg", "c.jpg"),
        ("d.jpg",),
        ("a.jpg",),
    ]
    assert data.test.captions == (
        (("a", "dogs", "aball", "over", "there"), ("the", "dogs", "aball", "over", "there")),
    )
    training = features[[2, 1]]
    mean, deviation = training.mean(axis=0), training.std(axis=0).clip(min=1e-6)
    np.testing.assert_allclose(data.train.features, (training - mean) / deviation, rtol=1e-4)
    np.testing.assert_allclose(data.valid.features[0], (features[0] - mean) / deviation, rtol=1e-4)
    np.testing.assert_allclose(data.test.features[0], (features[3] - mean) / deviation, rtol=1e-4)
    first = data.train.first(1)
    assert (first.names, len(first.features), len(first.captions)) == (("b.jpg",), 1, 1)


def test_the_folder_given_or_the_variable(tmp_path, monkeypatch):
    folder, _ = saved(tmp_path / "flickr", monkeypatch)
    monkeypatch.setenv("FLICKR8K_DIR", str(folder))
    assert load().train.names == ("b.jpg", "c.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("name", [None, *flickr.SHA256])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_what_is_not_the_files_is_refused_with_the_way_to_get_them(
    tmp_path, monkeypatch, damage, name
):
    folder, _ = saved(tmp_path / "flickr", monkeypatch)
    if name is None:
        folder = None
    elif damage == "missing":
        (folder / name).unlink()
    else:
        with (folder / name).open("ab") as file:
            file.write(b"x")
    with pytest.raises(DataError, match=r"--data DIR or the variable FLICKR8K_DIR") as error:
        load(folder)
    assert name is None or name in str(error.value).split("Flickr8k (")[0]


@real
def test_the_real_images_are_in_one_part_each():
    data = load(FLICKR)
    parts = (data.train, data.valid, data.test)
    assert [len(part.names) for part in parts] == [6000, 1000, 1000]
    assert len({name for part in parts for name in part.names}) == 8000
    for part in parts:
        assert part.features.shape == (len(part.names), flickr.POOLED)
        assert {len(captions) for captions in part.captions} == {5}
    np.testing.assert_allclose(data.train.features.mean(axis=0), 0.0, atol=1e-3)
    spoken = {word for each in data.train.captions for words in each for word in words}
    assert not {word for word in spoken if word != word.lower() or "." in word}


# Captions of no model


def part_of(features, captions):
    names = tuple(f"{number}.jpg" for number in range(len(features)))
    return Part(
        names,
        np.array(features, np.float32),
        tuple(tuple(tuple(c.split()) for c in each) for each in captions),
    )


def test_images_are_near_by_the_angle_of_their_features():
    among = part_of([[1, 0], [9, 9], [0, 5], [-1, 0]], [["a"]] * 4)
    of = part_of([[1, 0.1], [0.1, 3]], [["a"]] * 2)
    assert nearest(among, of, 4).tolist() == [[0, 1, 2, 3], [2, 1, 0, 3]]
    assert nearest(among, of, 2).tolist() == [[0, 1], [2, 1]]


def test_the_consensus_is_the_caption_most_like_the_others():
    def chosen(*captions):
        return " ".join(consensus([tuple(caption.split()) for caption in captions]))

    assert chosen("the sea", "a dog runs", "a cat", "a dog runs", "a boat") == "a dog runs"
    assert chosen("x y z", "a b x", "a b c d", "q c d") == "a b c d"
    # The long one shares more, but less of what it has: F1 of 4/11 and 4/11 to 4/11 and 1/2.
    assert chosen("a b", "a c", "a d e f g h i c b") == "a b"
    # All share two words, and two of them a pair.
    assert chosen("b a q r s", "a b c d e", "a b x y z") == "a b c d e"


def test_ngrams_are_of_up_to_four_words():
    counted = ngrams(("a", "b", "a", "b", "c"))
    assert counted["a", "b"] == 2
    assert counted["a", "b", "a", "b"] == 1
    assert {len(words) for words in counted} == {1, 2, 3, 4}
    assert sum(counted.values()) == 5 + 4 + 3 + 2


def test_captions_are_taken_from_training_images():
    data = tiny_flickr()
    said = retrieved(data, 1)
    assert list(said) == ["random", "nearest image", "consensus of 20"]
    spoken = {" ".join(words) for each in data.train.captions for words in each}
    assert all(len(each) == 3 and set(each) <= spoken for each in said.values())
    assert said["nearest image"] == ["a red ball", "a blue boat", "a green dog"]
    assert said == retrieved(data, 1)
    assert len({tuple(retrieved(data, seed)["random"]) for seed in range(5)}) > 1


def test_the_command_scores_captions_of_no_model(tmp_path, monkeypatch):
    data = tiny_flickr()
    monkeypatch.setattr("benchmarks.captions.__main__.load", lambda _: data)
    done = CliRunner().invoke(app, ["baselines", "--out", str(tmp_path / "b.json")])
    assert done.exit_code == 0, done.output
    line = json.loads((tmp_path / "b.json").read_text())
    wanted = {name: scores(said, data.test) for name, said in retrieved(data, 1).items()}
    assert line["baselines"] == wanted
    assert {"task", "seed", "versions", "machine"} <= set(line)
    printed = " ".join(done.output.split())
    for name, row in wanted.items():
        assert f"{name} {row['bleu_1']:.1f} {row['bleu_4']:.1f}" in printed


def test_the_command_says_in_one_line_what_it_cannot_read(tmp_path):
    done = CliRunner().invoke(app, ["baselines", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert re.match("error: .*cannot be read", done.output)
    assert len(done.output.splitlines()) == 1


# Models averaged


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs with other seeds, whose best epoch is not their last."""
    monkeypatch.setattr(flickr, "load", lambda _: tiny_flickr())
    with monkeypatch.context() as patch:
        scripted(patch, *[3.0, 2.0, 4.0] * 2)
        done = [trained(tmp_path / str(seed), config(seed=seed)) for seed in (1, 2)]
    for run in done:
        job = {"config": run.config.to_dict(), "data": None}
        (run.folder / "job.json").write_text(json.dumps(job))
    return done


def test_the_best_epochs_of_trained_models_are_averaged_word_by_word(runs):
    models = [load_trained(run.folder, "torch", "captions", tiny_flickr()) for run in runs]
    line = average(models, "torch")
    alone, both = line["averages"]
    final = runs[0].progress.final
    assert alone["test_perplexity"] == pytest.approx(final["test_perplexity"], rel=1e-6)
    assert [alone[name] for name in ("bleu_1", "bleu_4")] == [final["bleu_1"], final["bleu_4"]]
    engines = [model.engine for model in models]
    for model, run in zip(models, runs, strict=True):
        same(model.engine.weights(), run.task.best)
    task = models[0].task
    for part in ("valid", "test"):
        wanted = task.perplexities(engines, part)[-1]
        assert both[f"{part}_perplexity"] == wanted
        assert wanted < max(task.perplexities([each], part)[0] for each in engines)
    assert both["models"] == 2
    assert both["bleu_1"] == scores(task.write(engines), task.data.test)["bleu_1"]
    assert line["captioning"] == runs[0].result()["captioning"]


def test_the_command_averages_runs(runs, tmp_path):
    folders = [str(run.folder) for run in runs]
    done = CliRunner().invoke(app, ["ensemble", *folders, "--out", str(tmp_path / "e.json")])
    assert done.exit_code == 0, done.output
    line = json.loads((tmp_path / "e.json").read_text())
    assert [member["seed"] for member in line["members"]] == [1, 2]
    assert f"{line['averages'][1]['test_perplexity']:.2f}" in done.output


# What is printed


def result(policy, seed, valid, test=None, epochs=3, preset="tiny", **more):
    chosen = config(policy=policy, seed=seed).to_dict() | {"preset": preset}
    tested = {} if test is None else {"test_perplexity": test[0], "bleu_1": test[1]}
    tested |= {} if test is None else {"bleu_4": test[2], "signature": "nrefs:5|version:x"}
    return {
        "config": chosen,
        "captioning": {
            "images": {"train": 6000, "valid": 1000, "test": 1000},
            "vocabulary": 2549,
            "written": 800,
        },
        "epochs": [{"valid_perplexity": value, "train_perplexity": 9.0} for value in valid][
            :epochs
        ],
        **tested,
        **more,
    }


RESULTS = [
    result("none", 1, [20.0, 18.0, 19.0], (17.5, 60.0, 18.0)),
    result("none", 2, [20.0, 19.0, 21.0], (18.5, 61.0, 19.0)),
    result("zaremba", 1, [19.0, 17.0, 16.5], (16.25, 62.0, 20.0)),
    result("naive", 1, [30.0, 29.0], epochs=2),
]
MEMBERS = [result("zaremba", seed, [1.0])["config"] for seed in (1, 2)]
AVERAGED = {
    "members": MEMBERS,
    "averages": [
        {
            "models": 1,
            "valid_perplexity": 16.5,
            "test_perplexity": 16.25,
            "bleu_1": 62,
            "bleu_4": 20,
        },
        {
            "models": 2,
            "valid_perplexity": 15.5,
            "test_perplexity": 15.25,
            "bleu_1": 64,
            "bleu_4": 21,
        },
    ],
}
BASELINES = {
    "baselines": {
        "random": {"bleu_1": 30.0, "bleu_4": 1.5},
        "consensus of 20": {"bleu_1": 50.5, "bleu_4": 11.25},
    }
}


def printed(table):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return " ".join(console.export_text().split())


def test_the_command_ends_with_the_papers_figures_beside_its_own():
    text = printed(summary.REPORT.summary(RESULTS))
    assert "none torch 2 3/3 18.00 ± 0.71 60.5 ± 0.7 18.5 ± 0.7" in text
    assert "zaremba 0.5 torch 1 3/3 16.25 62.0 20.0" in text
    assert "naive 0.5 torch 1 2/3 none (paper)" in text
    assert "none (paper) 8.47 23.5 zaremba (paper) 7.99 24.3" in text


def test_averages_are_printed_one_model_more_at_a_time():
    text = printed(summary.REPORT.averages(AVERAGED))
    assert "tiny zaremba 0.5, torch, seed 1 1 16.50 16.25 62.0 20.0" in text
    assert "tiny zaremba 0.5, torch, seed 2 2 15.50 15.25 64.0 21.0" in text


def sections(results, averaged=(AVERAGED,), baselines=(BASELINES,)):
    return "\n".join(page.sections(list(results), list(averaged), list(baselines)))


def test_the_page_has_the_figures_of_each_preset_and_the_averages_of_its_models():
    text = sections(RESULTS)
    assert "preset `tiny`\n\nThere are 6,000 images for training and 1,000 for the test" in text
    assert "2,549 words" in text
    assert "of 800 test images" in " ".join(text.split())
    assert "`nrefs:5|version:x`" in text
    row = "| none | torch | 2 | 3 of 3 | 18.50 ± 0.71 | 18.00 ± 0.71 | 60.5 ± 0.7 | 18.5 ± 0.7 |"
    assert row in text
    assert "| naive 0.5 | torch | 1 | 2 of 3 | 29.00 |  |  |  |" in text
    assert "| zaremba | (paper) |  |  |  | 7.99 |  | 24.3 |" in text
    assert "| zaremba 0.5 | 2 | 15.50 | 15.25 | 64.0 | 21.0 |" in text
    other = copy.deepcopy(AVERAGED)
    other["members"][0]["preset"] = "demo"
    assert "15.25" not in sections(RESULTS, [other])
    assert "15.25" not in sections(RESULTS, [])


def test_the_papers_preset_stands_beside_captions_of_no_model_and_some_to_read():
    full = [
        result(policy, 1, [18.0], (17.5, 60.0, 18.0), 1, "paper", captions={"x.jpg": said})
        for policy, said in (("none", "a dog"), ("zaremba", "two dogs"))
    ]
    text = sections(full)
    assert "| random | 30.0 | 1.5 |\n| consensus of 20 | 50.5 | 11.2 |" in text
    assert "| image | none | zaremba 0.5 |\n|---|---|---|\n| x.jpg | a dog | two dogs |" in text
    other = copy.deepcopy(BASELINES)
    other["baselines"]["random"]["bleu_4"] = 2.5
    assert "| random | 30.0 | 2.5 |" in sections(full, baselines=[other])
    assert "consensus" not in sections(full, baselines=[])


def test_a_figure_that_changes_changes_the_page():
    text = sections(RESULTS)
    for change in (
        lambda runs: runs[0]["epochs"][1].update(valid_perplexity=17.0),
        lambda runs: runs[1].update(test_perplexity=17.0),
        lambda runs: runs[2].update(bleu_4=21.0),
    ):
        changed = copy.deepcopy(RESULTS)
        change(changed)
        assert sections(changed) != text


def test_the_curves_are_drawn(tmp_path):
    (picture,) = draw(summary.REPORT, RESULTS, tmp_path)
    assert picture.name == "captions-tiny.png"
    assert picture.name in sections(RESULTS)
    assert picture.read_bytes().startswith(b"\x89PNG")


# The command


@pytest.mark.slow  # the engines are compared above
@real
def test_the_command_compares_backends_from_one_start(tmp_path):
    """An epoch of the demo; another mask or another batch would show by the second step."""
    arguments = ["--data", FLICKR, "--out", tmp_path, "--same-start", "--epochs", 1]
    for name in ("torch", "jax"):
        arguments += ["--backend", name]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.captions", *map(str, arguments), "--policy", "zaremba"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | {"COLUMNS": "90"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"zaremba +torch and jax +200 +\S+ +\d+ +yes", done.stdout)
    assert "data: Flickr8k, 6,000 images for training" in done.stdout
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert f"{line['test_perplexity']:.2f}" in done.stdout
        assert line["captioning"]["images"] == {"train": 1000, "valid": 1000, "test": 1000}
