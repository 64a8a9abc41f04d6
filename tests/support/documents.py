"""The documentation's code, run as a reader would run it: block after block, page by page."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line it begins at."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 2)
        for found in FENCE.finditer(text)
    ]


def name(page: Path) -> str:
    """What a page is called where several are."""
    return str(page.relative_to(ROOT))


def has_code(page: Path) -> bool:
    return any(block.language == "python" for block in blocks(page))


def needs_keras(page: Path) -> bool:
    """Whether a page's code runs Keras, and so once on every backend."""
    return any(
        block.language == "python" and re.search(r"^\s*(import|from) \w*keras", block.text, re.M)
        for block in blocks(page)
    )


def run(page: Path) -> int:
    """Run a page's Python in one namespace; a `text` block after it is what it must print.

    Returns:
        How many outputs were compared.

    Raises:
        AssertionError: a block printed something else.
    """
    names: dict[str, object] = {"__name__": page.stem}
    printed: str | None = None
    compared = 0
    for block in blocks(page):
        if block.language == "python":
            out = io.StringIO()
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(out):
                exec(code, names)
            printed = out.getvalue()
        elif block.language == "text" and printed is not None:
            where = f"{page.name}, line {block.line}"
            assert printed.strip() == block.text.strip(), f"{where}: it prints\n{printed}"
            printed, compared = None, compared + 1
    return compared
