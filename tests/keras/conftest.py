"""Which cases of a test run on which backend.

On Keras's torch backend every case runs. TensorFlow and JAX compile each case anew, which took most
of the time of `make test`. There it runs some cases of each test with parameters, and
`make test-all` runs the others, which are marked slow.
"""

import zlib
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent

if find_spec("keras"):  # without it, the tests here are skipped
    import keras

    if keras.backend.backend() == "torch":
        # Operators run however few the steps are; see tests/torch/conftest.py.
        from dropout_policies_kernels import operators

        operators.MAX_LOOP_STEPS = 0


def count_to_run(cases: int) -> int:
    """How many of a test's cases run where each is compiled."""
    return max(1, cases // 8)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is marked slow
def pytest_collection_modifyitems(items):
    if not find_spec("keras") or keras.backend.backend() == "torch":
        return
    by_test = defaultdict(list)
    for item in items:
        elsewhere = item.get_closest_marker("slow") or item.get_closest_marker("any_backend")
        if FOLDER in item.path.parents and not elsewhere:
            by_test[item.nodeid.partition("[")[0]].append(item)
    for cases in by_test.values():
        # By a number of the name: the same at every run, but not the first of every test.
        cases.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        for item in cases[count_to_run(len(cases)) :]:
            item.add_marker(pytest.mark.slow)
