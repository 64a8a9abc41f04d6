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
KERNELS = ROOT / "adapters" / "dropout_policies_kernels"
PYTEST = ROOT / "adapters" / "dropout_policies_pytest"
if not CORE.is_dir():
    pytest.skip("needs the packages' source next to the tests", allow_module_level=True)
FRAMEWORKS = {"torch", "keras", "tensorflow", "jax"}
ADAPTERS = {"dropout_policies_torch", "dropout_policies_keras"}
UPSTAIRS = {"tests", "benchmarks"}

SPARED = {
    KERAS / "model_wiring" / "model_state.py": {"torch"},
    KERAS / "tracing.py": {"torch", "tensorflow", "jax", "keras.src"},
    KERAS / "kernels" / "compiled.py": {"torch", "tensorflow", "jax"},
    KERAS / "kernels" / "products.py": {"torch", "jax"},
    KERAS / "loops.py": {"jax"},
    KERAS / "torch_operators.py": {"torch"},
}
"""Where Keras has no public way: to PyTorch's random state, which its dropout draws; to ask how
a backend runs a call, or whether Keras's own loop does; to compile one function whole; to say what
`keras.remat` keeps, or what another operation's gradient is made of; to get more than outputs out
of a loop; to run a whole sequence in an operator of PyTorch's."""

CORE_ROOMS = (
    "errors",
    "argument_checks",
    "compilation",
    "policies",
    "pictures",
    "placement",
    "masks",
    "auditing",
    "reference",
    "adapter",
    "configuration",
    "testing",
    "command_arguments",
    "command_options",
    "__init__",
    "cli",
    "__main__",
)
"""The folders and modules of the core, each of which may import those before it alone."""

KERNELS_ROOMS = (
    "tracing",
    "cells",
    "kernel_memory",
    "triton_kernels",
    "compiled",
    "cpu_products",
    "products",
    "masked_products",
    "operator_arguments",
    "time_steps",
    "sequence_kernel",
    "gpu_kernels",
    "cpu_kernels",
    "kernel_selection",
    "sequence_operator",
    "lstm_steps",
    "gru_steps",
    "rnn_steps",
    "lstm_operator",
    "gru_operator",
    "rnn_operator",
    "operators",
    "__init__",
)
TORCH_ROOMS = (
    "tensor_checks",
    "scripting",
    "masks",
    "shared_masks",
    "mask_keys",
    "policy_layer",
    "recurrence",
    "recurrent_layer",
    "layers",
    "custom_cell",
    "recurrent_cell",
    "step_layers",
    "embedding",
    "checkpointing",
    "policy_classes",
    "found_layers",
    "model_wiring",
    "auditing",
    "swapped_layer",
    "adapter",
    "__init__",
)
KERAS_ROOMS = (
    "tracing",
    "kernels",
    "kept_bits",
    "masks",
    "policy_cells",
    "cells",
    "custom_cell",
    "layer_cells",
    "loops",
    "conv_cells",
    "torch_operators",
    "recurrence",
    "call_counter",
    "shared_calls",
    "call_counting",
    "policy_layer",
    "model_layers",
    "model_wiring",
    "policy_arguments",
    "recurrent_layer",
    "keras_arguments",
    "layers",
    "conv_layers",
    "recurrent_cell",
    "step_layers",
    "embedding",
    "time_distributed",
    "auditing",
    "saving_warnings",
    "policy_classes",
    "found_layers",
    "swapped_layer",
    "adapter",
    "__init__",
)
ROOMS = {CORE: CORE_ROOMS, KERNELS: KERNELS_ROOMS, TORCH: TORCH_ROOMS, KERAS: KERAS_ROOMS}

SHORTCUTS = {
    CORE / "policies" / "policy.py": {"pictures"},
    CORE / "configuration.py": {"__init__"},
    CORE / "cli.py": {"__init__"},
}
"""`policy.diagram()` is a shortcut for `draw_policy` of `pictures`; the others ask for the
version."""

BANS = {
    CORE: FRAMEWORKS | ADAPTERS | UPSTAIRS,
    TORCH: {"keras", "tensorflow", "jax", "dropout_policies_keras"} | UPSTAIRS,
    PYTEST: FRAMEWORKS | ADAPTERS | UPSTAIRS,
    KERNELS: {"keras", "tensorflow", "jax"} | ADAPTERS | UPSTAIRS,
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
    assert makers == ["plans.py"]


def test_adapters_is_no_package():
    assert not (ROOT / "adapters" / "__init__.py").exists()


def rooms_imported(file: Path, floor: Path) -> set[str]:
    """The rooms of its own package that a file imports from, by relative imports."""
    folder = file.parent.relative_to(floor).parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = folder[: len(folder) - (node.level - 1)]
        parts = (*base, *(node.module or "").split("."))
        parts = tuple(part for part in parts if part)
        for alias in node.names:
            room = (*parts, alias.name)[0]
            is_room = (floor / room).is_dir() or (floor / f"{room}.py").exists()
            found.add(room if is_room else "__init__")
    return found


@pytest.mark.parametrize("floor", ROOMS, ids=lambda floor: floor.name)
def test_every_room_imports_lower_ones_alone(floor):
    rooms = ROOMS[floor]
    there = {path.stem for path in floor.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert there - {"__pycache__"} == set(rooms)
    for file in sorted(floor.rglob("*.py")):
        room = file.relative_to(floor).parts[0].removesuffix(".py")
        below = {*rooms[: rooms.index(room) + 1], *SHORTCUTS.get(file, set())}
        assert rooms_imported(file, floor) <= below, file


def test_that_order_can_be_broken(tmp_path):
    (tmp_path / "low").mkdir()
    (tmp_path / "high.py").touch()
    file = tmp_path / "low" / "file.py"
    for line, room in {
        "from ..high import f": "high",
        "from .. import high": "high",
        "from .other import f": "low",
        "from .. import version": "__init__",
    }.items():
        file.write_text(f"def g():\n    {line}\n")
        assert rooms_imported(file, tmp_path) == {room}


@pytest.mark.parametrize(
    "adapter", [TORCH, KERAS, KERNELS, ROOT / "examples"], ids=lambda path: path.name
)
def test_adapters_import_one_module_of_the_core(adapter):
    files = sorted(adapter.rglob("*.py"))
    found = {
        name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
        if name and (name + ".").startswith("dropout_policies.")
    }
    users = {"dropout_policies"} if adapter.name == "examples" else set()  # a demo for users
    assert found == {"dropout_policies.adapter"} | users


def test_the_surface_for_adapters_says_all_that_it_has():
    import dropout_policies.adapter as surface

    public = {name for name in vars(surface) if not name.startswith("_")}
    modules = {"keyed", "cell_types"}
    assert public == set(surface.__all__)
    assert {name for name in public if isinstance(getattr(surface, name), type(sys))} == modules


def test_no_module_has_the_name_of_a_public_function():
    """Or `from dropout_policies import audit` might be either."""
    import dropout_policies
    import dropout_policies.adapter as surface

    modules = {path.stem for path in CORE.rglob("*.py")} | {
        p.name for p in CORE.rglob("*") if p.is_dir()
    }
    names = {*dropout_policies.__all__, *surface.__all__} - {"keyed", "cell_types"}
    assert not names & modules


def test_both_adapters_have_the_same_rooms():
    """But for what one framework alone has.

    PyTorch: activation checkpointing, TorchScript, and checks of tensors before its own operators.
    (One step of its cells, its kernels, and how its calls are traced are a package of their own,
    which Keras uses too.) Keras: cells inside layers (their classes, checks and plans),
    convolutional ones among them, layers to look for inside layers, loops and operators to choose
    from, a wrapper that runs a layer at each step, constructors whose arguments Keras itself reads,
    and a file format that only knows what `get_config` says. (The number of a call, and the masks
    that calls share, are files of PyTorch's; in Keras the number is a variable, which calls that
    are compiled by themselves share.)
    """
    torch_alone = {"checkpointing", "scripting", "tensor_checks", "mask_keys", "shared_masks"}
    keras_alone = {"policy_cells", "layer_cells", "loops", "conv_cells", "conv_layers"}
    keras_alone |= {"shared_calls", "kept_bits", "call_counting", "policy_arguments"}
    keras_alone |= {"keras_arguments", "model_layers", "saving_warnings"}
    keras_alone |= {"call_counter", "time_distributed", "tracing", "cells", "kernels"}
    keras_alone |= {"torch_operators"}
    assert set(TORCH_ROOMS) - torch_alone == set(KERAS_ROOMS) - keras_alone
    in_both = {"auditing": {"__init__", "probe", "calling", "parts"}}
    in_both["model_wiring"] = {"__init__", "structure", "observer", "observation", "own_masks"}
    in_both["model_wiring"] |= {"example_calls", "existing_dropout", "model_state"}
    for room, files in in_both.items():
        for adapter in (TORCH, KERAS):
            assert files <= {file.stem for file in (adapter / room).glob("*.py")}


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
