"""Operators run in these tests however few the steps are.

The limit that users get is tested in `kernels/test_faster_path.py`.
"""

from importlib.util import find_spec

if find_spec("torch"):  # without it, the tests here are skipped
    from dropout_policies_kernels import operators

    operators.MAX_LOOP_STEPS = 0
