"""How audits and findings read: in one short line, and as a report."""

from dataclasses import replace

import pytest

import dropout_policies as dp
from dropout_policies.auditing.audits import Audit
from dropout_policies.auditing.probing.findings import Finding

MASKED = Finding(dp.Site.INPUT, 0, 0, "masked", 0.5, (0.47, 0.54), 1000, "step")
OUTPUT = replace(MASKED, site=dp.Site.OUTPUT)
WHOLE = Finding(dp.Site.HIDDEN, 0, 0, "whole", interval=(0.0, 0.01))

AUDIT = Audit("LSTM(5, 8)", 1, 1, (MASKED, OUTPUT, WHOLE), "identity", (), "zaremba", "zaremba", ())
NO_POLICY = replace(
    AUDIT,
    findings=(MASKED, replace(WHOLE, site=dp.Site.OUTPUT), WHOLE),
    policy=None,
    differences=("output of layer 1 is whole",),
)
UNDECIDED = replace(
    AUDIT, findings=tuple(replace(f, verdict="undecided") for f in AUDIT.findings), policy=None
)


@pytest.mark.parametrize(
    ("audit", "text"),
    [
        (AUDIT, "<Audit of LSTM(5, 8): zaremba, 2 of 2 vertical connections masked>"),
        (NO_POLICY, "<Audit of LSTM(5, 8): nearest zaremba, 1 of 2 vertical connections masked>"),
        (
            UNDECIDED,
            "<Audit of LSTM(5, 8): undecided, 0 of 2, and 2 undecided, vertical connections "
            "masked>",
        ),
        (
            replace(AUDIT, findings=(replace(MASKED, per=None), OUTPUT, WHOLE)),
            "<Audit of LSTM(5, 8): zaremba, as far as it can be seen, 2 of 2 vertical connections "
            "masked>",
        ),
    ],
    ids=["a policy", "no policy", "undecided", "in part"],
)
def test_an_audits_repr_is_one_short_line(audit, text):
    assert repr(audit) == text


def test_a_long_name_is_cut_in_the_repr_alone():
    audit = replace(AUDIT, name="Model(" + "a" * 500 + ")")
    assert len(repr(audit)) < 120
    assert repr(audit).startswith("<Audit of Model(aaa")
    assert "…: zaremba, 2 of 2" in repr(audit)
    assert str(audit).startswith(audit.name)


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (MASKED, "<Finding at input of layer 1: drop 0.5 [0.47, 0.54], per step>"),
        (WHOLE, "<Finding at hidden of layer 1: whole (rate below 0.01)>"),
        (
            replace(WHOLE, layer=1, direction=1, verdict="undecided", note="odd"),
            "<Finding at hidden of layer 2 backward: undecided: odd>",
        ),
        (
            replace(WHOLE, site=dp.Site.EMBEDDING, layer=-1),
            "<Finding at embedding: whole (rate below 0.01)>",
        ),
    ],
    ids=["masked", "whole", "undecided", "embedding"],
)
def test_a_findings_repr_is_one_short_line(finding, text):
    assert repr(finding) == text


def test_the_report_has_the_verdict_and_every_site_that_matters():
    assert str(NO_POLICY).splitlines() == [
        "LSTM(5, 8): no policy of the catalogue; nearest: zaremba",
        "  1 of 2 vertical connections masked; evaluation: identity",
        "  masks between x_s and y_t, for t - s = 0, 1, 2, 3: 1, 1, 1, 1",
        "    layer 1 input: drop 0.5 [0.47, 0.54], per step",
        "    layer 1 output: whole (rate below 0.01)",
        "    layer 1 hidden: whole (rate below 0.01)",
        "  unlike zaremba: output of layer 1 is whole",
    ]
