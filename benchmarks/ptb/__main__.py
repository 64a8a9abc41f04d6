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
            data="Folder with a text file for each part, as train.txt, valid.txt and test.txt; "
            "Penn Treebank and WikiText-2 are recognised. "
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
    words: Annotated[int, typer.Option(min=1, help="How many more.")] = 30,
    temperature: Annotated[float, typer.Option(min=0.05, help="Lower: likelier words.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 1,
    backend: Where = Backend.torch,
) -> None:
    """Let a trained model go on from some words (the paper's table 2)."""
    model = loaded(run, backend.value, "ptb")
    text = write(model, start, words, temperature, seed)
    new_console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    app()
