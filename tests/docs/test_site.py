"""The documentation's pages, built as `make docs` does."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.documents import PAGES, ROOT

# The pages that document what a module's __all__ names.
REFERENCE = {
    "dropout_policies": ["core"],
    "dropout_policies_torch": ["torch"],
    "dropout_policies_keras": ["keras"],
    "dropout_policies.testing": ["testing"],
    "dropout_policies.adapter": ["inside", "core"],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocs_jupyter", "mkdocstrings"):
        pytest.importorskip(package)
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


class Page(HTMLParser):
    """The ids of a page and the addresses that it links to or loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, _, attrs):
        named = dict(attrs)
        self.ids |= {named[key] for key in ("id", "name") if named.get(key)}
        self.targets += [named[key] for key in ("href", "src") if named.get(key)]


def dead_links(site):
    """Links, from any page of a site, to a file or a heading that it does not have."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        if path.name == "404.html":  # served from any folder
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            where = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = where / "index.html" if where.is_dir() else where
            anchor = unquote(parts.fragment)
            missing = anchor and where in pages and anchor not in pages[where].ids
            if missing or not where.exists():
                dead.append(f"{path.relative_to(site.resolve())}: {target}")
    return dead


def test_no_link_is_dead(site):
    assert dead_links(site) == []


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="here"></h1><a href="a.html#here"></a>')
    assert dead_links(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="a.html#there"></a><img src="no.png">')
    assert dead_links(tmp_path) == ["b.html: a.html#there", "b.html: no.png"]


@pytest.mark.parametrize("module", REFERENCE)
def test_the_reference_has_every_public_name(site, module):
    pages = [Page(site / "api" / f"{page}.html") for page in REFERENCE[module]]
    ids = set().union(*(page.ids for page in pages))
    documented = {name.rpartition(".")[2] for name in ids if name.startswith("dropout_")}
    assert set(importlib.import_module(module).__all__) <= documented


def test_equations_are_marked_for_katex_and_it_is_served(site):
    page = (site / "policies" / "zaremba.html").read_text(encoding="utf-8")
    assert '<div class="arithmatex">' in page
    assert "```math" not in page
    for file in ("katex.min.css", "katex.min.js", "contrib/auto-render.min.js"):
        assert f"../assets/katex/{file}" in page
        assert (site / "assets" / "katex" / file).stat().st_size > 1000
    fonts = re.findall(r"fonts/[\w-]+\.woff2", (site / "assets/katex/katex.min.css").read_text())
    assert fonts
    assert all((site / "assets" / "katex" / font).exists() for font in fonts)


def test_cells_of_tables_know_their_column(site):
    page = (site / "which-policy.html").read_text(encoding="utf-8")
    assert '<td data-column="start with">.5; less for a small model</td>' in page


def test_no_page_loads_anything_from_elsewhere(site):
    loading = re.compile(
        r'<(?:script|img|link rel="(?!canonical))[^>]+(?:src|href)="(https?://[^"]+)"'
    )
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert loading.findall(text) == [], page
        assert 'data-md-component="source"' not in text, "the theme asks GitHub for stars"
