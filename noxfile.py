"""The built wheel in clean environments: what `make dist` and `make test-versions` run.

The wheel and the source distribution are those in `dist`. No session uses the working tree: tests
are those of the source distribution, without its packages.
"""

from __future__ import annotations

import shutil
import tarfile
import tomllib
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).parent
BUILD = ROOT / "build" / "versions"

nox.options.envdir = str(ROOT / "build" / "nox")
nox.options.default_venv_backend = "venv"

EXTRAS = {
    "": "import re, importlib.metadata, dropout_policies as dp\n"
    "print(dp.zaremba(0.5)); print(dp.show_config())\n"
    "readme = importlib.metadata.metadata('dropout-policies').get_payload()\n"
    "assert len(readme) > 5000 and not re.search(r'\\]\\((?!https?://|#)', readme)",
    "cli": "import subprocess; subprocess.run(['dropout-policies', 'list'], check=True)",
    "pictures": "import dropout_policies as dp; dp.zaremba(0.5).diagram().save('zaremba.png')",
    "testing": "import dropout_policies.testing.strategies, dropout_policies_pytest.plugin",
    "torch": "import torch, dropout_policies as dp\n"
    "print(dp.apply(torch.nn.LSTM(4, 4, 2), 'zaremba', rate=0.5))",
    "torch,keras": "import keras, dropout_policies as dp\n"
    "start = keras.Input((3, 4))\n"
    "end = keras.layers.LSTM(4, return_sequences=True)(start)\n"
    "print(dp.apply(keras.Model(start, end), 'zaremba', rate=0.5))",
}
"""What a user installs, and a program that needs it."""

TESTS = {
    "core": [
        *("tests/core", "--ignore=tests/core/auditing", "--ignore=tests/core/testing"),
        *("--ignore=tests/core/test_example_adapter.py", "--ignore=tests/core/test_typing.py"),
    ],
    "torch": [
        *("tests/torch/test_layers.py", "tests/torch/test_apply.py", "tests/torch/test_cell.py"),
        *("tests/torch/test_observation.py", "tests/torch/test_pytest_plugin.py"),
        *("tests/torch/kernels/test_compiled.py", "tests/torch/kernels/test_faster_path.py"),
        "tests/torch/test_own_cell.py",
    ],
    "keras": [
        *("tests/keras/test_layers.py", "tests/keras/test_apply.py", "tests/keras/test_cells.py"),
        *("tests/keras/test_saving.py", "tests/keras/kernels/test_compiled.py"),
    ],
}
"""A quick part of the tests: of placement, of what `apply` sees, and of what frameworks change."""


def find(pattern: str) -> Path:
    """The one file of that pattern in `dist`."""
    (found,) = (ROOT / "dist").glob(pattern)
    return found


def lowest(*extras: str) -> list[str]:
    """The declared lower bounds of the package and these extras, as `name==version`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = list(project["dependencies"])
    for extra in extras:
        declared += project["optional-dependencies"][extra]
    return [str(Requirement(line)).replace(">=", "==") for line in declared]


@nox.session
@nox.parametrize("extra", list(EXTRAS), ids=[extra or "core" for extra in EXTRAS])
def clean(session: nox.Session, extra: str) -> None:
    """Install the wheel with one extra, at the versions of constraints.txt, and use it."""
    wheel = f"{find('*.whl')}[{extra}]" if extra else str(find("*.whl"))
    session.install("--constraint", str(ROOT / "constraints.txt"), wheel)
    session.cd(session.create_tmp())
    session.run("python", "-c", EXTRAS[extra], env={"KERAS_BACKEND": "torch"})
    session.run("python", "-m", "pip", "check")


def unpack_tests(folder: Path) -> Path:
    """The source distribution in a folder, without its packages; returns where its tests are."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(find("*.tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    shutil.rmtree(unpacked / "dropout_policies")
    shutil.rmtree(unpacked / "adapters")
    return unpacked


def run_cell(session: nox.Session, name: str, packages: list[str], parts: list[str]) -> None:
    """Install packages, run these parts of the tests, and leave the outcome in `build/versions`."""
    session.install(*packages, "pytest-xdist")
    tests = unpack_tests(BUILD / name / "tests")
    freeze = session.run(
        "python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check", silent=True
    )
    (BUILD / name / "packages.json").write_text(str(freeze), encoding="utf-8")
    session.cd(tests)
    environment = {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    failed = []
    for part in parts:
        report = BUILD / name / f"{part}.xml"
        try:
            session.run(
                *("python", "-P", "-m", "pytest", "--numprocesses=auto", "-p", "no:cacheprovider"),
                *(f"--junitxml={report}", *session.posargs, *TESTS[part]),
                env=environment,
                success_codes=[0, 5],  # 5: every file was skipped
            )
        except nox.command.CommandFailed:
            failed.append(part)
    if failed:
        session.error(f"tests failed: {', '.join(failed)}")


ALL = "[torch,keras,cli,pictures,testing]"


@nox.session(python=["3.11", "3.12"])
def lowest_versions(session: nox.Session) -> None:
    """The lowest declared versions of everything; what these depend on is as pip chooses."""
    pins = lowest("torch", "keras", "cli", "pictures", "testing")
    name = f"lowest-{session.python}"
    run_cell(session, name, [f"{find('*.whl')}{ALL}", *pins], list(TESTS))


@nox.session(python=["3.11", "3.12", "3.13"])
def newest_versions(session: nox.Session) -> None:
    """The newest versions that pip finds."""
    run_cell(session, f"newest-{session.python}", [f"{find('*.whl')}{ALL}"], list(TESTS))


@nox.session(python="3.11")
def core_alone(session: nox.Session) -> None:
    """Neither PyTorch nor Keras: the tests that need them are skipped."""
    run_cell(session, "core-3.11", [f"{find('*.whl')}[testing]"], ["core", "torch", "keras"])
