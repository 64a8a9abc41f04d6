"""Where a policy masks in a model: which masks a call needs, which layers form a stack, which
adapter handles a model, and the report of what was changed.
"""
