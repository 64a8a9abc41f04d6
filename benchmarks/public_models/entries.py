"""What is known of a public model: where it comes from, how it is built, what to write for it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_LIBRARIES: list[torch.library.Library] = []

SOURCES = "PUBLIC_MODELS_DIR"
"""The variable that names a folder of repositories, for models that no package holds: a file of
GitHub's owner/name lies in owner/name there."""


@cache
def define_missing_operators() -> None:
    """Define the operators that torchvision's Python code names, where its library is not there,
    being for CUDA; no model here calls them."""
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders or any(any(Path(folder).glob("_C*.so")) for folder in folders):
        return
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)


class NotInstalledError(Exception):
    """A model that cannot be built here."""


Build = Callable[[], tuple[Any, Any]]


@dataclass(frozen=True)
class Entry:
    """A public model.

    Args:
        name: how the page calls it.
        package: the package on PyPI, or the repository on GitHub, as `owner/name`.
        build: makes the model and an example input, as `apply` takes it.
        write: the arguments of `apply` that fit the model, beside the policy and the example.
        first: a line of code on `model` that comes before, or "".
        note: what a reader should know, or "".
    """

    name: str
    package: str
    build: Build
    write: dict[str, Any] = field(default_factory=dict)
    first: str = ""
    note: str = ""


class Entries(dict[str, Entry]):
    """Entries by the name of the function that builds each, which is decorated with a call."""

    def __call__(
        self, name: str, package: str, first: str = "", note: str = "", **write: Any
    ) -> Callable[[Build], Build]:
        def add(build: Build) -> Build:
            self[build.__name__] = Entry(name, package, build, write, first, note)
            return build

        return add


def load(name: str) -> Any:
    """Import a module without running the `__init__` of the packages around it.

    Those import much that a model does not need, and fail where one part of it is missing.

    Args:
        name: the module, such as `torchaudio.models.tacotron2`.

    Raises:
        NotInstalledError: it is not here, or needs what is not here.
    """
    parents = name.split(".")[:-1]
    for number in range(1, len(parents) + 1):
        package = ".".join(parents[:number])
        if package in sys.modules:
            continue
        outer = ".".join(parents[: number - 1])
        places = sys.modules[outer].__path__ if outer else sys.path
        folders = [Path(place or ".") / parents[number - 1] for place in places]
        found = [str(folder) for folder in folders if folder.is_dir()]
        if not found:
            raise NotInstalledError(f"{package} is not installed")
        module = ModuleType(package)
        module.__path__ = found
        module.__spec__ = ModuleSpec(package, None, is_package=True)
        sys.modules[package] = module
    return imported(name)


def imported(name: str) -> Any:
    """Import a module as usual.

    Raises:
        NotInstalledError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, AttributeError, TypeError, ValueError) as error:
        raise NotInstalledError(f"{name} cannot be imported: {error}") from error


def source(path: str) -> dict[str, Any]:
    """The names that a Python file of a GitHub repository defines.

    Args:
        path: `owner/name/path/of/file.py`, below the folder that PUBLIC_MODELS_DIR names.

    Raises:
        NotInstalledError: the file is not there.
    """
    file = Path(os.environ.get(SOURCES, "")) / path
    if not os.environ.get(SOURCES) or not file.is_file():
        raise NotInstalledError(f"{path} is not below the folder that {SOURCES} names")
    module = ModuleType(path.replace("/", "_").removesuffix(".py"))
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # where data classes look for it
    try:
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), vars(module))
    except ImportError as error:
        raise NotInstalledError(str(error)) from error
    return vars(module)
