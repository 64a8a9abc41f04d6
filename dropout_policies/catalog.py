"""The published policies by name, each with its citation and default rate."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from .errors import PolicyError
from .policy import Policy, drop

ZAREMBA = (
    "Zaremba, Sutskever & Vinyals (2014), Recurrent Neural Network Regularization, arXiv:1409.2329"
)
MERITY = (
    "Merity, Keskar & Socher (2018), Regularizing and Optimizing LSTM Language Models, "
    "arXiv:1708.02182"
)


def none() -> Policy:
    """No mask anywhere."""
    return Policy(name="none")


def zaremba(rate: float = 0.5) -> Policy:
    """Dropout on the vertical connections only, drawn anew for every step.

    Information is corrupted L+1 times on its way from any x_s to any y_t, whatever t − s.
    The paper's rates are 0.5 (medium) and 0.65 (large). Zaremba et al. 2014, section 3.2.
    """
    rule = drop(rate)
    return Policy(name="zaremba", citation=ZAREMBA, input=rule, between=rule, output=rule)


def naive(rate: float = 0.5) -> Policy:
    """`zaremba` plus a mask on the hidden state on its way into the gates.

    The placement that fails: information is corrupted once more at every step it is kept. Here
    for comparison; Zaremba et al. 2014, section 3.2, say why.
    """
    rule = drop(rate)
    return Policy(
        name="naive", citation=ZAREMBA, input=rule, between=rule, output=rule, hidden=rule
    )


def locked(rate: float = 0.4) -> Policy:
    """Dropout on the vertical connections only, one mask for each sample through all its steps.

    The paper's LSTM on Penn Treebank has 0.4 on its way in and out. Merity et al. 2018, section 4.
    """
    rule = drop(rate, per="sequence")
    return Policy(name="locked", citation=MERITY, input=rule, between=rule, output=rule)


_CATALOG: dict[str, Callable[..., Policy]] = {
    "none": none,
    "zaremba": zaremba,
    "naive": naive,
    "locked": locked,
}


def names() -> tuple[str, ...]:
    """The names of the published policies."""
    return tuple(_CATALOG)


def resolve(policy: str | Policy, rate: float | None = None) -> Policy:
    """The policy meant by a name and a rate, or by a `Policy` that is one already.

    Raises:
        PolicyError: an unknown name (the nearest are listed), a rate outside [0, 1), or a rate
            beside a `Policy` or beside `"none"`, which have theirs already.
    """
    if isinstance(policy, Policy):
        if rate is not None:
            raise PolicyError(
                f"rate goes with a policy's name; this one has its rates already. "
                f"Received: policy={policy!r}, rate={rate!r}"
            )
        return policy
    if not isinstance(policy, str):
        raise PolicyError(f"policy must be a name or a Policy. Received: policy={policy!r}")
    if policy not in _CATALOG:
        near = difflib.get_close_matches(policy.lower(), _CATALOG, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "See dp.names()."
        raise PolicyError(
            f"There is no policy {policy!r}. {hint} The names are: {', '.join(_CATALOG)}."
        )
    arguments: dict[str, Any] = {} if rate is None else {"rate": rate}
    if policy == "none" and arguments:
        raise PolicyError(f"Policy 'none' has no rate. Received: rate={rate!r}; leave rate out.")
    return _CATALOG[policy](**arguments)
