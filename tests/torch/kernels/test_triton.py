"""Triton's kernels, run on the CPU by its interpreter: the plain loop's results, to rounding, and
the core's mask bits, exactly."""

import json
import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TRITON = Path(sys.prefix, "triton")
"""Where `make env` puts it; not beside the other packages, for TensorFlow does not bear it."""

STEPS = """
import json
import sys

import torch
from dropout_policies_kernels import gpu_kernels, kernel_selection, operators

from tests.torch.kernels.test_operators import arguments, by_loop, results

kernel_selection.select_kernel = lambda *_: gpu_kernels.PerStepGPUKernel
gpu_kernels.BLOCK = 8  # several programs, the last of them not full

far = {}
for layer in ("LSTM", "GRU"):
    for kept in (True, False):
        for masked in ("tied", None):
            for seed in range(3):
                *values, _ = arguments(layer, seed, masked, requires_grad=False)
                pairs = zip(
                    *(
                        results(run, layer, values, torch.float32, kept)
                        for run in (operators.run_operator, by_loop)
                    ),
                    strict=True,
                )
                case = str((layer, seed, kept, masked))
                far[case] = max(float((a - b).detach().abs().max()) for a, b in pairs)
json.dump(far, sys.stdout)
"""


BITS = """
import json
import sys

import numpy as np
import torch
from dropout_policies_torch import masks

from dropout_policies.masks import keyed

masks.BLOCK = 8
same = {}
random = np.random.default_rng(0)
shapes = (1, 1, 1), (1, 5, 7), (3, 1, 5), (4, 3, 6), (2, 7, 1)
rates = 0.0, 0.2, 0.5, 0.8, 1 - 2**-33
offsets = 0, 7, 2**31 - 2, 2**32 - 9
for shape in shapes:
    for rate in rates:
        for offset in offsets:
            key = tuple(int(word) for word in random.integers(0, 2**32, 2))
            words = tuple(masks._to_int32(word) for word in key)
            keep = torch.empty(shape, dtype=torch.bool)
            least = keyed.threshold(rate) - 2**31
            for first_step in 0, 1, 5:
                masks._keep_bits_on_gpu(words, least, offset, keep, first_step)
                expected = keyed.keep_bits(key, rate, shape, offset, first_step)
                case = shape, rate, offset, first_step
                same[str(case)] = bool((keep.numpy() == expected).all())
json.dump(same, sys.stdout)
"""

COMPILED = """
import json
import sys

import triton
from dropout_policies_kernels import triton_kernels as kernels
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

absent = {
    "lstm_step": ("candidate", "cell"),
    "lstm_step_backward": ("product", "h_update"),
    "gru_step": ("masked_hidden", "hidden"),
    "gru_step_backward": ("state",),
    "keep_bits": (),
}
found = {}
for name, without in absent.items():
    kernel = getattr(kernels, name)
    signature = {each: "*fp32" for each in kernel.arg_names}
    signature |= {each: "i32" for each in kernels.NUMBERS if each in signature}
    signature |= {each: "constexpr" for each in (*without, "BLOCK")}
    signature |= {"keep": "*u8"} if "keep" in signature else {}
    values = {(kernel.arg_names.index(each),): None for each in without}
    values[len(kernel.arg_names) - 1,] = 256
    source = ASTSource(kernel, signature, values)
    found[name] = len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"])
json.dump(found, sys.stdout)
"""

needs_triton = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64")
    or not find_spec("torch")
    or not (TRITON.is_dir() or find_spec("triton")),
    reason="there is no PyTorch or no Triton here",
)


def printed(script, **more):
    """What a script prints, in JSON, where Triton's kernels run on the CPU, if no more is said."""
    path = os.pathsep.join(filter(None, (str(TRITON), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path} | more,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@needs_triton
def test_steps_by_kernels_are_the_plain_loops():
    far = printed(STEPS)
    assert len(far) == 24
    assert max(far.values()) < 5e-6, far


@needs_triton
def test_bits_by_a_kernel_are_the_cores():
    same = printed(BITS)
    assert len(same) == 300
    assert all(same.values()), same


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path):
    """Which takes no GPU; the interpreter does not see what the compiler refuses."""
    sizes = printed(COMPILED, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert len(sizes) == 5
    assert min(sizes.values()) > 0
