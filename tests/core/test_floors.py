"""The floors of the house: who may import whom, and that these checks can fail."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "dropout_policies"
TORCH = ROOT / "adapters" / "dropout_policies_torch"
KERAS = ROOT / "adapters" / "dropout_policies_keras"
PYTEST = ROOT / "adapters" / "dropout_policies_pytest"
FRAMEWORKS = {"torch", "keras", "tensorflow", "jax"}
ADAPTERS = {"dropout_policies_torch", "dropout_policies_keras"}
UPSTAIRS = {"tests", "benchmarks"}

SPARED = {
    KERAS / "sources.py": {"torch"},
    KERAS / "compiled.py": {"torch", "tensorflow", "jax"},
    KERAS / "products.py": {"torch", "jax"},
    KERAS / "loops.py": {"jax"},
}
"""Keras gives no access to PyTorch's random state, which its dropout draws from there; nor to what
compiles a function whole; `keras.remat` cannot be told what to keep, and `ops.custom_gradient` not
what another operation's gradient is to be made of; its loops let out no more than outputs."""

BANS = {
    CORE: FRAMEWORKS | ADAPTERS | UPSTAIRS,
    TORCH: {"keras", "tensorflow", "jax", "dropout_policies_keras"} | UPSTAIRS,
    PYTEST: FRAMEWORKS | ADAPTERS | UPSTAIRS,
    KERAS: {"torch", "tensorflow", "jax", "keras.src", "dropout_policies_torch"} | UPSTAIRS,
}


def imported(source: str) -> set[str]:
    """Every module that a source text imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def banned(source: str, bans: set[str]) -> set[str]:
    """The imports of a source text that fall under a ban."""
    return {
        name for name in imported(source) if any((name + ".").startswith(ban + ".") for ban in bans)
    }


@pytest.mark.parametrize("floor", BANS, ids=lambda floor: floor.name)
def test_nothing_is_imported_from_above_or_beside(floor):
    files = sorted(floor.rglob("*.py"))
    assert files
    for file in files:
        bans = BANS[floor] - SPARED.get(file, set())
        assert not banned(file.read_text(encoding="utf-8"), bans), file


@pytest.mark.parametrize(
    "line",
    [
        "import torch",
        "import torch.nn as nn",
        "from torch import nn",
        "from keras.src import backend",
        "from keras import src",
        "def f():\n    import benchmarks.ptb",
    ],
)
def test_the_ban_can_fail(line):
    assert banned(line, BANS[CORE] | BANS[KERAS])


def test_the_ban_spares_what_only_looks_alike():
    assert not banned("import torchlike\nfrom keras import ops", BANS[KERAS])


def test_only_the_plan_decides_shapes():
    """`PlannedMask` is made in the plan and nowhere else."""
    makers = [
        file.name
        for folder in BANS
        for file in folder.rglob("*.py")
        if "PlannedMask(" in file.read_text(encoding="utf-8")
    ]
    assert makers == ["plan.py"]


def test_adapters_is_no_package():
    assert not (ROOT / "adapters" / "__init__.py").exists()


def test_both_adapters_have_the_same_rooms():
    """But for what one framework alone has: Keras a graph to look at and loops to choose from;
    PyTorch cells that are called step by step, activation checkpointing, TorchScript, checks of
    tensors before its own operators."""
    torch_rooms, keras_rooms = ({f.name for f in floor.glob("*.py")} for floor in (TORCH, KERAS))
    operators = {
        "operators.py",
        "sequence.py",
        "engine.py",
        "fused.py",
        "fused_cpu.py",
        "fused_gpu.py",
        "products_cpu.py",
        "triton_kernels.py",
        "lstm_operator.py",
        "gru_operator.py",
        "kernel_memory.py",
    }
    others = {
        "step_layers.py",
        "checkpointing.py",
        "scripting.py",
        "tensor_checks.py",
        "tracing.py",
    }
    assert torch_rooms - operators - others == keras_rooms - {"graph.py", "loops.py"}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.strip()


LOADED = f"import sys; print(sorted({{m.split('.')[0] for m in sys.modules}} & {FRAMEWORKS}))"


def test_the_core_loads_no_framework():
    assert run(f"import dropout_policies; {LOADED}") == "[]"
    assert (
        run(f"import dropout_policies as dp\ntry: dp.apply(3)\nexcept ValueError: {LOADED}") == "[]"
    )


def test_that_check_can_fail():
    assert run(f"import torch; {LOADED}") == "['torch']"
