"""Assertions on where a module masks; a failure shows what was measured."""

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
"""T in the picture of a failure."""


class PlacementError(AssertionError):
    """Masks do not fall where they should.

    Args:
        headline: what is wrong, in a line.
        lines: each thing that is.
        audit: what was measured.
        diagram: that, on the unrolled network, with what is wrong marked.
    """

    __module__ = "dropout_policies.testing"  # as users import it, and as pytest then writes it

    def __init__(self, headline: str, lines: list[str], audit: Audit, diagram: Diagram) -> None:
        self.audit, self.diagram = audit, diagram
        listed = "\n".join(f"  {line}" for line in lines)
        super().__init__(f"{headline}:\n{listed}\n\n{diagram}")


def assert_recurrent_state_unmasked(model: Any) -> Audit:
    """Assert that no mask falls on what a recurrent layer or model carries from step to step.

    Args:
        model: as for `dropout_policies.audit`.

    Returns:
        The audit.

    Raises:
        PlacementError: h on its way into the gates, h itself or c is masked in some layer, or
            whether they are cannot be told; an `AssertionError`.
        PolicyError: the audit cannot see into the model.
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
    headline = f"{found.name} carries a state that masks fall on"
    raise PlacementError(headline, lines, found, drawn)


def assert_placement(model: Any, policy: PolicyName | Policy) -> Audit:
    """Assert that masks fall where a policy has them, and nowhere else.

    Args:
        model: as for `dropout_policies.audit`.
        policy: a policy's name, for its placement at any rates; or a `Policy`, whose rates have
            to lie in the measured intervals too.

    Returns:
        The audit.

    Raises:
        PlacementError: masks fall elsewhere, live longer or shorter, or have another rate; or
            something that matters cannot be told; an `AssertionError`.
        PolicyError: the audit cannot see into the model, or there is no such policy.
    """
    __tracebackhide__ = True
    wanted = resolve(policy)
    found = audit(model)
    if lines := found.against(policy):
        drawn = found.diagram(policy, STEPS, path=(1, STEPS))
        raise PlacementError(f"{found.name} is not under {wanted.name}", lines, found, drawn)
    return found
