"""The errors and the warning of the library."""


class PolicyError(ValueError):
    """A policy or an argument is invalid, or a policy cannot run on a layer or model.

    The message names the layer or argument, shows what was received, and says what to write
    instead. The error is always raised before anything is changed.
    """


class MissingRuleError(PolicyError, KeyError):
    """A policy has no rule at a site. It is a `KeyError` too, as for every mapping."""

    __str__ = Exception.__str__  # a KeyError's own text is the repr of its message


class WrongArgumentsError(PolicyError, TypeError):
    """A function received arguments of another kind. It is a `TypeError` too, as in Python."""


class PolicyWarning(UserWarning):
    """Something works, but more slowly than it could, or not as you might expect.

    The message says what, why, and what to do about it.
    """
