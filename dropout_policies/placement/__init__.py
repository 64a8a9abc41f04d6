"""Where a policy falls on a model: which masks a call needs, which layers form a stack, which
adapter a model belongs to, and the report of what was changed.
"""
