"""Assertions on where a module masks. A failure shows what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..auditing.audits import Audit
from ..auditing.measuring import audit
from ..pictures.diagram import Diagram
from ..policies.catalog import PolicyName, resolve
from ..policies.policy import Policy
from ..policies.sites import CARRIED

STEPS = 4
"""T in the diagram of a failure."""


class PlacementError(AssertionError):
    """Masks are not where they should be.

    Args:
        headline: what is wrong, in one line.
        lines: each single thing that is wrong.
        audit: what was measured.
        diagram: the audit on the unrolled network, with the wrong rows marked.
    """

    __module__ = "dropout_policies.testing"  # as users import it, and as pytest then writes it

    def __init__(self, headline: str, lines: list[str], audit: Audit, diagram: Diagram) -> None:
        self.audit, self.diagram = audit, diagram
        listed = "\n".join(f"  {line}" for line in lines)
        super().__init__(f"{headline}:\n{listed}\n\n{diagram}")


def assert_recurrent_state_unmasked(model: Any) -> Audit:
    """Assert that nothing that a recurrent layer carries from step to step is masked.

    Args:
        model: a recurrent layer or model, as for `dropout_policies.audit` without `example`.

    Returns:
        The audit.

    Raises:
        PlacementError: in some layer, h (itself, or where it enters the gates) or c is masked, or
            that cannot be decided. It is an `AssertionError`.
        PolicyError: the audit cannot see inside the model.
    """
    __tracebackhide__ = True
    found = audit(model)
    wrong = [f for f in found.findings if f.site in CARRIED and f.verdict != "whole"]
    lines = [f"{f.site.value} of layer {f.layer + 1}: {f.text()}" for f in wrong]
    if not lines:
        return found
    layers = {f"layer {f.layer + 1}" for f in wrong}
    drawn = found.diagram(steps=STEPS, path=(1, STEPS))
    rows = [replace(row, wrong=row.name in layers) for row in drawn.rows]
    drawn = replace(drawn, rows=rows, wanted="a state that is whole")
    headline = f"{found.name} carries a state that is masked"
    raise PlacementError(headline, lines, found, drawn)


def assert_placement(model: Any, policy: PolicyName | Policy) -> Audit:
    """Assert that a module masks where a policy does, and nowhere else.

    Args:
        model: a recurrent layer or model, as for `dropout_policies.audit` without `example`.
        policy: the name of a policy, to check the placement at any rates. Or a `Policy`, to check
            also that its rates are in the measured intervals.

    Returns:
        The audit.

    Raises:
        PlacementError: masks are elsewhere, last longer or shorter, or have another rate, or
            something that matters cannot be decided. It is an `AssertionError`.
        PolicyError: the audit cannot see inside the model, or there is no such policy.
    """
    __tracebackhide__ = True
    wanted = resolve(policy)
    found = audit(model)
    if lines := found.against(policy):
        drawn = found.diagram(policy, STEPS, path=(1, STEPS))
        raise PlacementError(f"{found.name} is not under {wanted.name}", lines, found, drawn)
    return found
