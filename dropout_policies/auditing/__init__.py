"""Measures from outside where a recurrent module masks, and finds the policy that this is.

`probing` measures; `comparison` compares what was measured with policies; `audits` is what users
see of it, and `audit_rows` arranges it for diagrams.
"""
