"""`python -m benchmarks.ptb`: train the paper's language models, in several frameworks at once."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import dropout_policies as dp

from ..checkpoint import CheckpointError, write_atomically
from ..launch import Backend, configure, launch
from ..options import Backends, CheckpointMinutes, Epochs, Out, Policies, Rate, Resume, Seeds
from .corpus import CorpusError
from .corpus import load as load_corpus
from .presets import PRESETS
from .summary import averages, compare_starts, curves, summary
from .trained import average, load, write

PresetName = StrEnum("PresetName", {name: name for name in PRESETS})  # type: ignore[misc]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.callback(invoke_without_command=True)
def ptb(
    context: typer.Context,
    backend: Backends = [Backend.torch],  # noqa: B006
    preset: Annotated[
        PresetName,
        typer.Option(
            metavar="NAME",
            help=f"Recipe: {', '.join(PRESETS)}; all but the demo are the paper's.",
        ),
    ] = PresetName.demo,
    policy: Policies = None,
    rate: Rate = None,
    seed: Seeds = [1],  # noqa: B006
    epochs: Epochs = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt. "
            "[the variable PTB_DIR; else downloaded; else a synthetic language]"
        ),
    ] = None,
    out: Out = Path("runs/ptb"),
    same_start: Annotated[
        bool,
        typer.Option(
            "--same-start",
            help="The same initial weights and masks in every backend; compares the losses of the "
            "first 200 steps, which run at a quarter of the learning rate.",
        ),
    ] = False,
    resume: Resume = False,
    checkpoint_minutes: CheckpointMinutes = 5.0,
) -> None:
    """Train the language models of *Recurrent Neural Network Regularization* (Zaremba et al. 2014).

    Every backend trains under every policy, one after the other. The table at the end stands
    beside the paper's figures; results.jsonl and curves.png are in the folder given by --out.

    Example: `python -m benchmarks.ptb --backend torch --backend jax --policy none --policy zaremba`
    """
    if context.invoked_subcommand is not None:
        return
    console = Console()
    if same_start and len(set(backend)) < 2:
        raise typer.BadParameter(
            "compares backends: give --backend twice or more", param_hint="--same-start"
        )
    try:
        policies = policy or [PRESETS[preset.value].policy]
        backends = [one.value for one in backend]
        configs = configure("ptb", preset.value, backends, policies, rate, seed, epochs, same_start)
        source = load_corpus(data).source
    except (dp.PolicyError, CorpusError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"corpus: {source}", highlight=False, soft_wrap=True)
    code, results = launch(configs, data, out, resume, checkpoint_minutes)
    if results:
        picture = curves(results, out / "curves.png")
        console.print(summary(results))
        if same_start and len(backend) > 1:
            console.print(compare_starts(results))
        console.print(f"results: {out / 'results.jsonl'}\ncurves:  {picture}", highlight=False)
    raise typer.Exit(code)


Folder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run's folder, as --out has them.", show_default=False),
]
Where = Annotated[Backend, typer.Option(metavar="NAME", help="Where the models are to run.")]


@app.command()
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
    try:
        first = load(runs[0], backend.value)
        models = [first, *(load(run, backend.value, first.corpus) for run in runs[1:])]
    except (CorpusError, CheckpointError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    found = average(models, backend.value)
    console.print(averages(found))
    if out is not None:
        write_atomically(out, json.dumps(found) + "\n")
        console.print(f"results: {out}", highlight=False)


@app.command()
def sample(
    run: Folder,
    start: Annotated[str, typer.Argument(help="The first words.")] = "the meaning of life is",
    words: Annotated[int, typer.Option(min=1, help="How many more.")] = 30,
    temperature: Annotated[float, typer.Option(min=0.05, help="Lower: likelier words.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 1,
    backend: Where = Backend.torch,
) -> None:
    """Let a trained model go on from some words (the paper's table 2)."""
    console = Console()
    try:
        model = load(run, backend.value)
    except (CorpusError, CheckpointError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(write(model, start, words, temperature, seed), markup=False, highlight=False)


if __name__ == "__main__":
    app()
