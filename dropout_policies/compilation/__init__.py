"""Functions in C, compiled on the user's machine when a process first needs them, and kept for the
next one. Knows nothing of policies.
"""
