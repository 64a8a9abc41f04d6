"""The command that trains a task's models: its options, its runs, and what it shows at the end."""

# Annotations are evaluated where they stand, not postponed: one of them is made in a function.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import dropout_policies as dp

from .errors import BenchmarkError
from .launch import Backend, configure, launch
from .options import (
    Backends,
    CheckpointMinutes,
    Cores,
    Epochs,
    Gpus,
    Launched,
    LauncherName,
    Minutes,
    Out,
    Processes,
    Rate,
    Resume,
    SameStart,
    Seeds,
    launcher,
    policies,
)
from .output import new_console, print_error, print_line
from .processes import check
from .recipe import presets
from .starts import compare_starts

Result = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """What a task's command is made of.

    Args:
        task: its name, that of its folder.
        help: what the command does, in Markdown.
        preset: of `--preset`; {} stands for the presets' names.
        data: of `--data`.
        read: reads the data for a recipe, to refuse before any run, and says what it is.
        summary: the table of results.
        curves: draws them, and says where.
        beside: policies that run beside the preset's when none is named.
    """

    task: str
    help: str
    preset: str
    data: str
    read: Callable[[Path | None, Any], str]
    summary: Callable[[list[Result]], Table]
    curves: Callable[[list[Result], Path], Path]
    beside: Sequence[str] = ()


def new_app() -> typer.Typer:
    """An app that writes Markdown, as all of them do."""
    return typer.Typer(add_completion=False, rich_markup_mode="markdown")


def exit_with_error(error: Exception) -> typer.Exit:
    """Print an error that a user can mend; raise what comes back."""
    print_error(error)
    return typer.Exit(1)


def training(benchmark: Benchmark) -> Callable[..., None]:
    """The command of a task, for `typer`."""
    recipes = presets(benchmark.task)
    names: Any = StrEnum("PresetName", {name: name for name in recipes})  # type: ignore[misc]
    chosen = policies(" and ".join([*benchmark.beside, "the preset's"]))
    help_of_preset = benchmark.preset.format(", ".join(recipes))

    def command(
        context: typer.Context,
        backend: Backends = [Backend.torch],  # noqa: B006
        preset: Annotated[names, typer.Option(metavar="NAME", help=help_of_preset)] = names.demo,
        policy: chosen = None,
        rate: Rate = None,
        seed: Seeds = [1],  # noqa: B006
        epochs: Epochs = None,
        data: Annotated[Path | None, typer.Option(help=benchmark.data)] = None,
        out: Out = Path("runs") / benchmark.task,
        same_start: SameStart = False,
        resume: Resume = False,
        checkpoint_minutes: CheckpointMinutes = 5.0,
        minutes: Minutes = None,
        processes: Processes = 1,
        launched: Launched = LauncherName.local,
        cores: Cores = 1,
        gpus: Gpus = 0.0,
    ) -> None:
        if context.invoked_subcommand is not None:
            return
        if same_start and len(set(backend)) < 2:
            raise typer.BadParameter(
                "it compares backends, and only one is given. Write --backend twice or more.",
                param_hint="--same-start",
            )
        recipe = recipes[preset.value]
        try:
            wanted = policy or [*benchmark.beside, recipe.policy]
            backends = [one.value for one in backend]
            check(processes, backends, recipe.batch)
            configs = configure(
                benchmark.task, preset.value, backends, wanted, rate, seed, epochs, same_start
            )
            source = benchmark.read(data, recipe)
            console = new_console()
            print_line(console, f"data: {source}")
            started_by = launcher(launched, cores, gpus, processes)
            code, results = launch(
                configs, data, out, resume, checkpoint_minutes, minutes, started_by, processes
            )
            if results:
                picture = benchmark.curves(results, out / "curves.png")
                console.print(benchmark.summary(results))
                if same_start:
                    console.print(compare_starts(results))
                print_line(console, f"results: {out / 'results.jsonl'}")
                print_line(console, f"curves:  {picture}")
        except (dp.PolicyError, BenchmarkError) as error:
            raise exit_with_error(error) from None
        raise typer.Exit(code)

    command.__doc__ = benchmark.help
    return command
