"""`python -m benchmarks.ptb`: train the paper's language models, in several frameworks at once."""

from __future__ import annotations

from typing import Annotated

import typer

from ..command import Benchmark, new_app, training
from ..ensemble import Folder, Where, averaging, loaded
from ..launch import Backend
from ..output import new_console
from .summary import averages, curves, summary
from .task import read
from .trained import average, write

HELP = """Train the language models of *Recurrent Neural Network Regularization* (Zaremba et al.
2014).

Every policy is trained in every backend, one run after the other. The table at the end shows the
paper's figures too. The folder --out then has results.jsonl and curves.png.

Example: `python -m benchmarks.ptb --backend torch --backend jax --policy none --policy zaremba`
"""

app = new_app()
app.callback(invoke_without_command=True)(
    training(
        Benchmark(
            task="ptb",
            help=HELP,
            preset="Recipe: {}. small, medium and large are the paper's.",
            data="Folder with a text file for each part, such as train.txt, valid.txt and "
            "test.txt. Penn Treebank and WikiText-2 are recognised. "
            "[the variable PTB_DIR; else Penn Treebank, downloaded; else a synthetic language]",
            read=lambda data, recipe: read(data, recipe).source,
            summary=summary,
            curves=curves,
        )
    )
)


app.command("ensemble")(averaging("ptb", average, averages))


@app.command()
def sample(
    run: Folder,
    start: Annotated[str, typer.Argument(help="The first words.")] = "the meaning of life is",
    words: Annotated[int, typer.Option(min=1, help="Number of words to add.")] = 30,
    temperature: Annotated[
        float, typer.Option(min=0.05, help="Below 1, likelier words are chosen.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random choices.")] = 1,
    backend: Where = Backend.torch,
) -> None:
    """Let a trained model continue some words, as in table 2 of the paper."""
    model = loaded(run, backend.value, "ptb")
    text = write(model, start, words, temperature, seed)
    new_console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    app()
