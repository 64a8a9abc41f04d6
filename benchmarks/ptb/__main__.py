"""`python -m benchmarks.ptb`: train the paper's language models, in several frameworks at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..checkpoint import CheckpointError, write_atomically
from ..command import Benchmark, new_app, told, training
from ..launch import Backend
from .corpus import CorpusError
from .corpus import load as load_corpus
from .summary import averages, curves, summary
from .trained import average, load, write

HELP = """Train the language models of *Recurrent Neural Network Regularization* (Zaremba et al.
2014).

Every backend trains under every policy, one after the other. The table at the end stands beside the
paper's figures; results.jsonl and curves.png are in the folder given by --out.

Example: `python -m benchmarks.ptb --backend torch --backend jax --policy none --policy zaremba`
"""

app = new_app()
app.callback(invoke_without_command=True)(
    training(
        Benchmark(
            task="ptb",
            help=HELP,
            preset="Recipe: {}; all but the demo are the paper's.",
            data="Folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt. "
            "[the variable PTB_DIR; else downloaded; else a synthetic language]",
            read=lambda data: load_corpus(data).source,
            summary=summary,
            curves=curves,
        )
    )
)


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
        raise told(error) from None
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
        raise told(error) from None
    console.print(write(model, start, words, temperature, seed), markup=False, highlight=False)


if __name__ == "__main__":
    app()
