"""Operators run in these tests however few the steps are.

The limit that users get is tested in `kernels/test_faster_path.py`.
"""

from dropout_policies_kernels import operators

operators.MAX_LOOP_STEPS = 0
