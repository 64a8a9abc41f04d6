"""The speech benchmark: what a batch holds, what is learnt, what is refused."""

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.recipe import learning_rate
from benchmarks.speech import frames, presets, summary
from benchmarks.speech.frames import batches, load, normalised, pieces
from benchmarks.speech.task import make
from benchmarks.task import DataError
from benchmarks.training import Run
from tests.support.tiny_run import hooks
from tests.support.tiny_speech import FEATURES, TINY, config, smaller, tiny_speech

ROOT = Path(__file__).parents[2]
AN4 = ROOT.parent / "shared" / "data" / "an4"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", TINY)
    monkeypatch.delenv("AN4_DIR", raising=False)


def test_every_frame_is_in_one_piece_and_no_piece_in_two_utterances():
    part = tiny_speech().train
    cut = pieces(part, 6)
    seen = np.concatenate([np.arange(start, stop) for start, stop, _, _ in cut])
    np.testing.assert_array_equal(seen, np.arange(len(part.frames)))
    assert all(begin <= start < stop <= end for start, stop, begin, end in cut)
    assert {(begin, end) for *_, begin, end in cut} == set(pairwise(part.edges))
    assert max(stop - start for start, stop, _, _ in cut) == 6


def test_a_frame_comes_with_its_neighbours_of_the_same_utterance():
    part = tiny_speech().train
    cut = pieces(part, TINY.window)
    row = 0
    for batch in batches(part, cut, TINY):
        assert batch.x.shape == (TINY.batch, TINY.window, 4 * FEATURES)
        for x, y, weight in zip(*batch, strict=True):
            if row == len(cut):
                assert not weight.any()
                continue
            start, stop, begin, end = cut[row]
            row += 1
            assert weight.sum() == stop - start
            for place, at in enumerate(range(start, stop)):
                near = [part.frames[min(max(at + d, begin), end - 1)] for d in (-1, 0, 1, 2)]
                np.testing.assert_array_equal(x[place], np.concatenate(near))
                assert y[place] == part.states[at]
    assert row == len(cut)


def test_features_are_scaled_by_the_training_part_alone():
    speech = tiny_speech()
    scaled = normalised(speech)
    np.testing.assert_allclose(scaled.train.frames.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(scaled.train.frames.std(0), 1.0, atol=1e-5)
    mean, deviation = speech.train.frames.mean(0), speech.train.frames.std(0)
    np.testing.assert_array_equal(scaled.test.frames, (speech.test.frames - mean) / deviation)


def test_batches_of_an_epoch_are_the_same_at_every_call_and_others_in_the_next():
    task = make(config(), None, tiny_speech())
    first = [batch.y for batch in task.batches(0, 0)]
    assert len(first) == task.steps
    np.testing.assert_array_equal(first[2:], [batch.y for batch in task.batches(0, 2)])
    assert not np.array_equal(first, [batch.y for batch in task.batches(1, 0)])


def trained(folder, chosen, stop_after=None):
    run = Run(make(chosen, None, tiny_speech()), folder)
    if run.checkpoint.exists():
        run.resume()
    run.train(hooks(stop_after), 1e9)
    return run


def test_a_run_learns_to_recognise_frames(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", smaller(full_epochs=60, units=16))
    run = trained(tmp_path, config(policy="none", epochs=60))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["finished"]
    assert result["config"]["task"] == "speech"
    assert result["epochs"][-1]["train_nats"] < result["epochs"][0]["train_nats"]
    assert result["train_accuracy"] > 90.0
    assert result["epochs"][-1]["held_out_accuracy"] > 80.0
    assert result["speech"]["train"] == {"utterances": 6, "frames": 87}
    assert run.progress.epochs[0]["frames_per_second"] > 0


@pytest.mark.parametrize("stop_after", [1, 5, 9])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, stop_after):
    whole = trained(tmp_path / "whole", config())
    trained(tmp_path / "parts", config(), stop_after)
    again = trained(tmp_path / "parts", config())
    assert again.progress.final == whole.progress.final
    for name, array in whole.task.arrays().items():
        np.testing.assert_array_equal(again.task.arrays()[name], array)


def test_padding_has_no_part_in_anything():
    """Frames beyond the end may hold any state and any value."""
    speech = tiny_speech()
    task, other = (make(config(), None, speech) for _ in range(2))
    rng = np.random.default_rng(1)
    for batch in task.batches(0, 0):
        padding = batch.weight == 0.0
        x = np.where(padding[..., None], rng.standard_normal(batch.x.shape), batch.x)
        changed = batch._replace(x=x.astype(np.float32), y=np.where(padding, 3, batch.y))
        assert task.train(batch, 0.5) == pytest.approx(other.train(changed, 0.5), rel=1e-5)


def test_masks_fall_in_training_and_not_where_frames_are_scored():
    task = make(config(same_start=True), None, tiny_speech())
    (batch, *_) = task.batches(0, 0)
    np.testing.assert_array_equal(task.engine.score(batch).nats, task.engine.score(batch).nats)
    assert task.train(batch, 0.0) != task.train(batch, 0.0)
    assert task.calls() == 2


# The data


def arrays_of(speech):
    """As a file has them."""
    arrays = {}
    for name, part in (("train", speech.train), ("test", speech.test)):
        arrays |= {
            f"{name}_feat": part.frames,
            f"{name}_state": part.states.astype(np.uint8),
            f"{name}_offset": part.edges,
        }
    return arrays


def saved(folder, monkeypatch):
    """A small file in place of the real one."""
    folder.mkdir()
    np.savez(folder / frames.FILE, **arrays_of(tiny_speech()))
    sha256 = hashlib.sha256((folder / frames.FILE).read_bytes()).hexdigest()
    monkeypatch.setattr(frames, "SHA256", sha256)
    return folder


def test_the_folder_given_or_the_variable(tmp_path, monkeypatch):
    folder = saved(tmp_path / "an4", monkeypatch)
    assert len(load(folder).train.frames) == 87
    monkeypatch.setenv("AN4_DIR", str(folder))
    assert len(load().test.frames) == 23


@pytest.mark.parametrize("damage", ["missing", "changed", "unnamed"])
def test_what_is_not_the_file_is_refused_with_the_way_to_get_it(tmp_path, monkeypatch, damage):
    folder = saved(tmp_path / "an4", monkeypatch)
    if damage == "missing":
        (folder / frames.FILE).unlink()
    elif damage == "changed":
        with (folder / frames.FILE).open("ab") as file:
            file.write(b"x")
    with pytest.raises(DataError, match=r"--data DIR or the variable AN4_DIR"):
        load(None if damage == "unnamed" else folder)


def written(path, **changed):
    arrays = arrays_of(tiny_speech()) | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_any_npz_of_the_format_is_learnt_from(tmp_path):
    """By its path, or as the one file of its kind in a folder; arrays beside the six do no harm."""
    feat = tiny_speech().train.frames
    own = written(
        tmp_path / "mine.npz",
        train_feat=feat.astype(np.float64),
        train_state=tiny_speech().train.states.astype(np.int64),
        train_offset=tiny_speech().train.edges.astype(np.uint32),
        phones=np.array(["a", "b"]),
    )
    (tmp_path / "README").touch()
    speech = load(own)
    sha256 = hashlib.sha256(own.read_bytes()).hexdigest()
    assert (speech.name, speech.sha256, speech.states) == ("own speech", sha256, FEATURES)
    np.testing.assert_array_equal(speech.train.frames, normalised(tiny_speech()).train.frames)
    assert load(tmp_path).sha256 == sha256
    task = make(config(), own)
    assert task.engine.weights()["output.bias"].shape == (FEATURES,)
    assert task.record()["speech"] == {
        "name": "own speech",
        "train": {"utterances": 6, "frames": 87},
        "held_out": {"utterances": 2, "frames": 23},
        "features": FEATURES,
        "states": FEATURES,
        "sha256": sha256,
    }
    assert task.train(next(task.batches(0, 0)), 0.1) > 0


def test_a_feature_that_never_changes_is_no_division_by_zero(tmp_path):
    speech = tiny_speech()
    train, test = speech.train.frames.copy(), speech.test.frames.copy()
    train[:, 2], test[:, 2] = 3.0, 5.0
    found = load(written(tmp_path / "x.npz", train_feat=train, test_feat=test))
    assert (found.train.frames[:, 2] == 0.0).all()
    assert (found.test.frames[:, 2] == 2.0).all()


def with_one(array, place, value):
    array = array.copy()
    array[place] = value
    return array


TRAIN = tiny_speech().train


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_state": None}, r"cannot be read as an \.npz of speech.*test_state"),
        ({"train_feat": np.array([{}, []], object)}, r"cannot be read as an \.npz of speech"),
        ({"train_feat": TRAIN.frames[:, 0]}, r"train_feat must be numbers \[frames, features\]"),
        ({"train_feat": TRAIN.frames[:, :0]}, r"train_feat must be numbers.*float32 \[87, 0\]"),
        ({"train_feat": TRAIN.frames.astype(str)}, r"train_feat must be numbers"),
        ({"train_feat": TRAIN.frames.astype(complex)}, r"train_feat must be .*complex128"),
        ({"train_feat": TRAIN.frames[:, 1:]}, r"the same number of features\. Received: 4 and 5"),
        ({"train_feat": with_one(TRAIN.frames, (3, 1), np.nan)}, r"too large or not finite"),
        ({"test_feat": tiny_speech().test.frames * np.inf}, r"test_feat is too large or not"),
        ({"train_feat": TRAIN.frames.astype(float) * 1e300}, r"train_feat is too large or not"),
        ({"train_state": TRAIN.states[:-1]}, r"a whole number for each of 87 frames"),
        ({"train_state": TRAIN.states.astype(float)}, r"a whole number for each.*float64"),
        ({"train_state": with_one(TRAIN.states, 5, -1)}, r"number the states from 0.*-1 to"),
        ({"train_state": with_one(TRAIN.states, 5, 87)}, r"number the states from 0.*to 87"),
        (
            {"train_state": with_one(TRAIN.states.astype(np.uint64), 5, 2**63)},
            r"number the states from 0.*to 9223372036854775808",
        ),
        ({"train_offset": TRAIN.edges[None]}, r"train_offset must be whole numbers"),
        ({"train_offset": TRAIN.edges.astype(float)}, r"train_offset must be whole numbers"),
        ({"train_offset": TRAIN.edges[:1]}, r"train_offset must be whole numbers.*\[1\]"),
        ({"train_offset": TRAIN.edges[1:]}, r"must rise from 0 .* 87\. Received: 13 to 87"),
        ({"train_offset": TRAIN.edges[:-1]}, r"must rise from 0 .* 87\. Received: 0 to 57"),
        ({"train_offset": TRAIN.edges[[0, 2, 1, 6]]}, r"must rise from 0"),
        ({"train_offset": TRAIN.edges[[0, 2, 2, 6]]}, r"must rise from 0"),
    ],
)
def test_what_is_not_of_the_format_is_refused(tmp_path, changed, message):
    with pytest.raises(DataError, match=message) as error:
        load(written(tmp_path / "x.npz", **changed))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["text", "empty", "npy", "pickle", "cut", "flipped", "header"])
def test_what_is_no_npz_is_refused(tmp_path, damage):
    path = written(tmp_path / "x.npz")
    raw = path.read_bytes()
    middle = len(raw) // 2
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        header = raw.replace(b"(87, 5)", b"(9**9)*")
        content = {
            "text": b"frames",
            "empty": b"",
            "pickle": pickle.dumps({"train_feat": 1}),
            "cut": raw[:middle],
            "flipped": raw[:300] + bytes([raw[300] ^ 1]) + raw[301:],
            "header": header,
        }
        assert header != raw
        path.write_bytes(content[damage])
    with pytest.raises(DataError, match=r"cannot be read as an \.npz of speech"):
        load(path)


@pytest.mark.skipif(not AN4.is_dir(), reason="the real speech is not beside this repository")
def test_the_real_speech_has_its_speakers_apart():
    speech = load(AN4)
    assert (speech.name, speech.sha256, speech.states) == ("an4", None, frames.STATES)
    assert (len(speech.train.edges), len(speech.test.edges)) == (949, 131)
    assert (len(speech.train.frames), len(speech.test.frames)) == (253_682, 35_570)
    assert max(speech.train.states.max(), speech.test.states.max()) < frames.STATES
    with np.load(AN4 / frames.FILE) as arrays:
        people = [{i.split("/")[1] for i in arrays[f"{p}_ids"]} for p in ("train", "test")]
    assert (len(people[0]), len(people[1])) == (74, 10)
    assert not people[0] & people[1]


# The command


def test_the_command_ends_with_the_papers_figures_beside_its_own():
    def result(policy, seed, train, held_out, nats):
        return {
            "config": config(policy=policy, seed=seed).to_dict(),
            "epochs": [{"held_out_accuracy": held_out, "held_out_nats": nats}] * 3,
            "train_accuracy": train,
        }

    console = Console(width=90, record=True, file=io.StringIO())
    found = [
        result("none", 1, 80.0, 60.0, 1.25),
        result("none", 2, 82.0, 62.0, 1.35),
        result("zaremba", 1, 70, 65, 0.9),
    ]
    console.print(summary.summary(found))
    printed = " ".join(console.export_text().split())
    assert "none torch 2 3/3 81.0 ± 1.4 61.0 ± 1.4 1.30 ± 0.07" in printed
    assert "zaremba 0.5 torch 1 3/3 70.0 65.0 0.90" in printed
    assert "none (paper) 71.6 68.9 zaremba (paper) 69.4 70.5" in printed


@pytest.mark.skipif(not AN4.is_dir(), reason="the real speech is not beside this repository")
def test_the_command_compares_backends_from_one_start(tmp_path):
    """An epoch of the demo; another mask or another batch would show by the second step."""
    arguments = ["--data", AN4, "--out", tmp_path, "--same-start", "--epochs", 1]
    for name in ("torch", "jax"):
        arguments += ["--backend", name]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speech", *map(str, arguments), "--policy", "zaremba"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | {"COLUMNS": "80"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"zaremba +torch and jax +24 +\S+ +\d+ +yes", done.stdout)
    assert "data: AN4, 253,682 frames" in done.stdout


def test_the_command_refuses_in_one_line(tmp_path):
    known = {k: v for k, v in os.environ.items() if k != "AN4_DIR"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speech", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=known,
        check=False,
    )
    assert done.returncode == 1
    assert "error:" in done.stdout
    assert "Found: nothing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_learning_rate_falls():
    rates = [learning_rate(TINY, [{}] * done) for done in (0, 9, 10, 11)]
    assert rates == [0.5, 0.5, 0.25, 0.125]


def test_the_first_utterances_of_a_part():
    part = tiny_speech().train.first(2)
    assert list(part.edges) == [0, 13, 19]
    assert len(part.frames) == len(part.states) == 19
