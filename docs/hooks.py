"""For MkDocs: diagrams become part of their pages, whose ink they take, light or dark."""

import html
import re
from pathlib import Path

IMAGE = re.compile(r'<img alt="([^"]*)" src="([^"]*pictures/[^"]+\.svg)" ?/?>')


def on_page_content(content, config, **_):
    """Each picture of a diagram in a page's HTML, replaced by its SVG."""
    folder = Path(config["docs_dir"])

    def inline(found):
        picture = (folder / "pictures" / Path(found[2]).name).read_text(encoding="utf-8").strip()
        label = html.escape(html.unescape(" ".join(found[1].split())))
        return picture.replace("<svg ", f'<svg aria-label="{label}" ', 1)

    return IMAGE.sub(inline, content)
