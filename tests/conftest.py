"""Hypothesis: the same examples at every run, and no clock. And a recipe that takes seconds."""

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
