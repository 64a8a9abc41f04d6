"""The page about the command line: what it shows is what the command prints."""

import re
import shlex
import sys

import pytest
import typer

from dropout_policies import cli
from tests.support import documents

PAGE = documents.ROOT / "docs" / "command-line.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(cli.app).commands
OPTIONS = {
    option
    for command in COMMANDS.values()
    for parameter in command.params
    for option in parameter.opts
    if option.startswith("--")
}
SHOWN = [
    found
    for block in documents.blocks(PAGE)
    if block.language == "console"
    for found in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE)
]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command line where `my_project.py` is, and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    model = next(b.text for b in documents.blocks(PAGE) if "class Tagger" in b.text)
    (tmp_path / "my_project.py").write_text(model, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_project", raising=False)

    def command(line):
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit):
            cli.main()
        out, error = capsys.readouterr()
        return "\n".join(each.rstrip() for each in (out + error).splitlines())

    return command


@pytest.mark.parametrize(("line", "printed"), SHOWN, ids=[line[:60] for line, _ in SHOWN])
def test_a_command_prints_what_the_page_shows(line, printed, run):
    assert run(line) == printed.strip()


def test_the_page_shows_commands():
    assert len(SHOWN) >= 4


@pytest.mark.parametrize(
    "line", re.findall(r"^\| `(dropout-policies (?!info|audit).*?)` \|", TEXT, re.MULTILINE)
)
def test_every_command_of_the_table_can_be_run(line, run):
    assert not run(line).startswith("error")


def test_the_table_has_every_command():
    assert set(re.findall(r"^\| `dropout-policies (\w+)", TEXT, re.MULTILINE)) == set(COMMANDS)


def test_every_option_of_a_command_is_on_the_page_and_there_is_no_other():
    named = set(re.findall(r"(?<![-\w])--[a-z][-a-z]*", TEXT))
    of_all = {"--help", "--version", "--install-completion", "--show-completion"}
    assert named - of_all == OPTIONS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_explains_every_argument_and_option(name):
    assert COMMANDS[name].help
    for parameter in COMMANDS[name].params:
        explained = getattr(parameter, "help", None)
        assert explained, f"{name} {parameter.name}"
        assert len(explained) > len(parameter.name)
