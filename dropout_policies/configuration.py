"""The environment of the library: versions, frameworks, adapters, the compiler and the cache."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from .compilation import cache as compile_cache
from .compilation import compiler
from .compilation.libraries import compilation_allowed, compiled_library
from .errors import PolicyError
from .masks.compiled_bits import has_compiled_bits
from .placement.adapters import installed_adapters

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FRAMEWORKS = ("torch", "keras", "tensorflow", "jax", "triton")

DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-macos")}
"""The distributions that install a module, if they do not have the module's name."""


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show the environment of the library: versions, frameworks, adapters, compiler and cache.

    This imports no framework. For frameworks that are already imported, the adapters report which
    kernels they use and on how many threads. C functions that can be compiled are compiled now.

    Args:
        mode: `"stdout"`: print it as text. `"dicts"`: return it as a dictionary.

    Returns:
        The dictionary, or None if it was printed.

    Raises:
        PolicyError: `mode` is another word.
    """
    if mode == "dicts":
        return _configuration()
    if mode != "stdout":
        raise PolicyError(f"mode must be 'stdout' or 'dicts'. Received: mode={mode!r}")
    print(_as_text(_configuration()))
    return None


def _configuration() -> dict[str, Any]:
    from . import __version__

    entries = installed_adapters(tuple(sys.path))
    details = _by_adapters(entries)  # before what they have compiled is listed
    return {
        "versions": {
            "dropout_policies": __version__,
            "Python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "numpy": _version("numpy"),
            **{name: _framework(name) for name in FRAMEWORKS},
        },
        "adapters": {entry.name: entry.value for entry in entries},
        **details,
        "compiled functions": _compiled(),
    }


def _compiled() -> dict[str, Any]:
    has_compiled_bits()
    return {
        "allowed": "yes" if compilation_allowed() else "no, by DROPOUT_POLICIES_COMPILE=0",
        "compiler": _compiler(),
        "cache": _cache(),
        "CPUs": os.cpu_count(),
        **compiled_library.status(),
    }


def _compiler() -> str:
    try:
        found = compiler.find_compiler()
        return f"{found}: {found.version()}"
    except compiler.CompilerError as error:
        return str(error)


def _cache() -> str:
    try:
        folder = compile_cache.cache_folder()
    except compile_cache.CacheError as error:
        return f"not used: {error}"
    if folder is None:
        return f"not used, by {compile_cache.SETTING}="
    sizes = [_size(path) for path in folder.glob("*.so")]
    return f"{folder} ({len(sizes)} files, {sum(sizes) / 1000:.0f} kB)"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another process has removed it
        return 0


def _by_adapters(entries: list[EntryPoint]) -> dict[str, Any]:
    """What the adapters of imported frameworks report about themselves."""
    found = {}
    for entry in entries:
        if entry.name in sys.modules:
            describe: Callable[[], dict[str, Any]] | None
            describe = getattr(entry.load(), "describe", None)
            if describe is not None:
                found[entry.name] = describe()
    return found


def _framework(module: str) -> str:
    distributions = DISTRIBUTIONS.get(module, (module,))
    version = next(filter(None, map(_version, distributions)), None)
    if module in sys.modules:
        return f"{version or 'no version'}, imported"
    return version or "not installed"


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _as_text(configuration: dict[str, Any]) -> str:
    return "\n".join(_lines(configuration))


def _lines(configuration: dict[str, Any]) -> Iterator[str]:
    for heading, section in configuration.items():
        yield f"{heading}:"
        width = max(map(len, section), default=0)
        for name, value in section.items():
            yield f"    {name:<{width}}  {value}"
