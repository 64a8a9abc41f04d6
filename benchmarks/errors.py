"""The error that a user can mend."""

from __future__ import annotations


class BenchmarkError(ValueError):
    """What a user can mend: a command shows it in one line and ends with code 1."""
