"""The command line: `dropout-policies`."""

from __future__ import annotations

import codecs
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
from .command_arguments import (
    build_model,
    describe_error,
    find_example,
    find_policy,
    is_file,
    parse_json,
    parse_rate,
)
from .command_options import (
    Args,
    AsJson,
    DryRun,
    Example,
    Existing,
    Expected,
    Features,
    Kwargs,
    Layers,
    Name,
    Only,
    Png,
    PolicyOption,
    RateText,
    Skip,
    Stacks,
    Steps,
    Svg,
    Target,
)
from .configuration import show_config
from .errors import PolicyError, PolicyWarning
from .pictures.diagram import Diagram
from .placement.apply_policy import apply as apply_policy
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
    """Draw and compare dropout policies for recurrent networks, and measure where layers mask."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def info(as_json: AsJson = False) -> None:
    """Show versions, frameworks, the compiler and the cache.

    This is what to send with a bug report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyWarning)  # what it prints says the same
        if as_json:
            _print_json(show_config("dicts"))
        else:
            show_config()


@app.command("list")
def list_policies(as_json: AsJson = False) -> None:
    """List the published policies, what they mask, and where they come from."""
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
    rate: RateText = None,
    layers: Layers = 2,
    steps: Steps = 4,
    svg: Svg = None,
    png: Png = None,
    as_json: AsJson = False,
) -> None:
    """Draw a policy on the unrolled network, and count the masks on a path through it."""
    found = find_policy(policy, rate)
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
    """Compare two policies, site by site. The exit code is 1 if they differ."""
    one, other = find_policy(first), find_policy(second)
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
    target: Target,
    args: Args = "[]",
    kwargs: Kwargs = "{}",
    features: Features = 16,
    example: Example = None,
    expect: Expected = None,
    svg: Svg = None,
    png: Png = None,
    as_json: AsJson = False,
) -> None:
    """Measure where a recurrent layer masks; with --example, every recurrent layer of a model.

    It prints for each site whether there is a mask, its rate and how long it lasts."""
    expected = None if expect is None else find_policy(expect)
    with_rates = expect is not None and is_file(expect)
    model = build_model(target, args, kwargs, features)
    given = find_example(example)
    with _progress_bar() as progress:
        found = measure(model, given, progress=progress)
    parts = found.parts if isinstance(found, ModelAudit) else {"": found}
    if isinstance(found, Audit):
        _save(found.diagram(expected, rates=with_rates), svg, png)
    elif svg or png:
        raise PolicyError(
            "Each layer of a model has a diagram of its own, so --svg and --png do not go with "
            "--example. Name one layer instead: audit torch.nn:LSTM --svg audit.svg"
        )
    if as_json:
        _print_json(found.to_dict())
    else:
        head, *rest = str(found).splitlines()
        console.print(head, style="bold", markup=False)
        for line in rest:
            masked = ": drop " in line or ": zoneout " in line
            console.print(line, style="yellow" if masked else "", markup=False)
    if expected is None:
        return
    against = {name: part.against(expected, rates=with_rates) for name, part in parts.items()}
    unlike = {name: differences for name, differences in against.items() if differences}
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
    target: Target,
    args: Args = "[]",
    kwargs: Kwargs = "{}",
    features: Features = 16,
    example: Example = None,
    svg: Svg = None,
) -> None:
    """Show how a model's recurrent layers are connected, and the dropout between them.

    Without --example, this reads the model's structure; with it, the model runs once."""
    model = build_model(target, args, kwargs, features)
    seen = see_wiring(model, find_example(example))
    _save(seen, svg)
    print(seen)


@app.command()
def apply(
    target: Target,
    policy: PolicyOption = "zaremba",
    rate: RateText = None,
    args: Args = "[]",
    kwargs: Kwargs = "{}",
    features: Features = 16,
    example: Example = None,
    only: Only = None,
    skip: Skip = None,
    existing: Existing = "take over",
    stacks: Stacks = None,
    dry_run: DryRun = False,
) -> None:
    """Try a policy on a model: create it, put the policy on, and print the report of dp.apply.

    If it is unclear how the layers are connected, it exits with 2: add --example or --stacks."""
    if not dry_run:
        raise PolicyError(
            "The command cannot keep the model that it changes. Write --dry-run to see the report, "
            "and put dp.apply(model, ...) into your program."
        )
    chosen, by_name = find_policy(policy, rate), policy in names()
    model = build_model(target, args, kwargs, features)
    print(
        apply_policy(
            model,
            policy if by_name else chosen,
            parse_rate(rate) if by_name and rate is not None else None,
            only=only or None,
            skip=skip or None,
            example=find_example(example),
            existing=existing,  # type: ignore[arg-type]
            stacks=None if stacks is None else parse_json("--stacks", stacks, list),
        )
    )


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
        message = describe_error(error)
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
