"""Change the library's code a little, one change at a time, and see whether a test notices.

`make mutants` runs it. The changes are those of cosmic-ray (operators, comparisons, constants,
conditions, caught exceptions, decorators, loops), and returns of None; of the operators that may
stand for another it takes the few that are hardest to tell from it. Each change is made in a copy
of the tree, and the module's tests run on it; a change that no test notices is printed, and the
command ends with 1. Changes that mean the same as the original are listed, with the reason, in
`equivalent_mutants.toml`.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import difflib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[2]
COPY = ROOT / "build" / "mutants"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
FOLDERS = ("dropout_policies", "adapters", "tests", "docs", "examples")
PICTURES = "tests/docs/test_policy_pages.py::test_the_pictures_are_those_of_the_policies"
FIRST_TESTS = {
    "drawing": (
        "diagram::test_a_picture_is_laid_out_as_it_was",
        "diagram::test_the_svg_has_every_shape_of_the_picture",
        "diagram::test_the_png_has_every_shape_of_the_picture",
        "diagram::test_a_lines_colour_says_path_before_mask",
    ),
    "adapters": (
        "strange_values::test_a_model_belongs_to_the_adapter_that_owns_it_and_comes_first",
        "strange_values::test_what_goes_beside_a_policy_and_its_rate_must_be_named",
        "example_adapter::test_the_adapter_is_found_by_its_entry_point",
    ),
    "swapped_layer": ("example_adapter::test_a_class_that_was_changed_since_is_not_removed",),
}
"""Single tests of a file that takes long, which go before it."""

MEMORY = 4 * 2**30
"""Bytes that a test run may take: a change may ask for any amount."""

OTHERS = {
    **{"Add": "Sub Mul BitOr", "Sub": "Add Mod", "Mul": "Add Div Pow", "Div": "Mul FloorDiv"},
    **{"FloorDiv": "Div Mod", "Mod": "FloorDiv BitAnd", "Pow": "Mul LShift"},
    **{"RShift": "LShift FloorDiv", "LShift": "RShift Mul"},
    **{"BitOr": "BitAnd BitXor", "BitAnd": "BitOr BitXor", "BitXor": "BitOr BitAnd"},
    **{"Eq": "NotEq LtE GtE", "NotEq": "Eq Lt Gt", "Lt": "LtE NotEq GtE", "LtE": "Lt Eq Gt"},
    **{"Gt": "GtE NotEq LtE", "GtE": "Gt Eq Lt", "Is": "IsNot", "IsNot": "Is"},
    **{"UAdd": "USub", "USub": "UAdd", "Invert": "USub", "Not": ""},
}
"""What stands for an operator, by cosmic-ray's names."""


FIRST = 3600.0
"""Seconds that the tests may take on the code as it is; see `mutation_worker`."""


class Target(NamedTuple):
    """A module, and the tests that should notice a change of it, the likeliest first."""

    path: str
    tests: tuple[str, ...]
    environment: dict[str, str]
    preloaded: tuple[str, ...] = ()


CORE_TESTS = {
    "keyed": "keyed plan rates",
    "plans": "plan keyed stacks report",
    "policy": "policy rates strange_values",
    "rules": "policy rates plan strange_values",
    "rates": "rates policy strange_values",
    "sites": "policy keyed strange_values",
    "argument_checks": "rates diagram strange_values",
    "catalog": "policy strange_values",
    "stacks": "stacks strange_values",
    "existing_dropout": "wiring",
    "wiring_notes": "wiring",
    "wirings": "wiring",
    "wiring_picture": "wiring",
    "selection": "selection",
    "sampling": "sampling",
    "nested": "sampling",
    "sequences": "sequences",
    "tape": "sampling",
    "cell_types": "plan",
    "swapped_layer": "report",
    "report": "report stacks",
    "grid": "diagram report",
    "policy_diagram": "diagram strange_values",
    "diagram": "diagram strange_values",
    "drawing": "diagram strange_values",
    "reference": "reference",
    "comparison": "comparison",
    "adapters": "strange_values",
    "apply_policy": "example_adapter",
}
"""For each module of the core the files that test it, the likeliest to notice a change first."""


ADAPTER_TESTS = {
    "masks": "masks embedding own_cell cell cells sampling",
    "structure": "existing_dropout wiring apply",
    "existing_dropout": "existing_dropout observation",
    "observation": "observation existing_dropout",
    "observer": "observation existing_dropout",
    "found_layers": "apply subclasses",
    "policy_classes": "subclasses",
    "policy_layer": "embedding own_cell cell cells sampling apply tracing layers",
    "adapter": "apply selection embedding own_cell cells",
}
"""The same for modules that both adapters have."""

OWN_TESTS = {
    "torch": {
        "shared_masks": "shared_masks sequences",
        "recurrent_cell": "cell sequences",
        "own_masks": "own_masks",
    },
    "keras": {
        "shared_calls": "sequences step_layers kept_bits",
        "call_counter": "sequences nested_sequences",
        "call_counting": "sequences nested_sequences step_layers",
        "kept_bits": "kept_bits sequences",
        "conv_cells": "conv_layers properties conformance",
        "recurrent_cell": "step_layers applied_cells",
        "layer_cells": "apply cells own_cell conv_layers",
        "own_masks": "own_masks",
    },
}
"""The same for modules that one adapter alone has, or tests in files of its own."""

BACKENDS = dict.fromkeys(("call_counter", "call_counting", "kept_bits"), "jax")
"""The backend of Keras for modules most of which runs only in graphs; torch for the others."""


def _tests(folder: str, name: str) -> str | None:
    """A file of tests, in whichever folder it lies."""
    found = [*(ROOT / "tests" / folder).rglob(f"test_{name}.py")]
    return str(found[0].relative_to(ROOT)) if found else None


def _core_target(name: str) -> Target:
    (path,) = (ROOT / "dropout_policies").rglob(f"{name}.py")
    files = [str(_tests("core", test)) for test in CORE_TESTS[name].split()]
    single = [test.split("::") for test in FIRST_TESTS.get(name, ())]
    first = [" ".join(f"{_tests('core', file)}::{test}" for file, test in single)] if single else []
    drawn = [PICTURES] if name in ("grid", "policy_diagram", "drawing") else []
    return Target(str(path.relative_to(ROOT)), (*first, files[0], *drawn, *files[1:]), {})


def _adapter_target(framework: str, name: str, tests: str) -> Target:
    (path,) = (ROOT / "adapters" / f"dropout_policies_{framework}").rglob(f"{name}.py")
    files = [_tests(framework, test) for test in tests.split()]
    preloaded: tuple[str, ...] = ("torch._dynamo",)
    if framework == "keras":  # no process may be forked that has JAX's threads
        preloaded = () if name in BACKENDS else (*preloaded, "keras")
    return Target(
        str(path.relative_to(ROOT)),
        tuple(file for file in files if file is not None),
        {"KERAS_BACKEND": BACKENDS.get(name, "torch")} if framework == "keras" else {},
        preloaded,
    )


TARGETS = {name: _core_target(name) for name in CORE_TESTS}
TARGETS |= {
    f"{framework}.{name}": _adapter_target(framework, name, tests)
    for framework, own in OWN_TESTS.items()
    for name, tests in (ADAPTER_TESTS | own).items()
}


class Mutant(NamedTuple):
    """One change of a module: the lines before and after, and the whole text after."""

    line: int
    before: str
    after: str
    source: str


class _WithoutAnnotations(ast.NodeTransformer):
    """What Python never evaluates: annotations, and texts that are statements."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node


def _meaning(source: str) -> str:
    return ast.dump(_WithoutAnnotations().visit(ast.parse(source)))


def mutants(source: str) -> Iterator[Mutant]:
    """Every change of a module's text that Python can read and that is none of an annotation."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.variable_inserter import VariableInserter
    from cosmic_ray.operators.variable_replacer import VariableReplacer
    from cosmic_ray.plugins import get_operator, operator_names

    operators = [get_operator(name) for name in operator_names() if _is_wanted(name)]
    skipped = (VariableInserter, VariableReplacer)  # they change things at random
    made = [operator() for operator in operators if operator not in skipped]
    seen = {_meaning(source)}
    for operator in [*made, *_more_operators()]:
        occurrence = 0
        while (changed := mutate_code(source, operator, occurrence)) is not None:
            occurrence += 1
            try:
                meaning = _meaning(changed)
            except SyntaxError:
                continue
            if meaning not in seen and not _orders_texts(changed):
                seen.add(meaning)
                yield _mutant(source, changed)


def _orders_texts(source: str) -> bool:
    """Whether a text is asked to be larger or smaller than another, as no code of ours asks."""
    ordered = ast.Lt | ast.LtE | ast.Gt | ast.GtE
    return any(
        isinstance(node, ast.Compare)
        and any(isinstance(op, ordered) for op in node.ops)
        and any(isinstance(c, ast.Constant) and isinstance(c.value, str) for c in node.comparators)
        for node in ast.walk(ast.parse(source))
    )


def _is_wanted(name: str) -> bool:
    """Whether an operator of cosmic-ray's is among those taken: "core/ReplaceX_Add_Sub"."""
    kind, *operators = name.split("_")
    if not kind.endswith("Operator") or operators[0] == "Delete":
        return True
    before, after = operators
    return after in OTHERS[before].split()


def _more_operators() -> list[Any]:
    """Operators as cosmic-ray's are: a function returns None; `in` for `not in`, and back."""
    from cosmic_ray.operators.operator import Operator
    from parso.python.tree import Keyword

    class ReturnNone(Operator):
        def mutation_positions(self, node):
            if node.type == "return_stmt":
                yield node.start_pos, node.end_pos

        def mutate(self, node, index):  # noqa: ARG002 - cosmic-ray's signature
            node.children[1] = Keyword("None", node.children[1].start_pos, " ")
            return node

        @classmethod
        def examples(cls):
            return ()

    class NotIn(ReturnNone):
        def mutation_positions(self, node):
            is_in = getattr(node, "value", "") == "in" and node.parent.type == "comparison"
            if is_in or (node.type == "comp_op" and node.children[0].value == "not"):
                yield node.start_pos, node.end_pos

        def mutate(self, node, index):  # noqa: ARG002
            return Keyword("not in" if node.type == "keyword" else "in", node.start_pos, " ")

    return [ReturnNone(), NotIn()]


def _mutant(source: str, changed: str) -> Mutant:
    old, new = source.splitlines(), changed.splitlines()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    blocks = [block for block in matcher.get_opcodes() if block[0] != "equal"]
    first, last = blocks[0], blocks[-1]

    def text(lines: list[str]) -> str:
        return " ".join(" ".join(lines).split())

    before, after = old[first[1] : last[2]], new[first[3] : last[4]]
    return Mutant(first[1] + 1, text(before), text(after), changed)


def equivalent() -> dict[str, dict[tuple[str, str], str]]:
    """For each module the changes that mean the same as the original, and why."""
    known: dict[str, dict[tuple[str, str], str]] = {}
    for name, entries in tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).items():
        for entry in entries:
            for after in entry["after"]:
                known.setdefault(name, {})[entry["before"], after] = entry["why"]
    return known


class Worker:
    """A process that runs tests on the copy; see `mutation_worker`."""

    def __init__(self, target: Target, python: str) -> None:
        file = Path(__file__).with_name("mutation_worker.py")
        self.target = target
        self.limits: dict[str, float] = {}
        environment = {
            **os.environ,
            **target.environment,
            "PYTHONPATH": os.pathsep.join([str(COPY), str(COPY / "adapters")]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "OMP_NUM_THREADS": "1",
        }
        memory = MEMORY * (2 if target.preloaded else 1)
        self.process = subprocess.Popen(
            [python, str(file), str(memory), *target.preloaded],
            cwd=COPY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def passes(self) -> bool:
        """Whether the tests pass on the copy as it is, none of them far later than at first."""
        return all(
            self._passes(test)
            for test in self.target.tests
            if (COPY / test.partition("::")[0]).exists()
        )

    def _passes(self, test: str) -> bool:
        assert self.process.stdin is not None
        start = time.monotonic()
        self.process.stdin.write(f"{self.limits.get(test, FIRST)} {test}\n")
        self.process.stdin.flush()
        passed = self._answer() == "passed"
        self.limits.setdefault(test, 10.0 + 5.0 * (time.monotonic() - start))
        return passed


def test_module(name: str, python: str, every: int) -> int:
    """Print the changes of a module that no test notices, and give their number.

    With `every` only the first of each so many changes is made.
    """
    target, known = TARGETS[name], equivalent().get(name, {})
    path = COPY / target.path
    source = path.read_text(encoding="utf-8")
    start = time.monotonic()
    count = survivors = 0
    listed: set[tuple[str, str]] = set()
    try:
        with Worker(target, python) as worker:
            if not worker.passes():
                raise SystemExit(f"{name}: its tests fail as it is: {' '.join(target.tests)}")
            path.write_text("raise ImportError\n", encoding="utf-8")
            if worker.passes():
                raise SystemExit(f"{name}: its tests pass without it; do they import {path}?")
            for mutant in islice(mutants(source), None, None, every):
                count += 1
                change = (mutant.before, mutant.after)
                if change in known:
                    listed.add(change)
                    continue
                path.write_text(mutant.source, encoding="utf-8")
                if worker.passes():
                    survivors += 1
                    print(f"{target.path}:{mutant.line}", flush=True)
                    print(f"  - {mutant.before}\n  + {mutant.after}", flush=True)
    finally:
        path.write_text(source, encoding="utf-8")
    for before, after in sorted(known.keys() - listed) if every == 1 else ():
        print(f"{EQUIVALENT.name}: {name} has no such change any more:\n  - {before}\n  + {after}")
    minutes = (time.monotonic() - start) / 60
    print(
        f"{name}: {count} changes, {len(listed)} equivalent, {survivors} that no test notices "
        f"({minutes:.0f} min)",
        flush=True,
    )
    return survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(TARGETS))
    parser.add_argument("--python", default=sys.executable, help="runs the tests")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th change")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.modules if name not in TARGETS]
    if unknown:
        parser.error(f"no such module: {', '.join(unknown)}. There are: {', '.join(TARGETS)}")
    shutil.rmtree(COPY, ignore_errors=True)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, COPY / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", COPY)
    for folder in ("dropout_policies", "adapters"):
        compileall.compile_dir(COPY / folder, quiet=1)
    modules = arguments.modules or TARGETS
    survivors = [test_module(name, arguments.python, arguments.every) for name in modules]
    sys.exit(any(survivors))


if __name__ == "__main__":
    main()
