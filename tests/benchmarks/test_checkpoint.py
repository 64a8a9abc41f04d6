"""Checkpoints: any damage is found, and no value goes on that no run has."""

import copy
import hashlib
import json
import math
import os
from importlib import import_module

import numpy as np
import pytest
import safetensors.numpy

from benchmarks import checkpoint
from benchmarks.checkpoint import CheckpointError, load, save
from benchmarks.job import Job
from benchmarks.trained import load as load_trained
from benchmarks.training import Run
from tests.support import tiny_captions, tiny_run, tiny_speech
from tests.support.tiny_run import config, hooks, run_in, tiny_corpus

ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)}
RECORD = {"calls": 3, "text": 'é "sha256":"' + "0" * 64 + '"'}


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "c.safetensors"
    save(path, ARRAYS, RECORD)
    return path


def test_what_is_saved_is_loaded_and_any_safetensors_reader_reads_it(small):
    arrays, record = load(small)
    assert record == RECORD
    others = safetensors.numpy.load_file(small)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        np.testing.assert_array_equal(others[name], array)


def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place(small):
    raw = small.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    stated = header["__metadata__"]["sha256"]
    assert hashlib.sha256(raw.replace(stated.encode(), b"0" * 64)).hexdigest() == stated


@pytest.mark.parametrize("bit", [0, 5, 7])
def test_a_flipped_bit_is_found_wherever_it_is(small, bit):
    raw = small.read_bytes()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << bit
        small.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"c\.safetensors"):
            load(small)


def test_a_file_that_is_cut_or_longer_is_refused(small):
    raw = small.read_bytes()
    for length in range(0, len(raw), 7):
        small.write_bytes(raw[:length])
        with pytest.raises(CheckpointError):
            load(small)
    for more in (b"\0", b" ", raw):
        small.write_bytes(raw + more)
        with pytest.raises(CheckpointError):
            load(small)


def test_parts_of_two_checkpoints_are_none(small, tmp_path):
    save(tmp_path / "other", {**ARRAYS, "w": ARRAYS["w"] + 1}, RECORD)
    one, other = small.read_bytes(), (tmp_path / "other").read_bytes()
    arrays = 8 + int.from_bytes(one[:8], "little")
    assert one[arrays:] != other[arrays:]
    small.write_bytes(one[:arrays] + other[arrays:])
    with pytest.raises(CheckpointError, match="checksum"):
        load(small)


def with_sum(raw):
    """A file with its checksum put right, as one who means harm would."""
    zeros = b"0" * 64
    assert raw.count(b'"sha256":"' + zeros) == 1
    return raw.replace(zeros, hashlib.sha256(raw).hexdigest().encode(), 1)


def crafted(arrays=ARRAYS, **metadata):
    zeros = {"sha256": "0" * 64}
    known = {"format": checkpoint.FORMAT, "record": "{}"} | zeros | metadata
    return safetensors.numpy.save(arrays, {k: v for k, v in known.items() if v is not None})


def headed(header):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (crafted(sha256=None), "has no checksum"),
        (crafted(sha256="0" * 63), "has no checksum"),
        (crafted(), "checksum is not that"),
        (crafted(format=checkpoint.WITHOUT_CHECKSUM, sha256=None), "earlier version, without a"),
        (crafted(format="pt"), "not written by this benchmark"),
        (with_sum(crafted(record=DEEP)), "nested too deeply"),
        (with_sum(crafted(record='{"a": NaN}')), "NaN is not JSON"),
        (with_sum(crafted(record="9" * 10_000)), "cannot be read as a checkpoint"),
        (with_sum(crafted(record="[1]")), "has no record"),
        (with_sum(crafted(record="")), "cannot be read as a checkpoint"),
        (headed(DEEP.encode()), "nested too deeply"),
        (headed([1]), "cannot be read as a checkpoint"),
        (headed({"__metadata__": {"format": 1}}), "not strings"),
        (headed({"__metadata__": 3}), "cannot be read as a checkpoint"),
        (headed({}), "not written by this benchmark"),
        ((2**63).to_bytes(8, "little") + b"{}", "shorter than its header says"),
        (b"\xff" * 100, "shorter than its header says"),
        (b"PK\x03\x04" + b"\0" * 100, "cannot be read as a checkpoint"),
    ],
)
def test_what_was_made_to_look_like_a_checkpoint_is_refused(tmp_path, raw, message):
    path = tmp_path / "c.safetensors"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("kind", ["missing", "folder", "no end", "too long"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / ("x" * 300 if kind == "too long" else "c")
    if kind == "folder":
        path.mkdir()
    elif kind == "no end":
        os.mkfifo(path)
    with pytest.raises(CheckpointError, match=r"no such|a directory|regular file|name too long"):
        load(path)


# What a run goes on from


@pytest.fixture
def finished(tiny, tmp_path):  # noqa: ARG001
    """A run of two epochs, stopped in its third; its folder."""
    run = run_in(tmp_path / "run", config())
    assert not run.train(hooks(80), 1e9)
    return run.folder


def changed(folder, change):
    """Change a checkpoint's arrays and record, with a checksum that is right."""
    path = folder / "checkpoint.safetensors"
    arrays, record = load(path)
    record = copy.deepcopy(record)
    change(arrays, record)
    save(path, arrays, record)


ODD_RECORDS = {
    "no identity": lambda r: r.pop("identity"),
    "identity of another kind": lambda r: r.update(identity=[1]),
    "no calls": lambda r: r.pop("calls"),
    "negative calls": lambda r: r.update(calls=-1),
    "fewer calls": lambda r: r.update(calls=r["calls"] - 1),
    "no call": lambda r: r.update(calls=0),
    "calls of another type": lambda r: r.update(calls=float(r["calls"])),
    "calls as text": lambda r: r.update(calls="80"),
    "calls as truth": lambda r: r.update(calls=True),
    "very many calls": lambda r: r.update(calls=10**400),
    "no progress": lambda r: r.pop("progress"),
    "progress of another kind": lambda r: r.update(progress=[]),
    "more in progress": lambda r: r["progress"].update(more=1),
    "less in progress": lambda r: r["progress"].pop("nats"),
    "negative epoch": lambda r: r["progress"].update(epoch=-1),
    "another epoch": lambda r: r["progress"].update(epoch=1),
    "epoch of another type": lambda r: r["progress"].update(epoch=2.0),
    "negative batch": lambda r: r["progress"].update(batch=-3),
    "batch beyond the epoch": lambda r: r["progress"].update(batch=1000),
    "nats of another type": lambda r: r["progress"].update(nats="1.0"),
    "very many nats": lambda r: r["progress"].update(nats=10**400),
    "negative seconds": lambda r: r["progress"].update(seconds=-1.0),
    "seconds that are none": lambda r: r["progress"].update(epoch_seconds=None),
    "losses of another kind": lambda r: r["progress"].update(first_losses={}),
    "losses as texts": lambda r: r["progress"]["first_losses"].__setitem__(0, "x"),
    "fewer losses": lambda r: r["progress"]["first_losses"].pop(),
    "fewer epochs": lambda r: r["progress"]["epochs"].pop(),
    "epochs of another kind": lambda r: r["progress"].update(epochs=[1, 2]),
    "an epoch without validation": lambda r: r["progress"]["epochs"][0].pop("valid_perplexity"),
    "an epoch with more": lambda r: r["progress"]["epochs"][0].update(more=1.0),
    "a figure as a text": lambda r: r["progress"]["epochs"][1].update(valid_perplexity="9"),
    "final of another kind": lambda r: r["progress"].update(final=[]),
    "final beyond numbers": lambda r: r["progress"].update(final={"test_perplexity": 10**400}),
}


@pytest.mark.parametrize("odd", ODD_RECORDS)
def test_an_odd_record_is_refused_and_changes_nothing(finished, odd):
    changed(finished, lambda _, record: ODD_RECORDS[odd](record))
    run = run_in(finished, config())
    before = run.task.arrays()
    with pytest.raises(CheckpointError, match="without --resume") as error:
        run.resume()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert run.progress.epoch == run.progress.batch == 0
    for name, array in run.task.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_numbers_that_json_lets_become_infinite_are_refused(finished):
    """A float as 1e999 is JSON, and Python reads it as infinity."""
    path = finished / "checkpoint.safetensors"
    arrays, record = load(path)
    text = json.dumps(record).replace(f'"nats": {record["progress"]["nats"]}', '"nats": 1e999')
    path.write_bytes(with_sum(crafted(arrays, record=text)))
    with pytest.raises(CheckpointError, match=r"nats must be a finite number. Received: inf"):
        run_in(finished, config()).resume()


ODD_ARRAYS = {
    "NaN": lambda a: a["output.bias"].__setitem__(3, np.nan),
    "infinity": lambda a: a["embedding"].__setitem__((0, 0), -np.inf),
    "NaN in the state": lambda a: a["carried.c"].__setitem__((0, 0, 0), np.nan),
    "another shape": lambda a: a.update({"output.bias": a["output.bias"][:-1]}),
    "turned": lambda a: a.update({"embedding": a["embedding"].T.copy()}),
    "another type": lambda a: a.update({"output.bias": a["output.bias"].astype(np.float64)}),
    "whole numbers": lambda a: a.update({"output.bias": a["output.bias"].view(np.int32)}),
    "one less": lambda a: a.pop("lstm.0.w_hh"),
    "one more": lambda a: a.update(more=np.zeros(3, np.float32)),
    "none": lambda a: a.clear(),
}


@pytest.mark.parametrize("odd", ODD_ARRAYS)
def test_odd_arrays_are_refused_and_change_nothing(finished, odd):
    changed(finished, lambda arrays, _: ODD_ARRAYS[odd](arrays))
    run = run_in(finished, config())
    before = run.task.arrays()
    with pytest.raises(CheckpointError, match="does not fit this run"):
        run.resume()
    for name, array in run.task.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    Job(config()).write(finished)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        load_trained(finished, "torch", "ptb", tiny_corpus())


@pytest.mark.parametrize("policy", ["none", "zaremba", "variational", "zoneout"])
@pytest.mark.parametrize("task", ["ptb", "speech", "captions"])
def test_every_task_goes_on_from_what_it_wrote(tmp_path, monkeypatch, task, policy):
    """Stopped before anything was measured, at the end of an epoch, and amid the second."""
    tiny, data = {
        "ptb": (tiny_run, tiny_corpus),
        "speech": (tiny_speech, tiny_speech.tiny_speech),
        "captions": (tiny_captions, tiny_captions.tiny_flickr),
    }[task]
    presets = import_module(f"benchmarks.{task}.presets").PRESETS
    monkeypatch.setitem(presets, "tiny", tiny.TINY)
    make = import_module(f"benchmarks.{task}.task").make
    steps = make(tiny.config(policy=policy), None, data()).steps
    for number, stop_after in enumerate((1, steps, steps + 1)):
        folder = tmp_path / str(number)
        Run(make(tiny.config(policy=policy), None, data()), folder).train(hooks(stop_after), 1e9)
        again = Run(make(tiny.config(policy=policy), None, data()), folder)
        again.resume()
        done = again.progress.epoch * steps + again.progress.batch
        assert done == stop_after


@pytest.mark.parametrize("best", [np.nan, -1.0, 0.0, -np.inf])
def test_an_odd_best_perplexity_is_refused(tmp_path, monkeypatch, best):
    presets = import_module("benchmarks.captions.presets").PRESETS
    monkeypatch.setitem(presets, "tiny", tiny_captions.TINY)
    make = import_module("benchmarks.captions.task").make

    def run():
        return Run(make(tiny_captions.config(), None, tiny_captions.tiny_flickr()), tmp_path)

    run().train(hooks(1), 1e9)
    run().resume()  # the first epoch has not ended, and its best perplexity is infinite
    changed(tmp_path, lambda arrays, _: arrays.update(best=np.array([best])))
    with pytest.raises(CheckpointError):
        run().resume()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("measured", ["after_epoch", "at_end"])
@pytest.mark.usefixtures("tiny")
def test_a_figure_that_is_not_finite_ends_the_run_and_is_not_saved(
    tmp_path, monkeypatch, measured, value
):
    run = run_in(tmp_path, config(epochs=1))
    found = {"train_perplexity": 3.0, "valid_perplexity": value}
    monkeypatch.setattr(run.task, measured, lambda *_: found)
    with pytest.raises(ArithmeticError, match=r"tiny-zaremba.*: valid_perplexity is (nan|inf) aft"):
        run.train(hooks(), 1e9)
    assert not list(tmp_path.iterdir())


# Its job


@pytest.mark.parametrize(
    "job",
    [
        "",
        "[]",
        "{}",
        DEEP,
        '{"config": 3}',
        '{"config": {}}',
        '{"config": {"preset": "tiny"}}',
        *(
            json.dumps({"config": config().to_dict() | odd})
            for odd in (
                {"task": "os"},
                {"preset": "none such"},
                {"preset": ["tiny"]},
                {"backend": "mxnet"},
                {"policy": 3},
                {"rate": "0.5"},
                {"seed": -1},
                {"epochs": 0},
                {"epochs": True},
                {"same_start": 1},
            )
        ),
        *(
            json.dumps({"config": config().to_dict()} | odd)
            for odd in (
                {"data": 3},
                {"resume": "yes"},
                {"processes": 0},
                {"processes": 1.0},
                {"checkpoint_minutes": -1},
                {"checkpoint_minutes": None},
            )
        ),
        json.dumps({"config": config().to_dict(), "checkpoint_minutes": math.nan}),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_an_odd_job_is_refused(tmp_path, job):
    (tmp_path / "job.json").write_text(job)
    with pytest.raises(ValueError, match=r"job\.json") as error:
        Job.read(tmp_path)
    assert type(error.value).__name__ in ("CheckpointError", "FileError")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("tiny")
def test_a_job_is_read_as_it_was_written(tmp_path):
    job = Job(config(), tmp_path / "data", True, 0.5, 2)
    job.write(tmp_path)
    assert Job.read(tmp_path) == job
