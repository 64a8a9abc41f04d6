"""Runs tests again and again, each time in a fork of a process that has imported what is slow.

Started by `mutation` in the copy of the tree. For each line of its input, which names a time limit
and test files, it answers with `passed`, `failed` or `late`. Nothing of the library is imported
before a fork, so that each one reads the code as it is by then.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import signal
import sys
import time

FIRST = 3600.0
"""The limit of a first run, of the code as it is."""

PRELOADED = ("numpy", "hypothesis.extra.numpy", "pytest", "matplotlib.figure", "xml.etree")


def run(tests: list[str], limit: float, memory: int) -> str:
    """One run of the tests, in a process group of its own."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        status = 1
        try:
            import pytest

            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(status)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "late"


def main() -> None:
    memory, *more = sys.argv[1:]
    # As `python -m pytest` has it; and this file's folder is no place for imports.
    sys.path[0] = os.getcwd()
    sys.path.insert(1, os.path.join(os.getcwd(), "adapters"))
    for name in (*PRELOADED, *more):
        importlib.import_module(name)
    gc.freeze()  # a fork need not look through what is there already
    print("ready", flush=True)
    for line in sys.stdin:
        limit, *tests = line.split()
        # At first pytest keeps what it makes of the tests. Later two changes of the code may come
        # in one second, and have one time stamp.
        sys.dont_write_bytecode = float(limit) < FIRST
        print(run(tests, float(limit), int(memory)), flush=True)


if __name__ == "__main__":
    main()
