"""The arguments and options of the command line, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .policies.catalog import names

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _picture(ending: str, help_text: str) -> Any:
    def check(path: Path | None) -> Path | None:
        if path is not None and path.suffix != ending:
            raise typer.BadParameter(f"write a file name that ends with {ending}")
        return path

    return typer.Option(help=help_text, callback=check)


def _complete_policy(start: str) -> list[str]:
    """The policies for a shell to complete: names, also after `+` and `|`."""
    before = start[: max(start.rfind("+"), start.rfind("|")) + 1]
    return [before + name for name in names() if (before + name).startswith(start)]


Svg = Annotated[Path | None, _picture(".svg", "Write the picture to this file, as an SVG.")]
Png = Annotated[
    Path | None, _picture(".png", "Write the picture to this file, as a PNG; needs Matplotlib.")
]
Args = Annotated[str, typer.Option(help="Its positional arguments, as a JSON list: '[16, 16]'.")]
Kwargs = Annotated[
    str, typer.Option(help="Its keyword arguments, as a JSON object: '{\"num_layers\": 2}'.")
]
Features = Annotated[
    int, typer.Option(help="The number of input features D, to build a Keras layer.", min=1)
]
Example = Annotated[
    str | None,
    typer.Option(help="An input of the model, or a function that returns one: module:name."),
]
Target = Annotated[
    str,
    typer.Argument(
        help="The class or function that creates the layer or model, as module:name "
        "(torch.nn:LSTM). The current folder is searched first."
    ),
]
POLICY_HELP = "A policy: a name (`list` shows them), several as zaremba+zoneout, or a .json file."
Name = Annotated[str, typer.Argument(help=POLICY_HELP, autocompletion=_complete_policy)]
RATE_HELP = (
    "Rates instead of the policy's own: a number, a list with one for each layer ('[0.2, 0.5]'), "
    "or rates by site ('{\"input\": 0.4}')."
)
RateText = Annotated[str | None, typer.Option(help=RATE_HELP)]
PolicyOption = Annotated[str, typer.Option(help=POLICY_HELP, autocompletion=_complete_policy)]
Expected = Annotated[
    str | None,
    typer.Option(
        help="The policy that it must have; the exit code is 1 if it has another. The rates of a "
        ".json file must fit too.",
        autocompletion=_complete_policy,
    ),
]
Layers = Annotated[
    int, typer.Option(help="The number of layers L of the network.", min=1, max=1000)
]
Steps = Annotated[
    int, typer.Option(help="The number of time steps T that are drawn, up to 26.", min=1)
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="A layer that gets the policy, or a pattern: 'encoder.*'. Repeatable."),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(help="A layer that gets no policy, or a pattern. Repeatable."),
]
Existing = Annotated[
    str,
    typer.Option(
        help="What to do with the model's own dropout where the policy masks: 'take over', 'keep' "
        "or 'refuse'."
    ),
]
Stacks = Annotated[
    str | None,
    typer.Option(
        help="Which layers feed each other, as JSON, if the model does not show it: "
        '\'[["low", "high"]]\'.'
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Needed: print the report, and keep nothing.")
]
