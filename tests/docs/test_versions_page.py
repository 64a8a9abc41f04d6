"""The page of tested versions is what was found, and the declared lower bounds were tested."""

from tests.support import versions_page

LINES = versions_page.read()


def same(declared, installed):
    """Whether `13` declares what `13.0.0` is."""
    numbers = [int(part) for part in declared.split(".")]
    found = [int(part) for part in installed.split("+")[0].split(".")]
    return found == numbers + [0] * (len(found) - len(numbers))


def test_the_page_is_what_was_found():
    assert versions_page.PAGE.read_text(encoding="utf-8") == versions_page.page(LINES)


def test_every_declared_lower_bound_was_tested():
    lowest = [line for line in LINES if line["kind"] == "lowest"]
    assert lowest
    for line in lowest:
        for name, bound in versions_page.declared_lowest().items():
            assert same(bound, line["versions"][name]), name


def test_no_test_failed_and_every_part_ran():
    for line in LINES:
        tests = line["tests"]
        assert all(part["failed"] == 0 for part in tests.values()), line
        ran = ("core",) if line["kind"] == "core" else tuple(tests)
        assert all(tests[part]["passed"] > 50 for part in ran), line
    newest = {line["python"] for line in LINES if line["kind"] == "newest"}
    assert newest == {"3.11", "3.12", "3.13"}


def test_that_these_checks_can_fail(tmp_path):
    assert same("13", "13.0.0")
    assert same("2.7", "2.7.0+cpu")
    assert not same("13", "13.0.1")
    (first, *_) = LINES
    assert versions_page.page([first]) != versions_page.page(LINES)
    report = tmp_path / "core.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/>')
    report.write_text(report.read_text() + "</testsuites>")
    assert versions_page.count(report) == {"passed": 3, "skipped": 3, "failed": 3}
