"""C functions that are compiled when a process first needs them, if that is possible.

The machine's own compiler compiles them for the machine's own instructions. They are kept for the
next process in the user's cache folder. If there is no compiler, or `DROPOUT_POLICIES_COMPILE=0`
forbids compilation, a framework's own functions do the same work, one after another.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from ..errors import PolicyWarning
from . import cache as compile_cache
from . import compiler
from .cache import CacheError
from .compiler import Compiler, CompilerError, CompilerTimeoutError

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC")

OPENMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
"""The functions that loops need from the process's OpenMP runtime, to run on its threads. GCC's and
LLVM's runtimes have them. A file that needs them has a function `use_threads`."""

SLOWER = (
    "dropout_policies runs without its compiled functions. On a CPU, drawing masks takes longer, "
    "and so do the steps of LSTM and GRU layers in PyTorch: {reason}. (With "
    "DROPOUT_POLICIES_COMPILE=0 it runs without them too, and without this warning.)"
)

NOT_KEPT = (
    "dropout_policies cannot keep its compiled functions. Each process compiles them again, "
    "which takes seconds: {reason}. Set DROPOUT_POLICIES_CACHE to a folder that only you can "
    "write to; if it is empty, nothing is kept and there is no warning."
)


def compilation_allowed() -> bool:
    """Whether anything may be compiled."""
    return os.environ.get("DROPOUT_POLICIES_COMPILE") != "0"


@dataclass(frozen=True)
class Library:
    """The functions of a file, or the reason why there are none.

    Args:
        functions: the functions, or None.
        status: where they come from, or why there are none.
        warning: a message for the user and its reason, or None.
    """

    functions: ctypes.CDLL | None
    status: str
    warning: tuple[str, str] | None = None


class Libraries:
    """The compiled files of a process. Each is compiled and loaded once, for all threads."""

    def __init__(self) -> None:
        self.cache_clear()
        if hasattr(os, "register_at_fork"):
            # Another thread may hold the lock when a process forks; in the child it has no owner.
            os.register_at_fork(after_in_child=self._make_lock)

    def __call__(self, source: Path, *defines: str) -> ctypes.CDLL | None:
        """Return the functions of a C file, or None if they are not available.

        The first time that this fails, a `PolicyWarning` says what and why.

        Args:
            source: the file.
            defines: the compiler's arguments that define names in it, such as `-DNAME`.
        """
        try:
            return self._libraries[source, *defines].functions
        except KeyError:
            pass
        with self._lock:
            if (source, *defines) not in self._libraries:
                self._libraries[source, *defines] = self._load(source, defines)
        library = self._libraries[source, *defines]
        if library.warning:  # after all else: it may be an error, if the user wants that
            self.warn_once(*library.warning)
        return library.functions

    def status(self) -> dict[str, str]:
        """For each file that was requested, where its functions come from, or why it has none."""
        return {
            " ".join((source.name, *defines)): library.status
            for (source, *defines), library in self._libraries.items()
        }

    def warn_once(self, message: str, reason: str) -> None:
        """Warn only once per process for each message.

        Args:
            message: the problem, with `{reason}` in the text.
            reason: the reason.
        """
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message.format(reason=reason), PolicyWarning, stacklevel=3)

    def cache_clear(self) -> None:
        """Forget which files are loaded and which warnings were given. Files on disk stay."""
        self._libraries: dict[tuple[Path, *tuple[str, ...]], Library] = {}
        self._warned: set[str] = set()
        self._timeout: CompilerTimeoutError | None = None
        self._make_lock()

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    def _load(self, source: Path, defines: tuple[str, ...]) -> Library:
        if not compilation_allowed():
            return Library(None, "DROPOUT_POLICIES_COMPILE=0 says that none may be compiled")
        try:
            if self._timeout is not None:  # no user waits for the next file too
                raise self._timeout
            return _find_or_compile(source, (*FLAGS, *defines), compiler.find_compiler())
        except CompilerError as error:
            if isinstance(error, CompilerTimeoutError):
                self._timeout = error
            return Library(None, str(error), (SLOWER, str(error)))


compiled_library = Libraries()


def _find_or_compile(source: Path, flags: tuple[str, ...], found: Compiler) -> Library:
    """Take the functions of a file from the cache, or compile them.

    Raises:
        CompilerError: they cannot be compiled.
    """
    try:
        folder = compile_cache.cache_folder()
        if folder is None:
            return _compile(source, flags, found)
        name = compile_cache.library_name(source, flags, found)
        if kept := _load_stored(folder, name):
            return kept
        with compile_cache.lock(folder, name, compiler.SECONDS):
            return _load_stored(folder, name) or _compile(source, flags, found, folder, name)
    except CacheError as error:
        return _compile(source, flags, found, problem=str(error))


def _load_stored(folder: Path, name: str) -> Library | None:
    """Load the functions of a kept file, if there is one.

    Raises:
        CacheError: there is one, but it cannot be loaded.
    """
    path = compile_cache.find_library(folder, name)
    if path is None:
        return None
    try:
        return Library(_load_functions(path), "in use, from the cache")
    except OSError as error:  # as where a folder's file system lets nothing be run
        raise CacheError(f"what is kept cannot be loaded ({error})") from None


def _compile(
    source: Path,
    flags: tuple[str, ...],
    found: Compiler,
    folder: Path | None = None,
    name: str = "",
    problem: str = "",
) -> Library:
    """Compile the functions of a file now.

    Args:
        source: the file.
        flags: the compiler's arguments.
        found: the compiler.
        folder: where to keep the file, or None.
        name: the name under which to keep it.
        problem: why it is not kept, if it should have been.

    Raises:
        CompilerError: they cannot be compiled, or the compiled file cannot be loaded.
    """
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            made = found.build(source, flags, Path(temporary))
            took = f"compiled in {time.perf_counter() - start:.1f} s"
            if folder is not None:
                # Loaded from there first: the temporary folder may let nothing be run.
                try:
                    kept = compile_cache.store_library(folder, name, made)
                    with contextlib.suppress(OSError):
                        return Library(_load_functions(kept), f"in use, {took} and kept")
                    kept.unlink(missing_ok=True)
                    problem = "what is kept cannot be loaded"
                except CacheError as error:
                    problem = str(error)
            functions = _load_functions(made)
    except OSError as error:
        raise CompilerError(f"{source.name} cannot be compiled or loaded ({error})") from None
    status = f"in use, {took}, not kept"
    if not problem:
        return Library(functions, status)
    return Library(functions, f"{status}: {problem}", (NOT_KEPT, problem))


def _load_functions(path: Path) -> ctypes.CDLL:
    """Load a file, and give it the OpenMP functions of the process.

    Raises:
        OSError: it cannot be loaded.
    """
    functions = ctypes.CDLL(str(path))
    addresses = openmp()
    if addresses and hasattr(functions, "use_threads"):
        functions.use_threads(*map(ctypes.c_void_p, addresses))
    return functions


def openmp() -> tuple[int, ...] | None:
    """The addresses of the functions `OPENMP` in this process, or None if it does not have them."""
    try:
        process = ctypes.CDLL(None)  # all that is loaded for everybody
        found = [getattr(process, name) for name in OPENMP]
    except (AttributeError, OSError, TypeError):  # TypeError: on Windows
        return None
    return tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in found)
