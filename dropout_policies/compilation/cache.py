"""Keeps compiled files, so that the next process does not need to compile them again.

The name of a file contains two hashes: one of everything that determines it (the source, the
compiler, its flags, the processor), and one of its own bytes. So a damaged file is not loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from .compiler import Compiler

SETTING = "DROPOUT_POLICIES_CACHE"

APP = "dropout-policies"

CPU_LINES = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),  # x86
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"),  # ARM
    *("cpu", "revision", "isa", "uarch", "features"),  # POWER, RISC-V, s390
)
"""The lines of /proc/cpuinfo that say what a processor is and can do. Other lines vary in time."""


class CacheError(Exception):
    """The reason why nothing is kept, as part of a sentence."""


def cache_folder() -> Path | None:
    """The cache folder, which is created if needed, or None if the setting is empty.

    It is `DROPOUT_POLICIES_CACHE`, or else the user's cache folder of the system.

    Raises:
        CacheError: it cannot be created, or other users could write to it, whose files would then
            be loaded.
    """
    setting = os.environ.get(SETTING)
    if setting == "":
        return None
    try:
        folder = _user_cache_folder() if setting is None else Path(setting).expanduser().absolute()
        _make_folder(folder)
        status = folder.stat()
    except (OSError, RuntimeError, ValueError) as error:  # no home; a name that none can have
        raise CacheError(f"there is no cache folder ({error})") from None
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            raise CacheError(f"the cache folder {folder} belongs to another user")
        if status.st_mode & 0o022:
            raise CacheError(
                f"the cache folder {folder} is writable by other users (chmod go-w changes that)"
            )
    return folder


def _user_cache_folder() -> Path:
    """The same folder that platformdirs uses."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
        return base / APP / "Cache"
    if os.path.isabs(given):
        return Path(given) / APP
    home = Path.home()
    if not home.is_absolute():
        raise RuntimeError(f"the home folder is not an absolute path. Received: {str(home)!r}")
    return home.joinpath(*_cache_parts()) / APP


def _cache_parts() -> tuple[str, ...]:
    return ("Library", "Caches") if sys.platform == "darwin" else (".cache",)


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, each for the user alone."""
    if not folder.is_dir():
        if folder != folder.parent:
            _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def library_name(source: Path, flags: Iterable[str], compiler: Compiler) -> str:
    """The name of a compiled file, without the hash of its bytes.

    Raises:
        CacheError: the processor cannot be identified, or the source cannot be read. (Code that was
            compiled for another processor would crash the process.)
    """
    processor = _processor()
    if not processor:
        raise CacheError("it cannot be told for which processor they are compiled")
    try:
        beside = sorted(path for path in source.parent.iterdir() if path.suffix in (".c", ".h"))
        parts = [
            *(sys.platform, platform.machine(), processor, compiler.identity(), *flags),
            *(part for path in beside for part in (path.name, path.read_bytes())),
        ]
    except OSError as error:
        raise CacheError(f"what they are compiled of cannot be read ({error})") from None
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data) + data)
    return f"{source.stem}-{digest.hexdigest()[:32]}"


def find_library(folder: Path, name: str) -> Path | None:
    """The compiled file with this name, or None. A damaged file is removed."""
    for path in sorted(folder.glob(f"{name}-*.so")):
        with contextlib.suppress(OSError):
            if path.name == _full_name(name, path.read_bytes()):
                return path
            path.unlink()
    return None


def store_library(folder: Path, name: str, library: Path) -> Path:
    """Keep a compiled file and return its path. Another process sees all of it or nothing.

    Raises:
        CacheError: the folder cannot be written to.
    """
    try:
        content = library.read_bytes()
        kept = folder / _full_name(name, content)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, kept)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise CacheError(f"the cache folder cannot be written to ({error})") from None
    return kept


def _full_name(name: str, content: bytes) -> str:
    return f"{name}-{hashlib.sha256(content).hexdigest()[:32]}.so"


@contextlib.contextmanager
def lock(folder: Path, name: str, seconds: float) -> Iterator[None]:
    """Wait until no other process compiles this file, but at most `seconds`.

    A process that does not get the lock continues without it. Then two processes compile the same
    file, which does no harm.
    """
    try:
        import fcntl  # not on Windows

        path = folder / f"{name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except (ImportError, OSError):
        yield
        return
    end = time.monotonic() + seconds
    locked = False
    try:
        while not locked and time.monotonic() < end:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        if locked:
            with contextlib.suppress(OSError):
                path.unlink()
            # Closing alone would not do: a process forked meanwhile has it open too.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _processor() -> str:
    """What the processor is and can do; "" if that is not known. Starts no process."""
    if sys.platform.startswith("linux"):
        return _cpuinfo(Path("/proc/cpuinfo"))
    if sys.platform == "win32":
        return os.environ.get("PROCESSOR_IDENTIFIER", "")
    return "\n".join(filter(None, map(_sysctl, (b"machdep.cpu.brand_string", b"hw.model"))))


def _cpuinfo(path: Path) -> str:
    found: list[str] = []
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key = line.partition(":")[0].strip()
            if not key and found:
                break  # the first processor is as the others
            if key in CPU_LINES:
                found.append(line.strip())
    return "\n".join(found)


def _sysctl(name: bytes) -> str:
    """A value that macOS or BSD reports about the machine."""
    try:
        size = ctypes.c_size_t(256)
        buffer = ctypes.create_string_buffer(size.value)
        if ctypes.CDLL(None).sysctlbyname(name, buffer, ctypes.byref(size), None, 0) != 0:
            return ""
    except (AttributeError, OSError, TypeError):
        return ""
    return buffer.value.decode("utf-8", "replace")
