"""How a process is asked to stop, and how it learns that the one that started it is gone.

A launcher starts a worker with a pipe as its standard input, and never writes to it. The pipe ends
when the launcher closes it, which asks the worker to stop, and also when the launcher dies, however
it dies. The worker's own children read the same pipe: those of torchrun learn of it too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

UNTIL_INPUT_ENDS = "--until-input-ends"
"""The argument of a worker that is to stop when its standard input ends."""

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""What asks a process to stop, where the operating system has it."""


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a worker that stops when this process ends, or at `stop`.

    Args:
        command: the worker's, without `UNTIL_INPUT_ENDS`.
        **options: of `subprocess.Popen`.
    """
    return subprocess.Popen([*command, UNTIL_INPUT_ENDS], stdin=subprocess.PIPE, **options)


def stop(worker: subprocess.Popen[bytes]) -> None:
    """Ask a worker that `start` started to stop; a second time does nothing."""
    if worker.stdin is not None:
        worker.stdin.close()


def when_input_ends(call: Callable[[], object]) -> None:
    """Call a function, in a thread, when the standard input of this process ends."""

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:  # closed: nobody can ask any more
            pass
        call()

    threading.Thread(target=watch, daemon=True).start()


def on_signals(call: Callable[..., object]) -> dict[int, Any]:
    """Have a function called on the signals that ask to stop; the handlers that there were.

    A hangup that is ignored stays ignored, as under `nohup`.
    """
    before: dict[int, Any] = {}
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue
        before[number] = signal.signal(number, call)
    return before


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """In it, what asks to stop raises `KeyboardInterrupt`, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = on_signals(signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
