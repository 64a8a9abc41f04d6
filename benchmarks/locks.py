"""A folder that one run uses at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import BenchmarkError
from .files import FileError, reason

LAUNCHER, WORKER = "launcher.lock", "worker.lock"
"""Files in a run's folder. The launcher holds the first for as long as it lives; the process that
writes checkpoints holds the second, and may outlive its launcher until it has written the last."""


class LockedError(BenchmarkError):
    """A folder that another run uses."""


@contextmanager
def locked(folder: Path, name: str, wait: float = 0.0) -> Iterator[None]:
    """Hold one of a folder's locks. The operating system frees it when the process ends.

    Args:
        folder: which; it is made.
        name: the lock's file.
        wait: for how many seconds to try.

    Raises:
        LockedError: another process holds it.
        FileError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire(timeout=wait)
    except Timeout:
        raise LockedError(
            f"{folder} is in use by another run. Wait until it has ended, stop it, or write "
            f"another folder with --out."
        ) from None
    except (OSError, ValueError, NotImplementedError) as error:
        raise FileError(f"{folder} cannot be written to: {reason(error)}.") from None
    try:
        yield
    finally:
        lock.release()


def check_unlocked(folder: Path, name: str, wait: float = 0.0) -> None:
    """Refuse a folder whose lock another process holds; the arguments and errors are `locked`'s."""
    with locked(folder, name, wait):
        pass
