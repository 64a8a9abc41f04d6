"""The error and the warning of the library."""


class PolicyError(ValueError):
    """A policy that cannot be built, or cannot run where it was asked to.

    The message names the layer or argument, shows what was received, and says what to write
    instead. It is always raised before anything has been changed.
    """


class MissingRuleError(PolicyError, KeyError):
    """A policy has no rule at a site; a `KeyError`, as of every mapping."""

    __str__ = Exception.__str__  # a KeyError's own text is the repr of its message


class PolicyWarning(UserWarning):
    """Something works, but slower than it could or not as one may expect.

    The message says what, why, and what to do about it.
    """
