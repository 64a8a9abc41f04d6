"""Compile the functions in C with the sanitizers that `CC` asks for, and make sure that they see.

`make sanitize` runs it first. It takes minutes where an ordinary compilation takes seconds, longer
than any user is made to wait.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

import torch
from dropout_policies_kernels.compiled import C_DEFINES, load_c_functions

from dropout_policies.compilation import compiler, libraries
from dropout_policies.masks import compiled_bits

OVERRUN = "overrun"


def overrun() -> None:
    """Read one row beyond a weight's end."""
    weight, panels = torch.ones(64, 16), torch.empty(1024, 17)
    addresses = [ctypes.c_void_p(array.data_ptr()) for array in (weight, panels)]
    strides = [ctypes.c_int64(stride) for stride in weight.stride()]
    sizes = [ctypes.c_int64(number) for number in (65, 16, 1)]
    load_c_functions(torch.float32).pack_in_panels(
        addresses[0], *strides, None, addresses[1], *sizes
    )


def main() -> None:
    """Compile everything; end with an error if that fails, or if an overrun is not noticed."""
    compiler.SECONDS = 3600.0
    if not all(
        [load_c_functions(dtype) for dtype in C_DEFINES]
        + [libraries.compiled_library(compiled_bits.SOURCE)]
    ):
        sys.exit(f"not compiled: {libraries.compiled_library.status()}")
    command = [sys.executable, "-m", "tests.support.sanitized", OVERRUN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 or "heap-buffer-overflow" not in done.stderr:
        sys.exit(f"an overrun was not noticed; it ended with {done.returncode}: {done.stderr}")
    print("compiled with sanitizers, which notice an overrun")


if __name__ == "__main__":
    overrun() if sys.argv[1:] == [OVERRUN] else main()
