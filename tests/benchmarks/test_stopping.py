"""A launcher that stops or is killed: its workers write a checkpoint and end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import launch, stopping
from benchmarks.checkpoint import load
from benchmarks.launch import configure, one_by_one
from benchmarks.locks import LAUNCHER, WORKER, LockedError, check_unlocked, locked
from benchmarks.processes import INTERRUPTED
from tests.benchmarks.test_command import ROOT, command, environment, ptb

STOPPING = """
import signal, sys, time
from pathlib import Path
from benchmarks.stopping import UNTIL_INPUT_ENDS, on_signals, when_input_ends
stopped = []
on_signals(lambda *_: None)  # signals alone do not end it: the pipe does
assert sys.argv[1:] == [UNTIL_INPUT_ENDS]
when_input_ends(lambda: stopped.append(1))
Path({0!r}, "started").touch()
while not stopped:
    time.sleep(0.01)
Path({0!r}, "saved").touch()
sys.exit(130)
"""

LAUNCHING = """
import sys
from pathlib import Path
from benchmarks import launch
from benchmarks.stopping import signals_interrupt
launch.command = lambda folder: [sys.executable, "-c", {1!r}]
with signals_interrupt():
    code = launch.one_by_one([Path({0!r}), Path({0!r}, "never")], None)
print("code", code)
"""


def wait_for(condition):
    while not condition():
        time.sleep(0.02)


def is_running(pid):
    """Whether there is such a process, and it is not just waiting to be asked how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_a_launcher_that_is_killed_stops_its_worker_at_a_checkpoint(tmp_path, how):
    """The worker itself gets no signal, as when a launcher is killed by its number."""
    worker = STOPPING.format(str(tmp_path))
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHING.format(str(tmp_path), worker)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        # Where the tests run under nohup, hangups are ignored, and would be here.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    wait_for((tmp_path / "started").exists)
    launcher.send_signal(getattr(signal, how))
    printed, _ = launcher.communicate()
    wait_for((tmp_path / "saved").exists)
    if how == "SIGKILL":
        assert launcher.returncode == -signal.SIGKILL
    else:
        assert printed == "code 130\n", "it waits for the worker, and begins no other"


def test_a_hangup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.signals_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def programs(monkeypatch, folder, code):
    monkeypatch.setattr(launch, "command", lambda _: [sys.executable, "-c", code])
    return [folder / "a", folder / "b"]


def test_no_run_begins_when_the_time_is_over(tmp_path, monkeypatch):
    folders = programs(monkeypatch, tmp_path, STOPPING.format(str(tmp_path)))
    assert one_by_one(folders, 0.0) == INTERRUPTED
    (tmp_path / "none").mkdir()
    ends = f"from pathlib import Path; Path({str(tmp_path / 'none')!r}, 'x').touch(exist_ok=False)"
    folders = programs(monkeypatch, tmp_path, ends)
    assert one_by_one(folders, 0.0) == INTERRUPTED, "the first ended at once, the time too"


def test_a_worker_that_is_killed_is_said_to_be(tmp_path, monkeypatch, capsys):
    folders = programs(monkeypatch, tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert one_by_one(folders, None) == 128 + signal.SIGKILL
    assert capsys.readouterr().out == "error: a was killed: SIGKILL.\n"


# A folder that is in use


def launched(out, *seeds):
    configs = configure("ptb", "demo", ["torch"], ["none"], None, seeds, 1)
    return launch.launch(configs, None, out, False, 5.0, None, lambda *_: 0, 1)


@pytest.mark.parametrize("name", [LAUNCHER, WORKER])
def test_a_second_launch_is_refused_before_it_writes(tmp_path, name):
    """While the first launcher lives, and while its worker does, that may outlive it."""
    assert launched(tmp_path, 1, 2) == (0, [])
    folder = tmp_path / "demo-none-torch-s2"
    (folder / "job.json").write_text("the first's")
    with locked(folder, name), pytest.raises(LockedError, match=r"s2 is in use by another run"):
        launched(tmp_path, 1, 2)
    assert (folder / "job.json").read_text() == "the first's"
    check_unlocked(tmp_path / "demo-none-torch-s1", LAUNCHER)
    assert launched(tmp_path, 1, 2) == (0, [])
    assert json.loads((folder / "job.json").read_text())["config"]["seed"] == 2


def test_what_is_named_twice_runs_once():
    configs = configure("ptb", "demo", ["torch", "torch"], ["none"], None, [1, 2, 1], 1)
    assert [config.seed for config in configs] == [1, 2]


# The whole of it


def workers_of(folder):
    """The processes that train in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            given = path.read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(folder) in given:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("backend", "processes", "killed"),
    [
        ("torch", 1, "launcher"),
        pytest.param("torch", 2, "launcher", marks=pytest.mark.slow),
        pytest.param("torch", 2, "torchrun", marks=pytest.mark.slow),
        pytest.param("jax", 2, "launcher", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_leaves_no_process_and_goes_on(tmp_path, backend, processes, killed):
    arguments = ("--backend", backend, "--processes", processes, "--checkpoint-minutes", 0)
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("--out", out, *arguments, "--epochs", 99),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path),
    )
    folder = out / f"demo-zaremba-0.5-{backend}-s1"
    path = folder / "checkpoint.safetensors"
    wait_for(lambda: path.exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    workers = workers_of(folder)
    assert len(workers) == 1 + (processes if backend == "torch" and processes > 1 else 0)
    second = ptb(tmp_path, *arguments, code=1)
    assert "is in use by another run" in second
    if killed == "launcher":
        process.kill()
    else:
        (agent,) = (pid for pid in workers if parent_of(pid) == process.pid)
        os.kill(agent, signal.SIGKILL)
    printed, _ = process.communicate()
    wait_for(lambda: not any(map(is_running, workers)))
    if killed == "torchrun":
        assert "was killed: SIGKILL" in printed
    check_unlocked(folder, WORKER)
    _, record = load(path)
    progress = record["progress"]
    stopped = f"stopped in epoch {progress['epoch'] + 1}, batch {progress['batch']}."
    assert stopped in printed, "the last checkpoint is that of the stop"
    resumed = ptb(tmp_path, *arguments, "--resume", "--epochs", progress["epoch"] + 1)
    assert "error" not in resumed


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
