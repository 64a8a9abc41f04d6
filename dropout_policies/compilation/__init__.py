"""C functions, compiled on the user's machine when a process first needs them, and kept for the
next process. This package knows nothing about policies.
"""
