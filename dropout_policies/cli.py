"""The command line: `dropout-policies`."""

from __future__ import annotations

import codecs
import importlib
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn
from rich.table import Table

from . import __version__
from .auditing.audits import Audit
from .auditing.measuring import audit as measure
from .auditing.model_audits import ModelAudit
from .configuration import show_config
from .errors import PolicyError, PolicyWarning
from .pictures.diagram import Diagram
from .placement.apply_policy import wiring as see_wiring
from .placement.wirings import Wiring
from .policies.catalog import names, resolve
from .policies.policy import Policy
from .policies.sites import Site

app = typer.Typer(pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)

ASCII = dict(zip("│┊┃┇─╌━┅■□✗−–—×⊙·…’“”", '|:!;-.=~OoX---x*..\'""', strict=True))
"""Characters to print instead if the terminal's encoding does not have the original."""

SLOW = 3.0
"""The number of seconds after which a progress bar appears."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _picture(ending: str, help_text: str) -> Any:
    def check(path: Path | None) -> Path | None:
        if path is not None and path.suffix != ending:
            raise typer.BadParameter(f"write a file name that ends with {ending}")
        return path

    return typer.Option(help=help_text, callback=check)


Svg = Annotated[Path | None, _picture(".svg", "Write the picture to this file.")]
Png = Annotated[Path | None, _picture(".png", "Write it as a PNG; needs Matplotlib.")]
Args = Annotated[str, typer.Option(help="Positional arguments for it, as a JSON list.")]
Kwargs = Annotated[str, typer.Option(help="Keyword arguments for it, as a JSON object.")]
Features = Annotated[int, typer.Option(help="D, to build a Keras layer.", min=1)]
Example = Annotated[
    str | None,
    typer.Option(help="An input of the model, or a function that returns one: module:name."),
]
Name = Annotated[str, typer.Argument(help="The name of a policy; `list` shows all.")]


def _save(drawn: Diagram | Wiring, *paths: Path | None) -> None:
    for path in paths:
        if path is not None:
            try:
                drawn.save(path)
            except OSError as error:
                raise PolicyError(f"{path} cannot be written: {error.strerror or error}") from None


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dropout-policies {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


@app.callback(invoke_without_command=True)
def options(context: typer.Context, version: Version = False) -> None:  # noqa: ARG001
    """List, draw, compare and measure dropout placements for recurrent networks."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def info(as_json: AsJson = False) -> None:
    """Show versions, frameworks, the compiler and the cache."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyWarning)  # what it prints says the same
        if as_json:
            _print_json(show_config("dicts"))
        else:
            show_config()


@app.command("list")
def list_policies(as_json: AsJson = False) -> None:
    """List the policies, what they mask, and where they come from."""
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
    layers: Annotated[int, typer.Option(help="L", min=1, max=1000)] = 2,
    steps: Annotated[int, typer.Option(help="T", min=1)] = 4,
    svg: Svg = None,
    png: Png = None,
    as_json: AsJson = False,
) -> None:
    """Show a policy on the unrolled network."""
    found = resolve(policy)
    drawn = found.diagram(layers, steps, path=(1, steps))
    _save(drawn, svg, png)
    if as_json:
        _print_json({**found.to_dict(), "corruptions": drawn.corruptions})
        return
    print(drawn)
    if found.citation:
        print(f"\n{found.citation}")


@app.command()
def compare(first: Name, second: Name, as_json: AsJson = False) -> None:
    """Compare two policies, site by site. Exit with 1 if they differ."""
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
    target: Annotated[str, typer.Argument(help="What to create: module:name (torch.nn:LSTM).")],
    args: Args = "[]",
    kwargs: Kwargs = "{}",
    features: Features = 16,
    example: Example = None,
    expect: Annotated[str | None, typer.Option(help="The policy that it must have.")] = None,
    svg: Svg = None,
    png: Png = None,
    as_json: AsJson = False,
) -> None:
    """Measure where a recurrent layer masks; with --example, every recurrent layer of a model.

    Exit with 1 if one does not have the expected policy."""
    model = _build_module(target, args, kwargs, features)
    given = None if example is None else _find_example(example)
    with _progress_bar() as progress:
        found = measure(model, given, progress=progress)
    parts = found.parts if isinstance(found, ModelAudit) else {"": found}
    if isinstance(found, Audit):
        _save(found.diagram(expect), svg, png)
    elif svg or png:
        raise PolicyError(
            "Each part of a model has a diagram of its own: --svg and --png go with one layer."
        )
    if as_json:
        _print_json(found.to_dict())
    else:
        head, *rest = str(found).splitlines()
        console.print(head, style="bold", markup=False)
        for line in rest:
            masked = ": drop " in line or ": zoneout " in line
            console.print(line, style="yellow" if masked else "", markup=False)
    if expect is None:
        return
    unlike = {name: found for name, part in parts.items() if (found := part.against(expect))}
    for name, differences in unlike.items():
        print(f"{name}{': ' * bool(name)}not {expect}: {'; '.join(differences)}", file=sys.stderr)
    if unlike:
        raise typer.Exit(1)


@contextmanager
def _progress_bar() -> Iterator[Callable[[float], None]]:
    """A progress bar on standard error, if it is a terminal and the task takes several seconds."""
    bar = Progress(BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=1.0)
    began = time.monotonic()

    def show(share: float) -> None:
        is_slow = time.monotonic() - began > SLOW
        if is_slow and not bar.live.is_started and bar.console.is_terminal:
            bar.start()
        bar.update(task, completed=share)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


@app.command()
def wiring(
    target: Annotated[str, typer.Argument(help="What creates the model: module:name.")],
    args: Args = "[]",
    kwargs: Kwargs = "{}",
    features: Features = 16,
    example: Example = None,
    svg: Svg = None,
) -> None:
    """Show how a model's recurrent layers are connected, and the dropout between them."""
    model = _build_module(target, args, kwargs, features)
    seen = see_wiring(model, None if example is None else _find_example(example))
    _save(seen, svg)
    print(seen)


def _find_example(target: str) -> Any:
    """The example that the user names: an object, or the result of a function."""
    found = _find_object(target)
    return found() if callable(found) else found


def _find_object(target: str) -> Any:
    """The object that the user names as module:name."""
    module, _, name = target.partition(":")
    if not module or not name:
        raise PolicyError(f"Write module:name, as torch.nn:LSTM. Received: {target}")
    sys.path.insert(0, "")  # a user's own module lies where the command is run
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        raise PolicyError(
            f"{target} cannot be imported: {_describe_error(error)}. Write module:name, as "
            f"torch.nn:LSTM."
        ) from error


def _build_module(target: str, args: str, kwargs: str, features: int) -> Any:
    given, named = _parse_json("--args", args, list), _parse_json("--kwargs", kwargs, dict)
    kind = _find_object(target)
    try:
        made = kind(*given, **named)
        if hasattr(made, "built") and not made.built:
            made.build((None, None, features))
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        raise PolicyError(
            f"{target} cannot be made: {_describe_error(error)}. Write module:name, as "
            f"torch.nn:LSTM, and what it takes with --args and --kwargs."
        ) from error
    return made


def _parse_json(option: str, text: str, kind: type) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{option} is no JSON ({error}). Received: {text}") from None
    if not isinstance(found, kind):
        what = "list" if kind is list else "object"
        raise PolicyError(f"{option} takes a JSON {what}. Received: {text}")
    return found


def _describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def main() -> NoReturn:
    """Run the command. If it cannot be carried out, exit with 2 and one line that says why.

    With Python's development mode (`PYTHONDEVMODE=1`), the error itself shows where it was raised.
    """
    _print_in_any_encoding()
    try:
        code = app(standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        code = _print_error(error)
    sys.exit(_flush_output() or code)


def _print_error(error: Exception) -> int:
    if isinstance(error, PolicyError):
        message = str(error)
    elif hasattr(error, "format_message"):  # Typer's, of a command that is not as it should be
        message = error.format_message()
    else:
        message = _describe_error(error)
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _flush_output() -> int:
    """The exit code after printing the rest: 0 if this succeeds."""
    try:
        sys.stdout.flush()
        return 0
    except AttributeError:  # there is no standard output
        return 0
    except OSError as error:
        # Python would try once more when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if isinstance(error, BrokenPipeError) else _print_error(error)


def _print_in_any_encoding() -> None:
    codecs.register_error("dropout_policies.ascii", _replace_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dropout_policies.ascii")


def _replace_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(ASCII.get(character, "?") for character in wrong), error.end
