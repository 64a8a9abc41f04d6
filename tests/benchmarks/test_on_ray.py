"""`--launcher ray`, as a person runs it: a grid of runs, one of which is killed."""

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

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


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
def test_a_grid_on_ray_is_the_same_grid_though_a_run_is_killed(tmp_path):
    ptb(tmp_path / "local", *GRID)
    with on_ray(tmp_path, *GRID) as (process, out):
        os.kill(worker_of(out / RUNS[0]), signal.SIGKILL)
        printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    assert json.loads((out / RUNS[0] / "job.json").read_text())["resume"], "it was killed"
    assert not json.loads((out / RUNS[1] / "job.json").read_text())["resume"]
    assert figures(out) == figures(tmp_path / "local" / "out")


def test_an_interrupt_stops_all_at_a_checkpoint(tmp_path):
    with on_ray(tmp_path, "--epochs", 500, *GRID[2:]) as (process, out):
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130, printed
    assert f"{RUNS[0]}: stopped in epoch" in printed
    assert worker_of(out / RUNS[0]) is None
