"""Hypothesis: the same examples at every run, and no clock. And a recipe that takes seconds.

A test that imports an optional package is skipped where that package is not installed.
"""

import re
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


@pytest.fixture
def tiny(monkeypatch):
    """The preset `tiny`, in the benchmark's table of presets."""
    from benchmarks.ptb import presets
    from tests.support.tiny_run import TINY

    monkeypatch.setitem(presets.PRESETS, "tiny", TINY)
    return TINY


OPTIONAL = (
    *("filelock", "jax", "keras", "matplotlib", "nbclient", "nbformat", "onnx", "onnxscript"),
    *("pooch", "ray", "resource", "rich", "sacrebleu", "safetensors", "tensorflow", "torch"),
    *("triton", "typer"),
)
"""What tests may lack. `resource` is not in Python on Windows."""
MISSING = tuple(name for name in OPTIONAL if find_spec(name) is None)
NO_MODULE = re.compile(rf"ModuleNotFoundError: No module named '({'|'.join(MISSING)})\b")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Skip a file whose imports need an optional package that is not installed."""
    report = yield
    lacking = NO_MODULE.search(str(report.longrepr)) if MISSING and report.failed else None
    if lacking:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: needs {lacking[1]}")
    return report


@pytest.hookimpl(wrapper=True)
def _skip_what_is_missing(item):
    """Skip a test that imports an optional package that is not installed."""
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in MISSING:
            pytest.skip(f"{item.name} needs {error.name}")
        raise


pytest_runtest_setup = pytest_runtest_call = _skip_what_is_missing
