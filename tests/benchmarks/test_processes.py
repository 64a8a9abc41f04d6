"""`--processes`: on two, a run is the run that it is on one."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer

from benchmarks import options, processes
from benchmarks.checkpoint import load
from benchmarks.starts import start_difference
from tests.support import tiny_worker

ROOT = Path(__file__).parents[2]


def trained(folder, task, backend, count, stop_after=-1):
    """Train a tiny run, or go on with it; its result, and its checkpoint."""
    if backend == "torch" and count == 1:  # no need of another process
        tiny_worker.main(str(folder), task, backend, count, stop_after)
    else:
        given = (folder, task, backend, count, stop_after)
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.tiny_worker", *map(str, given)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert result["machine"]["processes"] == count
    return result, load(folder / "checkpoint.safetensors")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("task", "backend", "first", "then"),
    [
        ("ptb", "torch", 2, 1),
        pytest.param("ptb", "torch", 1, 2, marks=pytest.mark.slow),
        pytest.param("speech", "torch", 2, 2, marks=pytest.mark.slow),
        pytest.param("translation", "torch", 2, 1, marks=pytest.mark.slow),
        pytest.param("ptb", "jax", 2, 1, marks=pytest.mark.slow),
        pytest.param("ptb", "jax", 1, 2, marks=pytest.mark.slow),
        pytest.param("speech", "jax", 2, 2, marks=pytest.mark.slow),
        pytest.param("translation", "jax", 2, 2, marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one(tmp_path, monkeypatch, task, backend, first, then):
    """Stopped amid an epoch, and gone on with in as many processes or others."""
    for name in ("speech", "translation"):
        presets = import_module(f"benchmarks.{name}.presets").PRESETS
        monkeypatch.setitem(presets, "tiny", tiny_worker.TINY[name][0].TINY)
    stop_after = {"ptb": 50, "speech": 7, "translation": 40}[task]
    whole, (expected, its) = trained(tmp_path / "whole", task, backend, 1)
    trained(tmp_path / "parts", task, backend, first, stop_after)
    parts, (arrays, record) = trained(tmp_path / "parts", task, backend, then)
    steps, difference, _ = start_difference(whole["first_losses"], parts["first_losses"])
    assert steps == record["progress"]["epoch"] * {"ptb": 34, "speech": 5, "translation": 24}[task]
    assert difference < 1e-5
    assert (record["identity"], record["calls"]) == (its["identity"], its["calls"])
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, atol=1e-5, err_msg=name)
    for ours, theirs in zip(parts["epochs"], whole["epochs"], strict=True):
        timed = {"seconds", "words_per_second", "frames_per_second"}
        for figure in ours.keys() - timed:
            assert ours[figure] == pytest.approx(theirs[figure], rel=1e-5), figure


def test_what_cannot_be_shared_is_refused():
    processes.check(4, ["torch", "jax"], 20)
    with pytest.raises(processes.ProcessesError, match="tensorflow runs in one process"):
        processes.check(2, ["torch", "tensorflow"], 20)
    with pytest.raises(typer.BadParameter, match="--launcher local"):
        options.launcher(options.LauncherName.ray, 1, 0.0, 2)
