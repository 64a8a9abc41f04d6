"""Files: whole or not at all, and one line for whatever the operating system refuses."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import files
from benchmarks.curves import new_figure, write
from benchmarks.files import FileError, read_bytes, read_json, write_atomically
from benchmarks.job import Job
from benchmarks.launch import read_results
from benchmarks.locks import LAUNCHER, LockedError, check_unlocked, locked
from tests.support.tiny_run import config, hooks, run_in

ROOT = Path(__file__).parents[2]


def refusing(monkeypatch, call, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, call, refuse)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path, monkeypatch, call, code
):
    path = tmp_path / "r.json"
    write_atomically(path, "old")
    refusing(monkeypatch, call, code)
    with pytest.raises(FileError, match=rf"r\.json cannot be written: {os.strerror(code)}\.$"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("where", ["below a file", "a folder", "too long", "no path"])
def test_a_path_that_no_file_can_have_is_refused(tmp_path, where):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = {
        "below a file": tmp_path / "file" / "x",
        "a folder": tmp_path / "folder",
        "too long": tmp_path / ("x" * 300),
        "no path": tmp_path / "x\0y",
    }[where]
    with pytest.raises(FileError, match="cannot be written: "):
        write_atomically(path, "text")
    with pytest.raises(FileError, match="cannot be read: "):
        read_bytes(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    if where != "a folder":
        with pytest.raises(FileError, match="cannot be written to: "):
            check_unlocked(path, LAUNCHER)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="not a regular file"):
        read_bytes(tmp_path / "pipe")


@pytest.mark.parametrize("text", ["", "{", "[NaN]", "-Infinity", "[" * 100_000, "1" * 10_000])
def test_what_is_not_json_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FileError, match=r"x\.json cannot be read as JSON"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(FileError, match=r"x\.json cannot be read as JSON"):
        read_json(tmp_path / "x.json")


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    write(new_figure()[0], path)
    old = path.read_bytes()
    refusing(monkeypatch, "fsync", errno.ENOSPC)
    with pytest.raises(FileError, match="No space left"):
        write(new_figure()[0], path)
    assert path.read_bytes() == old


@pytest.mark.parametrize("result", ["{", "[]", "3", '{"run": "a"}', "null"])
def test_a_damaged_result_is_an_error(tmp_path, result):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(result)
    with pytest.raises(FileError, match=r"result\.json"):
        read_results(tmp_path, ["a", "not there"])


@pytest.mark.usefixtures("tiny")
def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path, monkeypatch):
    run_in(tmp_path, config()).train(hooks(10), 1e9)
    again = run_in(tmp_path, config())
    again.resume()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refusing(monkeypatch, "fsync", errno.ENOSPC)
    with pytest.raises(FileError, match=r"checkpoint\.safetensors cannot be written: No space"):
        again.train(hooks(), 1e9)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()


SMALL_FILES = """
import resource, sys
from pathlib import Path
from benchmarks import task, worker
from benchmarks.ptb import presets
from benchmarks.ptb.task import make
from tests.support.tiny_run import TINY, tiny_corpus
presets.PRESETS["tiny"] = TINY
task.make = lambda config, data: make(config, data, tiny_corpus())
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
sys.exit(worker.main(Path({!r})))
"""


@pytest.mark.usefixtures("tiny")
def test_a_worker_that_may_not_write_ends_with_one_line(tmp_path):
    """By the operating system itself: no file may be larger than 100 bytes."""
    Job(config(epochs=1)).write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SMALL_FILES.format(str(tmp_path))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    error = done.stdout.splitlines()[-1]
    assert error.startswith("error: ")
    assert error.endswith("checkpoint.safetensors cannot be written: File too large.")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job.json", "worker.lock"]


# Locks


def test_a_folder_is_one_runs_at_a_time(tmp_path):
    folder = tmp_path / "not" / "there yet"
    with locked(folder, LAUNCHER):
        with (
            pytest.raises(LockedError, match=r"yet is in use by another run.*--out"),
            locked(folder, LAUNCHER),
        ):
            raise AssertionError("both have it")
        check_unlocked(folder, "another.lock")
    check_unlocked(folder, LAUNCHER)


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    code = (
        "from pathlib import Path\nfrom benchmarks.locks import locked, LAUNCHER\n"
        f"with locked(Path({str(tmp_path)!r}), LAUNCHER):\n"
        "    print('has it', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.readline()
        with pytest.raises(LockedError):
            check_unlocked(tmp_path, LAUNCHER)
        process.kill()
        process.wait()
    check_unlocked(tmp_path, LAUNCHER)
