"""The documentation's pages, built as `make docs` does."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.documents import PAGES, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    return folder


def test_every_page_is_built(site):
    pages = {p.relative_to(ROOT / "docs").with_suffix(".html") for p in PAGES if "docs" in p.parts}
    assert pages <= {page.relative_to(site) for page in site.rglob("*.html")}


def test_diagrams_are_part_of_their_pages(site):
    page = (site / "policies" / "zaremba.html").read_text(encoding="utf-8")
    assert 'class="dp-diagram"' in page
    assert 'aria-label="The connections from the input' in page
    assert "zaremba.svg" not in page


def test_the_reference_says_what_a_function_takes(site):
    page = (site / "api" / "core.html").read_text(encoding="utf-8")
    assert 'id="dropout_policies.apply"' in page
    assert "Each mask then depends only on" in page


def test_no_page_loads_anything_from_elsewhere(site):
    loading = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"')
    for page in site.rglob("*.html"):
        found = [
            url
            for url in loading.findall(page.read_text(encoding="utf-8"))
            if "canonical" not in url
        ]
        assert found == [], page
