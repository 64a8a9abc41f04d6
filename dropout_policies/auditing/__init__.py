"""Measures from outside where a recurrent module masks, and finds the policy that fits.

`probing` measures. `comparison` compares the measurement with policies. `audits` is the result that
users see, and `audit_rows` arranges it for diagrams.
"""
