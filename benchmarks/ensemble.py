"""The command that averages trained models, of every task that can."""

# Annotations are evaluated where they stand, not postponed, as in `benchmarks.command`.

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dropout_policies import PolicyError

from .command import exit_with_error
from .errors import BenchmarkError
from .files import write_atomically
from .launch import Backend
from .output import new_console, print_line
from .trained import Trained, load

Folder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The folder of a run, in --out.", show_default=False),
]
Where = Annotated[Backend, typer.Option(metavar="NAME", help="The backend that runs the models.")]


def loaded(folder: Path, backend: str, task: str, known: Any = None) -> Trained:
    """The model of a run; an error that a user can mend is told."""
    try:
        return load(folder, backend, task, known)
    except (BenchmarkError, PolicyError) as error:
        raise exit_with_error(error) from None


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
            typer.Argument(metavar="RUN...", help="The folders of the runs, in --out."),
        ],
        backend: Where = Backend.torch,
        out: Annotated[
            Path | None, typer.Option(help="Write the line of results to this file.")
        ] = None,
    ) -> None:
        """Average the probabilities of trained models: of the first, the first two, and so on."""
        console = new_console()
        first = loaded(runs[0], backend.value, task)
        rest = [loaded(run, backend.value, task, first.task.data) for run in runs[1:]]
        found = average([first, *rest], backend.value)
        console.print(table(found))
        if out is not None:
            try:
                write_atomically(out, json.dumps(found) + "\n")
            except BenchmarkError as error:
                raise exit_with_error(error) from None
            print_line(console, f"results: {out}")

    return ensemble
