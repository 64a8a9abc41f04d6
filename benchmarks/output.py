"""What a person sees: a console, errors, and what must not be taken for markup."""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console
from rich.text import Text


def new_console(**options: Any) -> Console:
    """A console that prints any text in any encoding.

    Args:
        **options: of `rich.console.Console`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return Console(**options)


def print_line(console: Console, text: str) -> None:
    """Print a line as it stands: what is in brackets is no markup, and nothing is wrapped."""
    console.print(Text(text), highlight=False, soft_wrap=True)


def print_error(error: object) -> None:
    """Print an error in one line."""
    text = " ".join(str(error).split())
    new_console().print(
        Text.assemble(("error:", "red"), " ", text), highlight=False, soft_wrap=True
    )
