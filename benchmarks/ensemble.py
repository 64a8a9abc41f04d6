"""The command that averages trained models, of every task that can."""

# Annotations are evaluated where they stand, not postponed, as in `benchmarks.command`.

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .checkpoint import CheckpointError, write_atomically
from .command import told
from .launch import Backend
from .task import DataError
from .trained import Trained, load

Folder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run's folder, as --out has them.", show_default=False),
]
Where = Annotated[Backend, typer.Option(metavar="NAME", help="Where the models are to run.")]


def loaded(folder: Path, backend: str, task: str, known: Any = None) -> Trained:
    """The model of a run; an error that a user can mend is told."""
    try:
        return load(folder, backend, task, known)
    except (DataError, CheckpointError) as error:
        raise told(error) from None


def averaging(
    task: str,
    average: Callable[[Sequence[Trained], str], dict[str, Any]],
    table: Callable[[dict[str, Any]], Table],
) -> Callable[..., None]:
    """The command of a task, for `typer`.

    Args:
        task: whose runs they are.
        average: of models and where they run, the line of results.
        table: of that line.
    """

    def ensemble(
        runs: Annotated[
            list[Path],
            typer.Argument(metavar="RUN...", help="Folders of runs, as --out has them."),
        ],
        backend: Where = Backend.torch,
        out: Annotated[
            Path | None, typer.Option(help="Write the line of results to this file.")
        ] = None,
    ) -> None:
        """Average the probabilities of trained models, one more at a time."""
        console = Console()
        first = loaded(runs[0], backend.value, task)
        rest = [loaded(run, backend.value, task, first.task.data) for run in runs[1:]]
        found = average([first, *rest], backend.value)
        console.print(table(found))
        if out is not None:
            write_atomically(out, json.dumps(found) + "\n")
            console.print(f"results: {out}", highlight=False)

    return ensemble
