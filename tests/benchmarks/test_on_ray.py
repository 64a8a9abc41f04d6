"""`--launcher ray`: what a task does with a run, and a grid as a person runs it, on Ray itself."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from benchmarks import on_ray as launcher
from benchmarks import options
from benchmarks.locks import WORKER, locked
from tests.benchmarks.test_command import ROOT, command, environment, ptb

GRID = ("--epochs", 2, "--seed", 1, "--seed", 2, "--checkpoint-minutes", 0)
RUNS = [f"demo-zaremba-0.5-torch-s{seed}" for seed in (1, 2)]


def figures(out):
    lines = (out / "results.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    return [(r["run"], r["first_losses"], r["test_perplexity"]) for r in results]


def worker_of(folder):
    """The number of the process that trains in a folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            given = path.read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "benchmarks.worker" in given and str(folder) in given:
            return int(path.parent.name)
    return None


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Has a run be a program that is given; its folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "job.json").write_text('{"resume": false}')

    def program(code):
        monkeypatch.setattr(launcher, "command", lambda _: [sys.executable, "-c", code])
        return folder

    return program


def test_a_run_that_is_killed_goes_on_when_it_is_started_again(runs):
    folder = runs("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(launcher.RunDiedError, match="run was killed: SIGKILL"):
        launcher._run(folder, None)
    assert not json.loads((folder / "job.json").read_text())["resume"]
    runs("pass")
    assert launcher._run(folder, None) == 0
    assert json.loads((folder / "job.json").read_text())["resume"]


def test_a_run_that_is_started_again_waits_for_the_one_before(runs, monkeypatch, capsys):
    """Where the task died, its run may still be writing its checkpoint."""
    folder = runs("pass")
    (folder / launcher.STARTED).touch()
    monkeypatch.setattr(launcher, "LAST_SECONDS", 0.1)
    with locked(folder, WORKER):
        assert launcher._run(folder, None) == 1
    assert "is in use by another run" in capsys.readouterr().out
    assert not json.loads((folder / "job.json").read_text())["resume"]
    monkeypatch.setattr(launcher, "LAST_SECONDS", 600)
    has_it = threading.Event()

    def hold():
        with locked(folder, WORKER):
            has_it.set()
            time.sleep(0.2)

    threading.Thread(target=hold).start()
    has_it.wait()
    assert launcher._run(folder, None) == 0
    assert json.loads((folder / "job.json").read_text())["resume"]


WAITS = """
import sys
print("ready", file=open({!r}, "w"), flush=True)
sys.stdin.read()
sys.exit(130)
"""


@pytest.mark.parametrize("by", ["the minutes", "a file"])
def test_a_run_is_told_to_stop_and_waited_for(runs, tmp_path, monkeypatch, by):
    ready = tmp_path / "ready"
    folder = runs(WAITS.format(str(ready)))

    def stop():
        while not ready.exists():
            time.sleep(0.05)
        (folder / launcher.STOP).touch()

    if by == "a file":
        threading.Thread(target=stop).start()
    else:
        clock = SimpleNamespace(sleep=time.sleep, monotonic=lambda: 10.0 * ready.exists())
        monkeypatch.setattr(launcher, "time", clock)
    assert launcher._run(folder, None if by == "a file" else 5.0) == 130
    assert ready.exists()
    if by == "a file":
        runs("raise AssertionError")
        assert launcher._run(folder, None) == 130, "it has not been started again"


def test_without_ray_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(typer.BadParameter, match="pip install ray"):
        options.launcher(options.LauncherName.ray, 1, 0.0, 1)


@contextmanager
def on_ray(tmp_path, *arguments):
    """The command, as it runs, once the first of its runs has a checkpoint."""
    out = tmp_path / "ray" / "out"
    process = subprocess.Popen(
        command("--out", out, *arguments, "--launcher", "ray"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path),
    )
    try:
        while not (out / RUNS[0] / "checkpoint.safetensors").exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        yield process, out
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
def test_a_grid_on_ray_is_the_same_grid_though_a_run_is_killed(tmp_path):
    ptb(tmp_path / "local", *GRID)
    with on_ray(tmp_path, *GRID) as (process, out):
        os.kill(worker_of(out / RUNS[0]), signal.SIGKILL)
        printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed
    assert json.loads((out / RUNS[0] / "job.json").read_text())["resume"], "it was killed"
    assert not json.loads((out / RUNS[1] / "job.json").read_text())["resume"]
    assert figures(out) == figures(tmp_path / "local" / "out")


@pytest.mark.slow
def test_an_interrupt_stops_all_at_a_checkpoint(tmp_path):
    with on_ray(tmp_path, "--epochs", 500, *GRID[2:]) as (process, out):
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=600)
    assert process.returncode == 130, printed
    assert f"{RUNS[0]}: stopped in epoch" in printed
    assert worker_of(out / RUNS[0]) is None
