"""The pytest plugin: a fixture for audits, and failure reports that show what was measured."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dropout_policies import Audit

AUDITS = pytest.StashKey[list["Audit"]]()


@pytest.fixture
def dropout_audit(request: pytest.FixtureRequest) -> Callable[[Any], Audit]:
    """`dropout_policies.audit` as a fixture. If the test fails, its report shows the audit."""
    import dropout_policies

    made = request.node.stash.setdefault(AUDITS, [])

    def audit(model: Any) -> Audit:
        found = dropout_policies.audit(model)
        made.append(found)
        return found

    return audit


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the audits of a failed test to its report."""
    report = yield
    if report.failed and call.excinfo is not None:
        shown = [(a, f"{a}\n\n{a.diagram()}") for a in item.stash.get(AUDITS, [])]
        found = getattr(call.excinfo.value, "audit", None)
        if found is not None:  # the error's message already has the diagram
            shown.append((found, str(found)))
        report.sections += [(f"dropout of {audit.name}", text) for audit, text in shown]
    return report
