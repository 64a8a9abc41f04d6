"""The command line: `dropout-policies`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .audit import audit as measure
from .catalog import names, resolve
from .diagram import Diagram
from .errors import PolicyError
from .policy import Policy
from .sites import Site

app = typer.Typer(
    help="Dropout placements for recurrent networks: list, draw, compare and measure them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _picture(ending: str, help_text: str) -> Any:
    def check(path: Path | None) -> Path | None:
        if path is not None and path.suffix != ending:
            raise typer.BadParameter(f"write a file name that ends with {ending}")
        return path

    return typer.Option(help=help_text, callback=check)


Svg = Annotated[Path | None, _picture(".svg", "Write the picture to this file.")]
Png = Annotated[Path | None, _picture(".png", "Write it as a PNG; needs Matplotlib.")]
Name = Annotated[str, typer.Argument(help="A policy's name; `list` shows them.")]


def _save(drawn: Diagram, *paths: Path | None) -> None:
    for path in paths:
        if path is not None:
            drawn.save(path)


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))


@app.command("list")
def list_policies(as_json: AsJson = False) -> None:
    """The policies, with what they mask and where they come from."""
    policies = [resolve(name) for name in names()]
    if as_json:
        _print_json([policy.to_dict() for policy in policies])
        return
    table = Table("policy", "masks", "published", box=None, pad_edge=False, header_style="bold")
    for policy in policies:
        sites = "\n".join(f"{site.value} {rule.text()}" for site, rule in policy.items())
        who, _, _ = policy.citation.partition(")")
        table.add_row(policy.name, sites or "nothing", f"{who})" if who else "")
    console.print(table)


@app.command()
def show(
    policy: Name,
    layers: Annotated[int, typer.Option(help="L")] = 2,
    steps: Annotated[int, typer.Option(help="T")] = 4,
    svg: Svg = None,
    png: Png = None,
    as_json: AsJson = False,
) -> None:
    """A policy on the unrolled network."""
    found = resolve(policy)
    drawn = found.diagram(layers, steps, path=(1, steps))
    _save(drawn, svg, png)
    if as_json:
        _print_json({**found.to_dict(), "corruptions": drawn.corruptions})
        return
    typer.echo(str(drawn))
    if found.citation:
        typer.echo(f"\n{found.citation}")


@app.command()
def compare(first: Name, second: Name, as_json: AsJson = False) -> None:
    """Two policies, site by site. Exits with 1 if they differ."""
    one, other = resolve(first), resolve(second)
    rows = {
        site.value: (_text(one, site), _text(other, site))
        for site in Site
        if site in one or site in other
    }
    if as_json:
        _print_json({site: {first: a, second: b} for site, (a, b) in rows.items()})
    else:
        table = Table("site", first, second, box=None, pad_edge=False, header_style="bold")
        for site, (a, b) in rows.items():
            style = "" if a == b else "yellow"
            table.add_row(site, a, b, style=style)
        console.print(table)
    if one != other:
        raise typer.Exit(1)


def _text(policy: Policy, site: Site) -> str:
    return policy[site].text() if site in policy else "whole"


@app.command()
def audit(
    target: Annotated[str, typer.Argument(help="What to make: module:name, as torch.nn:LSTM.")],
    args: Annotated[str, typer.Option(help="Its positional arguments, as a JSON list.")] = "[]",
    kwargs: Annotated[str, typer.Option(help="Its named ones, as a JSON object.")] = "{}",
    features: Annotated[int, typer.Option(help="D, for a Keras layer that has to be built.")] = 16,
    expect: Annotated[str | None, typer.Option(help="The policy that it has to be.")] = None,
    svg: Svg = None,
    png: Png = None,
    as_json: AsJson = False,
) -> None:
    """Measure where a recurrent layer masks. Exits with 1 if it is not what was expected."""
    made = _made(target, args, kwargs)
    if hasattr(made, "built") and not made.built:
        made.build((None, None, features))
    found = measure(made)
    _save(found.diagram(expect), svg, png)
    if as_json:
        _print_json(found.to_dict())
    else:
        head, *rest = str(found).splitlines()
        console.print(head, style="bold", markup=False)
        for line in rest:
            masked = ": drop " in line or ": zoneout " in line
            console.print(line, style="yellow" if masked else "", markup=False)
    if expect is not None and (differences := found.against(expect)):
        typer.echo(f"not {expect}: {'; '.join(differences)}", err=True)
        raise typer.Exit(1)


def _made(target: str, args: str, kwargs: str) -> Any:
    module, _, name = target.partition(":")
    try:
        given, named = json.loads(args), json.loads(kwargs)
    except json.JSONDecodeError as error:
        raise PolicyError(f"This is no JSON ({error}). Received: {args} {kwargs}") from None
    if not isinstance(given, list) or not isinstance(named, dict):
        raise PolicyError(
            f"--args takes a JSON list, and --kwargs a JSON object. Received: {args} {kwargs}"
        )
    sys.path.insert(0, "")  # a user's own module lies where the command is run
    try:
        return getattr(importlib.import_module(module), name)(*given, **named)
    except (ImportError, AttributeError, ValueError) as error:
        raise PolicyError(
            f"{target} cannot be made: {error}. Write module:name, as torch.nn:LSTM."
        ) from None


def main() -> None:
    """Run the command; what is wrong with what was asked for exits with 2."""
    try:
        app()
    except PolicyError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
