"""Assertions for the tests of one's own recurrent layers and models.

```python
from dropout_policies.testing import assert_placement, assert_recurrent_state_unmasked


def test_my_rnn():
    assert_recurrent_state_unmasked(MyRNN())
    assert_placement(MyRNN(), "zaremba")
```
"""

from __future__ import annotations

from typing import Any

from .audit import Audit, audit, unlike
from .catalog import resolve
from .diagram import MOST, Diagram
from .policy import Policy
from .sites import CARRIED

STEPS = 4
"""T in the picture of a failure."""


def assert_recurrent_state_unmasked(model: Any) -> Audit:
    """Assert that no mask falls on what a recurrent layer or model carries from step to step.

    Args:
        model: as for `dropout_policies.audit`.

    Returns:
        The audit.

    Raises:
        AssertionError: h on its way into the gates, h itself or c is masked in some layer, or
            whether they are cannot be told.
        PolicyError: the audit cannot see into the model.
    """
    found = audit(model)
    wrong = [f for f in found.findings if f.site in CARRIED and f.verdict != "whole"]
    lines = [f"{f.site.value} of layer {f.layer + 1}: {f.text()}" for f in wrong]
    return _checked(found, "carries a state that masks fall on", lines)


def assert_placement(model: Any, policy: str | Policy) -> Audit:
    """Assert that masks fall where a policy has them, and nowhere else.

    Args:
        model: as for `dropout_policies.audit`.
        policy: a policy's name, for its placement at any rates; or a `Policy`, whose rates have
            to lie in the measured intervals too.

    Returns:
        The audit.

    Raises:
        AssertionError: masks fall elsewhere, live longer or shorter, or have another rate; or
            something that matters cannot be told.
        PolicyError: the audit cannot see into the model, or there is no such policy.
    """
    wanted = resolve(policy)
    found = audit(model)
    lines = unlike(wanted, found.findings, rates=isinstance(policy, Policy))
    lines += [f"{f.site.value} of layer {f.layer + 1}: {f.text()}" for f in found.undecided]
    lines += found.notes
    if found.evaluation != wanted.evaluation:
        lines.append(f"evaluation is {found.evaluation}, not {wanted.evaluation}")
    return _checked(found, f"is not under {wanted.name}", lines)


def _checked(found: Audit, what: str, lines: list[str]) -> Audit:
    if not lines:
        return found
    listed = "\n".join(f"  {line}" for line in lines)
    measured = found.measured()
    drawn = ""
    if measured is not None and found.layers < MOST:
        drawn = f"\n\n{Diagram(measured, found.layers, STEPS, path=(1, STEPS))}"
    raise AssertionError(f"{found.name} {what}:\n{listed}\n\n{found}{drawn}")
