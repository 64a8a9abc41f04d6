"""Functions in C that are compiled when a process first needs them, where that is possible.

By the machine's own compiler for the machine's own instructions: `CC`, or else `cc`. Where there is
none, or `DROPOUT_POLICIES_COMPILE=0` says that none may run, a framework's own functions do the
same, one after another.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC")

THREADS = ("-fopenmp",)
"""What lets loops run on many threads: on those that the process has for them already, since a
second kind would wait beside the first. So nothing is linked for it; where the process has none
that fit, a file is compiled without."""

KEYED = Path(__file__).with_name("keyed.c")

_logger = logging.getLogger(__name__)


def allowed() -> bool:
    """Whether anything may be compiled."""
    return os.environ.get("DROPOUT_POLICIES_COMPILE") != "0"


@functools.cache
def library(source: Path, *defined: str) -> ctypes.CDLL | None:
    """The functions of a file in C; None where they cannot be had, which is logged.

    Args:
        source: the file.
        defined: what is defined in it, as `-DNAME`.
    """
    if not allowed():
        return None
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not compiler or shutil.which(compiler[0]) is None:
        _logger.info("no C compiler: %s", compiler)
        return None
    for threads in (THREADS, ()):
        try:
            return _compiled(source, compiler, [*FLAGS, *threads, *defined])
        except (OSError, subprocess.CalledProcessError) as error:
            _logger.info("%s: %s", error, getattr(error, "stderr", ""))
    return None


def _compiled(source: Path, compiler: list[str], flags: list[str]) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        made, target = (str(Path(folder, source.stem + end)) for end in (".o", ".so"))
        for step in ([*flags, "-c", str(source), "-o", made], ["-shared", made, "-o", target]):
            subprocess.run([*compiler, *step], check=True, capture_output=True, text=True)
        return ctypes.CDLL(target)


def keeps_bits() -> bool:
    """Whether `keep_bits` can be had."""
    return library(KEYED) is not None


def keep_bits(
    key: tuple[int, int], least: int, shape: tuple[int, int, int], row_offset: int, address: int
) -> None:
    """The bits of `dropout_policies.keyed.keep_bits`, written where they are wanted.

    Args:
        key: two words of 32 bits, with a sign or without.
        least: the smallest word that keeps, as `keyed.threshold` has it.
        shape: T, B and F.
        row_offset: the number of the first row.
        address: of T·B·F bytes in the machine's memory, in the order of `[T, B, F]`.
    """
    functions = library(KEYED)
    assert functions is not None, "asked for where it cannot be had"
    functions.keep_bits(
        *(ctypes.c_uint32(word) for word in (*key, least)),
        *(ctypes.c_int64(size) for size in shape),
        ctypes.c_uint32(row_offset),
        ctypes.c_void_p(address),
    )
