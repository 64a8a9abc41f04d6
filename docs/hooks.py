"""For MkDocs: what the pages need beyond Markdown.

Diagrams become part of their pages and take the page's colours. Cells of a table know their
column's name, which narrow screens show beside them. KaTeX, which sets the equations, is served
with the site.
"""

import html
import os
import re
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

IMAGE = re.compile(r'<img alt="([^"]*)" src="([^"]*pictures/[^"]+\.svg)" ?/?>')
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
HEAD = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
CODE = re.compile(r"<code>[^<]*</code>")
TAG = re.compile(r"<[^>]+>")

# `make env` puts it there.
KATEX = Path(sys.prefix) / "katex" / "node_modules" / "katex" / "dist"
SERVED = ["katex.min.css", "katex.min.js", "contrib/auto-render.min.js", "fonts/*.woff2"]


def on_config(config, **_):
    """The configuration; where mike builds one of several versions, pages have a menu of them."""
    if "MIKE_DOCS_VERSION" in os.environ:
        config.extra["version"] = {"provider": "mike"}
    return config


def on_files(files, config, **_):
    """The site's files, with those of KaTeX."""
    if not KATEX.is_dir():
        raise PluginError(f"KaTeX is not in {KATEX}: run `make env`")
    for pattern in SERVED:
        for path in sorted(KATEX.glob(pattern)):
            uri = f"assets/katex/{path.relative_to(KATEX).as_posix()}"
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_content(content, config, page, **_):
    """A page's HTML, with its diagrams in it, named cells in its tables, and links that lead on."""
    if page.file.src_uri.endswith(".ipynb"):  # whose links MkDocs leaves as they are
        content = re.sub(r'href="([^":#]+)\.md(#[^"]*)?"', r'href="\1.html\2"', content)
    folder = Path(config["docs_dir"])

    def inline(found):
        picture = (folder / "pictures" / Path(found[2]).name).read_text(encoding="utf-8").strip()
        label = html.escape(html.unescape(" ".join(found[1].split())))
        return picture.replace("<svg ", f'<svg aria-label="{label}" ', 1)

    return TABLE.sub(_name_cells, IMAGE.sub(inline, content))


def _name_cells(table):
    names = [html.escape(html.unescape(TAG.sub("", name))) for name in HEAD.findall(table[0])]

    def name_row(row):
        cells = iter(names)
        return re.sub(r"<td\b", lambda _: f'<td data-column="{next(cells, "")}"', row[0])

    # Long names break after a dot or an underscore, and nowhere else.
    broken = CODE.sub(lambda code: re.sub(r"(?<=\w)([._(])(?=\w)", r"\1<wbr>", code[0]), table[0])
    return ROW.sub(name_row, broken)
