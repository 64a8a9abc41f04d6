"""Functions in C: kept for the next process, compiled once, and whatever is wrong with a compiler,
all goes on without it, and one warning says so."""

import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import dropout_policies as dp
from dropout_policies.compilation import cache as compile_cache
from dropout_policies.compilation import compiler, libraries
from dropout_policies.masks import compiled_bits, keyed

SHAPE = (3, 2, 5)


@pytest.fixture(autouse=True)
def _nothing_else_is_set(monkeypatch):
    for name in ("CC", "DROPOUT_POLICIES_COMPILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv(compile_cache.SETTING, str(folder))
    return folder


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a compiler as a shell script, names it by CC, and tells how often it has started."""

    def write(text='exec cc "$@"'):
        program, starts = tmp_path / "cc", tmp_path / "starts"
        program.write_text(f'#!/bin/sh\necho >> "{starts}"\n{text}\n')
        program.chmod(0o755)
        monkeypatch.setenv("CC", str(program))
        return lambda: len(starts.read_text()) if starts.exists() else 0

    return write


def as_in_a_new_process():
    return libraries.Libraries()


def right(functions):
    """Whether these functions draw the bits of the core."""
    key, rate, row = (3, 2**32 - 4), 0.4, 7
    kept = np.empty(SHAPE, bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_bits, "compiled_library", lambda *_: functions)
        compiled_bits.write_keep_bits(key, keyed.threshold(rate), SHAPE, row, kept.ctypes.data)
    return np.array_equal(kept, keyed.keep_bits(key, rate, SHAPE, row))


def test_what_one_process_compiled_the_next_one_finds(cache, written, monkeypatch):
    starts = written()
    first = as_in_a_new_process()
    assert right(first(compiled_bits.SOURCE))
    assert "and kept" in first.status()["keyed.c"]
    assert starts() == 1
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    second = as_in_a_new_process()
    assert right(second(compiled_bits.SOURCE))
    assert second.status() == {"keyed.c": "in use, from the cache"}
    assert first(compiled_bits.SOURCE) is first(compiled_bits.SOURCE)
    assert [path.suffix for path in cache.iterdir()] == [".so"]


def test_another_flag_or_compiler_is_another_file(cache, written, monkeypatch):
    written()
    assert right(as_in_a_new_process()(compiled_bits.SOURCE))
    assert right(as_in_a_new_process()(compiled_bits.SOURCE, "-DDOUBLE"))
    monkeypatch.delenv("CC")
    assert right(as_in_a_new_process()(compiled_bits.SOURCE))
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", [lambda data: data[:2000], lambda data: bytes(len(data))])
def test_what_is_damaged_is_compiled_again(cache, written, damage):
    starts = written()
    as_in_a_new_process()(compiled_bits.SOURCE)
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    kept.unlink()  # what is loaded is mapped to its old bytes
    kept.write_bytes(damage(content))
    assert right(as_in_a_new_process()(compiled_bits.SOURCE))
    assert starts() == 2
    (kept,) = cache.iterdir()
    assert kept.read_bytes() == content or len(kept.read_bytes()) > 2000


def warned(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    assert all(each.category is dp.PolicyWarning for each in found)
    return result, [str(each.message) for each in found]


LAST = "for last; do :; done; "
ODD = {
    "fails": ("echo 'keyed.c: error: no such thing'; exit 3", "exit code 3", "error: no such"),
    "fails with odd bytes": ("printf '\\377 error\\033[31m\\0 x\\n'; exit 1", "error[31m x", ""),
    "fails without a word": ("exit 1", "exit code 1 for keyed.c.", ""),
    "is ended": ("kill -9 $$", "exit code -9", ""),
    "makes nothing": ("exit 0", "made no library", ""),
    "makes no library": (LAST + 'echo text > "$last"', "cannot be", "file too short"),
}


@pytest.mark.parametrize("which", ODD)
def test_a_compiler_that_fails_is_one_warning(which, cache, written):
    script, *words = ODD[which]
    written(script)
    library = as_in_a_new_process()
    functions, messages = warned(lambda: library(compiled_bits.SOURCE))
    assert functions is None
    (message,) = messages
    assert "On a CPU, drawing masks takes longer" in message
    assert "DROPOUT_POLICIES_COMPILE=0" in message
    for word in words:
        assert word in message
    _, messages = warned(
        lambda: [library(compiled_bits.SOURCE), library(compiled_bits.SOURCE, "-DX")]
    )
    assert not messages, "one in a process"
    assert not list(cache.iterdir()), "nothing of it is kept"


@pytest.mark.parametrize("cc", ["gcc '", "no-such-compiler -O2", "''", "/", "./no/such"])
@pytest.mark.usefixtures("cache")
def test_a_compiler_that_is_none_is_one_warning(cc, monkeypatch):
    monkeypatch.setenv("CC", cc)
    functions, messages = warned(lambda: as_in_a_new_process()(compiled_bits.SOURCE))
    assert functions is None
    assert len(messages) == 1
    assert "CC" in messages[0]


@pytest.mark.parametrize("cc", ["", "  "])
@pytest.mark.usefixtures("cache")
def test_an_empty_cc_is_none(cc, monkeypatch):
    monkeypatch.setenv("CC", cc)
    functions, messages = warned(lambda: as_in_a_new_process()(compiled_bits.SOURCE))
    assert right(functions)
    assert not messages


@pytest.mark.parametrize(
    "noise", ["printf '\\377\\376' >&2", "head -c 3000000 /dev/zero", "sleep 100 &", "cd /"]
)
@pytest.mark.usefixtures("cache")
def test_a_compiler_that_is_odd_but_works_is_used(noise, written):
    """One that leaves a server running holds what it prints to open."""
    written(f'{noise}\nexec cc "$@"')
    functions, messages = warned(lambda: as_in_a_new_process()(compiled_bits.SOURCE))
    assert right(functions)
    assert not messages


@pytest.mark.usefixtures("cache")
def test_a_compiler_that_hangs_is_ended_with_all_it_started(tmp_path, written, monkeypatch):
    started = tmp_path / "started"
    starts = written(f'sleep 1000 & echo $! > "{started}"; wait')
    monkeypatch.setattr(compiler, "SECONDS", 0.5)
    library = as_in_a_new_process()
    functions, messages = warned(lambda: library(compiled_bits.SOURCE))
    assert functions is None
    (message,) = messages
    assert "did not finish within 0.5 seconds" in message
    child = Path("/proc", started.read_text().strip(), "stat")
    end = time.monotonic() + 60
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < end, "still there"
        time.sleep(0.01)
    assert warned(lambda: library(compiled_bits.SOURCE, "-DX")) == (None, [])
    assert starts() == 1, "it would not end for the next file either"


def test_an_interrupt_ends_the_compiler(written, cache, monkeypatch):
    written("exec sleep 1000")
    ended = []

    def interrupted(process, *_):
        if not ended:
            ended.append(process.pid)
            raise KeyboardInterrupt
        return waiting(process)

    waiting = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    library = as_in_a_new_process()
    with pytest.raises(KeyboardInterrupt):
        library(compiled_bits.SOURCE)
    with pytest.raises(ProcessLookupError):
        os.killpg(ended[0], 0)
    written()
    assert right(library(compiled_bits.SOURCE)), "it can be tried again"
    assert not list(cache.glob("*.lock"))


@pytest.mark.usefixtures("cache")
def test_a_users_own_choice_is_no_warning(written, monkeypatch):
    starts = written()
    monkeypatch.setenv("DROPOUT_POLICIES_COMPILE", "0")
    library = as_in_a_new_process()
    assert warned(lambda: library(compiled_bits.SOURCE)) == (None, [])
    assert starts() == 0
    assert "DROPOUT_POLICIES_COMPILE=0" in library.status()["keyed.c"]


@pytest.mark.usefixtures("cache")
def test_a_warning_that_is_an_error_comes_once_too(written):
    starts = written("exit 1")
    library = as_in_a_new_process()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(dp.PolicyWarning):
            library(compiled_bits.SOURCE)
        assert library(compiled_bits.SOURCE) is None
    assert starts() == 1


def unsafe(folder, _):
    folder.mkdir()
    folder.chmod(0o777)


def a_file(folder, _):
    folder.write_text("")


def full(_, monkeypatch):
    def replace(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)


def unknown_processor(_, monkeypatch):
    monkeypatch.setattr(compile_cache, "_processor", lambda: "")


def lets_nothing_run(folder, monkeypatch):
    def load(path):
        if path and path.startswith(str(folder)):
            raise OSError("failed to map segment from shared object")
        return loading(path)

    loading = libraries.ctypes.CDLL
    monkeypatch.setattr(libraries.ctypes, "CDLL", load)


WORDS = {
    unsafe: "writable by other users",
    a_file: "File exists",
    full: "No space left on device",
    unknown_processor: "for which processor",
    lets_nothing_run: "cannot be loaded",
}


@pytest.mark.parametrize("wrong", WORDS)
def test_what_cannot_be_kept_is_compiled_for_this_process(wrong, cache, written, monkeypatch):
    starts = written()
    wrong(cache, monkeypatch)
    library = as_in_a_new_process()
    functions, messages = warned(lambda: library(compiled_bits.SOURCE))
    assert right(functions)
    (message,) = messages
    assert WORDS[wrong] in message
    assert "Each process compiles them again" in message
    assert "DROPOUT_POLICIES_CACHE" in message
    assert "not kept" in library.status()["keyed.c"]
    assert starts() == 1
    assert not cache.is_dir() or not list(cache.iterdir()), "nothing is left there"
    functions, messages = warned(lambda: library(compiled_bits.SOURCE, "-DX"))
    assert right(functions)
    assert not messages, "one in a process"


def test_what_was_kept_but_cannot_be_loaded_is_compiled(cache, written, monkeypatch):
    starts = written()
    as_in_a_new_process()(compiled_bits.SOURCE)
    lets_nothing_run(cache, monkeypatch)
    functions, messages = warned(lambda: as_in_a_new_process()(compiled_bits.SOURCE))
    assert right(functions)
    assert "what is kept cannot be loaded" in messages[0]
    assert starts() == 2


def test_an_empty_setting_keeps_nothing_without_a_warning(written, monkeypatch):
    starts = written()
    monkeypatch.setenv(compile_cache.SETTING, "")
    for number in (1, 2):
        functions, messages = warned(lambda: as_in_a_new_process()(compiled_bits.SOURCE))
        assert right(functions)
        assert not messages
        assert starts() == number


@pytest.mark.usefixtures("cache")
def test_without_a_temporary_folder_all_goes_on(written, monkeypatch):
    written()

    def none(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(libraries.tempfile, "TemporaryDirectory", none)
    functions, messages = warned(lambda: as_in_a_new_process()(compiled_bits.SOURCE))
    assert functions is None
    assert "No usable temporary directory" in messages[0]


@pytest.mark.parametrize("kept", [True, False])
def test_threads_compile_once(kept, cache, written, monkeypatch):
    if not kept:
        monkeypatch.setenv(compile_cache.SETTING, "")
    starts = written('sleep 0.2; exec cc "$@"')
    library, found, barrier = as_in_a_new_process(), [], threading.Barrier(6)

    def ask():
        barrier.wait()
        found.append(library(compiled_bits.SOURCE))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert starts() == 1
    assert len(found) == 6
    assert all(each is found[0] for each in found)
    assert cache.exists() == kept


ASK = "from dropout_policies.masks import compiled_bits; assert compiled_bits.has_compiled_bits()"


@pytest.mark.usefixtures("cache")
def test_processes_compile_once(written):
    starts = written('sleep 3; exec cc "$@"')
    processes = [subprocess.Popen([sys.executable, "-c", ASK]) for _ in range(3)]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    assert starts() == 1


def test_a_lock_that_is_never_free_is_not_waited_for(cache, written, monkeypatch):
    """As where another process was stopped while it compiled."""
    starts = written()
    held = compile_cache.library_name(
        compiled_bits.SOURCE, libraries.FLAGS, compiler.find_compiler()
    )
    compile_cache.cache_folder()
    monkeypatch.setattr(compiler, "SECONDS", 45.0)
    clock = iter(range(0, 10**6, 4))
    with compile_cache.lock(cache, held, 10):
        monkeypatch.setattr(compile_cache.time, "monotonic", lambda: next(clock))
        functions, messages = warned(lambda: as_in_a_new_process()(compiled_bits.SOURCE))
    assert right(functions)
    assert not messages
    assert starts() == 1


FORKED = """
import os, threading
from dropout_policies.compilation import libraries
from dropout_policies.masks import compiled_bits

library = libraries.compiled_library
with library._lock:
    child = os.fork()
    if not child:
        os._exit(0 if library(compiled_bits.SOURCE) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.usefixtures("cache")
def test_a_process_that_was_forked_meanwhile_does_not_wait_for_ever():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=300)


def test_a_version_is_the_compilers_first_line(written):
    written("printf 'odd \\377 cc 1.2\\nmore\\n'")
    assert compiler.find_compiler().version() == "odd \ufffd cc 1.2"
    written("exit 1")
    with pytest.raises(compiler.CompilerError, match="does not print its version"):
        compiler.find_compiler().version()
