"""What a figure was measured with: versions and machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("dropout-policies", "numpy", "torch", "keras", "tensorflow-cpu", "tensorflow", "jax")

WRITTEN = ("benchmarks/results", "docs")
"""Where commands write what they found."""


def versions() -> dict[str, str]:
    """The versions of Python and of every package that has a part in a run."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def machine() -> dict[str, str | int]:
    """Processor, cores and, where the running framework sees one, the accelerator."""
    found: dict[str, str | int] = {"cpu": _cpu(), "cores": os.cpu_count() or 1}
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
            found["float32_products"] = torch.get_float32_matmul_precision()
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """The commit that the code stands at, with a + if files were changed since; or what the
    variable COMMIT says, where the code was copied without its history.

    Results and pages are no code: a run that writes them goes on with the same code.
    """
    if stated := os.environ.get("COMMIT"):
        return stated
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        pathspec = (":(top)", *(f":(top,exclude){folder}" for folder in WRITTEN))
        changed = git("status", "--porcelain", "-uno", "--", *pathspec)
        return commit + ("+" if commit and changed else "")
    except FileNotFoundError:
        return ""
