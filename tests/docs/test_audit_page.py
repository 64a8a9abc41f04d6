"""The page of the audit is what it said, and nothing of that was false."""

from tests.support import audit_page

LINES = audit_page.read_lines()


def test_the_page_is_what_was_said():
    assert audit_page.PAGE.read_text(encoding="utf-8") == audit_page.make_page(LINES)


def test_every_module_of_the_set_is_there_and_no_verdict_is_false():
    from tests.support.torch_audited import cases

    told = {line["module"]: line["false"] for line in LINES if line["backend"] == "torch"}
    assert {case.name for case in cases()} <= set(told)
    assert all(line["false"] in ([], None) for line in LINES)
    assert {line["backend"] for line in LINES} == set(audit_page.NAMES)


def test_a_false_verdict_would_show():
    (first, *_) = LINES
    assert audit_page.make_page([first | {"false": ["x"]}]).rstrip().endswith("| 1 |")
