"""The command line: what it prints, and what it exits with."""

import builtins
import io
import json
import os
import subprocess
import sys

import pytest

import dropout_policies as dp
from dropout_policies import __main__ as entry
from dropout_policies import cli
from dropout_policies.compilation import cache as compile_cache


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process: the exit code, what is printed, and what is complained."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["dropout-policies", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code, *capsys.readouterr())

    return command


def started(*arguments, **options):
    """The command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dropout_policies", *arguments], stderr=subprocess.PIPE, **options
    )


WIRED = """
import torch


class Pair(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.low, self.high = torch.nn.LSTM(width, 4), torch.nn.LSTM(4, 4)
        self.drop = torch.nn.Dropout(0.2)

    def forward(self, x):
        return self.high(self.drop(self.low(x)[0]))[0]


def batch():
    return torch.zeros(5, 2, 3)


tensor = batch()
"""


@pytest.mark.parametrize("example", ["batch", "tensor", None])
def test_wiring_shows_how_layers_are_connected(example, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wired.py").write_text(WIRED)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "wired", raising=False)
    given = ["--example", f"wired:{example}"] if example else []
    code, text, _ = run("wiring", "wired:Pair", "--args", "[3]", *given, "--svg", "w.svg")
    assert code == 0
    assert (tmp_path / "w.svg").read_text().startswith("<svg")
    if example is None:
        assert "low may feed high: only the code knows" in text
    else:
        assert "  high (torch.nn.LSTM): one call over 5 steps\n    input from low\n" in text
        assert "drop (torch.nn.Dropout, p=0.2): from the output of low to the input of hi" in text


def test_audit_measures_the_parts_of_a_model(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wired.py").write_text(WIRED)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "wired", raising=False)
    given = ["audit", "wired:Pair", "--args", "[3]", "--example", "wired:batch"]
    code, text, _ = run(*given, "--json")
    assert code == 0
    assert list(json.loads(text)["parts"]) == ["low", "high"]
    code, _, error = run(*given, "--expect", "none")
    assert code == 1
    assert "high: not none: input" in error
    assert run(*given, "--svg", "a.svg")[0] == 2


def test_list_names_every_policy(run):
    code, text, _ = run("list")
    assert code == 0
    assert all(name in text for name in dp.names())
    assert [p["name"] for p in json.loads(run("list", "--json")[1])] == list(dp.names())


def test_show_draws_and_counts(run, tmp_path):
    code, text, _ = run("show", "zaremba", "--layers", "3", "--svg", str(tmp_path / "a.svg"))
    assert code == 0
    assert "heavy: from x1 to y4, through 4 masks" in text
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert json.loads(run("show", "naive", "--json")[1])["corruptions"] == 6
    code, _, error = run("show", "zaremba", "--png", str(tmp_path / "a.svg"))
    assert code == 2
    assert "ends with .png" in error


def test_a_policy_is_a_name_or_several_or_a_file(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both = dp.zaremba() | dp.zoneout()
    (tmp_path / "both.json").write_text(both.to_json())
    forms = ["zaremba+zoneout", "zaremba|zoneout", " zaremba + zoneout", "both.json", "./both.json"]
    for form in forms:
        assert json.loads(run("show", form, "--json")[1])["rules"] == both.to_dict()["rules"]
        assert run("compare", form, forms[0])[0] == 0
        assert run("compare", form, "zaremba")[0] == 1


@pytest.mark.parametrize(
    ("policy", "rate", "expected"),
    [
        ("zaremba", "0.3", dp.zaremba(0.3)),
        ("zaremba", ".3", dp.zaremba(0.3)),
        ("zaremba", "0", dp.zaremba(0)),
        ("zaremba", "[0.2, 0.5]", dp.zaremba([0.2, 0.5])),
        ("zaremba", '{"input": 0.4}', dp.zaremba().with_rates({"input": 0.4})),
        (
            "zaremba+zoneout",
            '{"input": 0.4}',
            (dp.zaremba() | dp.zoneout()).with_rates({"input": 0.4}),
        ),
        ("saved.json", "0.3", dp.naive(0.3)),
    ],
)
def test_show_takes_rates(policy, rate, expected, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved.json").write_text(dp.naive(0.7).to_json())
    code, text, _ = run("show", policy, "--rate", rate, "--json")
    assert code == 0
    assert dp.Policy.from_dict(json.loads(text)) == expected


def test_apply_prints_the_report_of_a_dry_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wired.py").write_text(WIRED)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "wired", raising=False)
    model = ["wired:Pair", "--args", "[3]"]
    code, text, error = run("apply", "--dry-run", *model)
    assert (code, text) == (2, "")
    assert "'low' may feed 'high'" in error
    code, text, _ = run("apply", "--dry-run", *model, "--example", "wired:batch", "--rate", "0.25")
    assert code == 0
    assert "low (torch.nn.LSTM): input 0.25 per step\n" in text
    assert "taken over, back on remove(): drop (torch.nn.Dropout, p=0.2)" in text
    given = ["--stacks", '[["low"], ["high"]]', "--policy", "zaremba+zoneout", "--existing", "keep"]
    code, text, _ = run("apply", "--dry-run", *model, *given, "--rate", '{"cell_update": 0.1}')
    assert code == 0
    assert text.count("cell_update 0.1 per step") == 2
    code, text, _ = run("apply", "--dry-run", *model, "--only", "low")
    assert code == 0
    assert "high (torch.nn.LSTM): not among only=" in text


@pytest.mark.parametrize("rate", ["0.5", "0.25"])
def test_the_rates_of_a_file_must_fit_and_those_of_names_need_not(rate, run, tmp_path):
    ours = ["audit", "dropout_policies_torch:LSTM", "--args", "[8, 8]"]
    ours += ["--kwargs", json.dumps({"policy": "zaremba", "rate": float(rate)})]
    saved = tmp_path / "policy.json"
    saved.write_text(dp.zaremba(0.5).to_json())
    assert run(*ours, "--expect", "zaremba")[0] == 0
    assert run(*ours, "--expect", str(saved))[0] == (0 if rate == "0.5" else 1)


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_framework_that_is_not_installed_is_named_with_its_extra(framework, run, monkeypatch):
    monkeypatch.setitem(sys.modules, framework, None)
    code, _, error = run("wiring", f"{framework}:Model")
    assert code == 2
    assert error.endswith(f"Install it: pip install 'dropout-policies[{framework}]'\n")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("show zaremba+zo", {"zaremba+zoneout"}),
        ("show wei", {"weight_drop"}),
        ("compare none rnn", {"rnndrop"}),
        ("apply --policy zone", {"zoneout"}),
        ("aud", {"audit"}),
    ],
)
def test_a_shell_completes_commands_and_policies(line, found):
    words = f"dropout-policies {line}"
    settings = {"_DROPOUT_POLICIES_COMPLETE": "complete_bash", "COMP_WORDS": words}
    settings["COMP_CWORD"] = str(len(words.split()) - 1)
    code = "from dropout_policies.cli import app; app(prog_name='dropout-policies')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **settings}
    )
    assert set(done.stdout.split()) == found


def test_compare_tells_by_its_exit_code(run):
    code, text, _ = run("compare", "zaremba", "variational")
    assert code == 1
    assert "hidden" in text
    assert run("compare", "zaremba", "zaremba")[0] == 0


def test_audit_measures_and_tells_by_its_exit_code(run, tmp_path):
    stock = ["audit", "torch.nn:LSTM", "--args", "[8, 8, 2]", "--kwargs", '{"dropout": 0.5}']
    pictures = ["--svg", str(tmp_path / "a.svg"), "--png", str(tmp_path / "a.png")]
    code, text, _ = run(*stock, *pictures)
    assert code == 0
    assert "✗ input" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "1 of 3 vertical connections masked" in text
    code, _, error = run(*stock, "--expect", "zaremba")
    assert code == 1
    assert "input is whole" in error
    ours = ["audit", "dropout_policies_torch:LSTM", "--args", "[8, 8]"]
    ours += ["--kwargs", '{"policy": "zaremba"}', "--expect", "zaremba", "--json"]
    code, text, _ = run(*ours)
    assert code == 0
    assert json.loads(text)["policy"] == "zaremba"


MODULE = """
import sys

def raises(*_):
    raise LookupError("of the\\nuser's own")

def leaves():
    sys.exit(0)

def is_interrupted():
    raise KeyboardInterrupt

def no_model():
    pass

class Unbuilt:
    built = False
    def build(self, shape):
        raise RuntimeError(f"cannot be built for {shape}")
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "zarembo"], "Did you mean 'zaremba'"),
        (["compare", "zaremba", "zarembo"], "Did you mean 'zaremba'"),
        (["show"], "Missing argument"),
        (["show", "zaremba", "--layers", "0"], "--layers"),
        (["show", "zaremba", "--layers", "-1"], "--layers"),
        (["show", "zaremba", "--layers", "two"], "--layers"),
        (["show", "zaremba", "--steps", "0"], "--steps"),
        (["show", "zaremba", "--steps", "1000"], "Received: steps=1000"),
        (["show", "zaremba", "--svg", "/nowhere/a.svg"], "/nowhere/a.svg cannot be written: No su"),
        (["show", "zaremba", "--png", "/nowhere/a.png"], "/nowhere/a.png cannot be written: No su"),
        (
            ["show", "zaremba", "--svg", "folder.svg"],
            "folder.svg cannot be written: Is a",
        ),
        (["show", "zaremba", "--svg", "a.jpg"], "ends with .svg"),
        (["show", "zaremba", "--depth", "3"], "No such option"),
        (["draw", "zaremba"], "No such command"),
        (["audit", "nowhere:LSTM"], "nowhere:LSTM cannot be imported: ModuleNotFoundError"),
        (["audit", "..nowhere:LSTM"], "cannot be imported"),
        (["audit", "torch.nn"], "Write module:name"),
        (["audit", ":LSTM"], "Write module:name"),
        (["audit", "torch.nn:LSTN"], "cannot be imported: AttributeError"),
        (["audit", "torch.nn:LSTM"], "missing 2 required positional arguments"),
        (["audit", "torch.nn:LSTM", "--args", "[3, 0]"], "cannot be"),
        (["audit", "torch.nn:LSTM", "--args", "[3, -3]"], "cannot be"),
        (["audit", "torch.nn:LSTM", "--kwargs", '{"size": 3}'], "cannot be created: TypeError"),
        (["audit", "torch.nn:Linear", "--args", "[3, 3]"], "never affects a later output"),
        (["audit", "torch.nn:LSTM", "--args", "{}"], "JSON list"),
        (["audit", "torch.nn:LSTM", "--kwargs", "[]"], "JSON object"),
        (["audit", "torch.nn:LSTM", "--args", "["], "is not JSON"),
        (["audit", "torch.nn:LSTM", "--args", "[" * 10**5], "is not JSON"),
        (["audit", "torch.nn:LSTM", "--features", "0"], "--features"),
        (["audit", "own_module:raises"], "cannot be created: LookupError: of the user's own."),
        (["audit", "own_module:leaves"], "cannot be created: SystemExit"),
        (["audit", "own_module:Unbuilt"], "RuntimeError: cannot be built for (None, None, 16)"),
        (["audit", "own_module:__name__"], "cannot be created: TypeError"),
        (["audit", "builtins:dict"], "Received: "),
        (["show", "zaremba", "--rate", "50"], "for 50 percent, write: rate=0.5"),
        (["show", "zaremba", "--rate", "half"], "Received: 'half'; write: --rate 0.5"),
        (["show", "zaremba", "--rate", '{"hidden": 0.5}'], "no rule at site 'hidden'"),
        (["show", "zaremba+zoneout", "--rate", "0.5"], "a rate for each site: --rate '{\"input"),
        (["show", "zaremba+zonout"], "Did you mean 'zoneout'"),
        (["compare", "zaremba+locked", "none"], "both set a rule for input"),
        (["show", "nowhere.json"], "nowhere.json cannot be read: No such file"),
        (["show", "folder.svg/a.json"], "cannot be read: "),
        (["show", "broken.json"], "broken.json: This is not JSON"),
        (["show", "other.json"], "other.json: This is not a saved policy"),
        (["audit", "torch.nn:LSTM", "--args", "[3, 3]", "--expect", "zarembo"], "Did you mean"),
        (["apply", "torch.nn:LSTM", "--args", "[3, 3]"], "Write --dry-run to see the report"),
        (["apply", "--dry-run", "torch.nn:Linear", "--args", "[3, 3]"], "no recurrent layer"),
        (["apply", "--dry-run", "torch.nn:LSTM", "--args", "[3, 3]", "--only", "x"], "'x'"),
        (
            ["apply", "--dry-run", "torch.nn:LSTM", "--args", "[3, 3]", "--stacks", "{}"],
            "--stacks takes a JSON list",
        ),
        (
            ["apply", "--dry-run", "torch.nn:LSTM", "--args", "[3, 3]", "--existing", "off"],
            "'take over'",
        ),
        (["apply", "--dry-run", "own_module:no_model"], "Received: model=None"),
        (["wiring", "torch.nn:Linear", "--args", "[3, 3]"], "no recurrent layer"),
        (["wiring", "torch.nn:LSTM", "--args", "[3, 3]", "--example", "nowhere:x"], "imported"),
        (
            ["wiring", "torch.nn:LSTM", "--args", "[3, 3]", "--example", "own_module:__name__"],
            "does not run on the example",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_exits_with_2_and_one_line(
    arguments, words, run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "own_module.py").write_text(MODULE)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    code, text, error = run(*arguments)
    assert code == 2
    assert not text
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_what_nobody_thought_of_is_one_line_too(run, monkeypatch):
    def defect(*_):
        raise ZeroDivisionError("deep\ninside")

    monkeypatch.setattr(cli, "find_policy", defect)
    assert run("show", "zaremba") == (2, "", "error: ZeroDivisionError: deep inside\n")


def test_the_development_mode_shows_where():
    process = started("audit", "torch.nn:Nothing", env={**os.environ, "PYTHONDEVMODE": "1"})
    assert b"Traceback" in process.communicate()[1]


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_it_says_what_it_can_do(arguments, run):
    code, text, error = run(*arguments)
    assert code == (0 if arguments else 2)
    assert not error
    assert all(word in text for word in ("list", "show", "compare", "audit", "info"))


def test_it_tells_its_version(run):
    assert run("--version") == (0, f"dropout-policies {dp.__version__}\n", "")


def test_info_is_what_show_config_prints(run, capsys):
    run("info")  # compiles what was not compiled yet
    code, text, _ = run("info")
    assert code == 0
    dp.show_config()
    assert text == capsys.readouterr().out
    found = json.loads(run("info", "--json")[1])
    assert found == dp.show_config("dicts")
    assert found["versions"]["dropout_policies"] == dp.__version__
    assert set(found["adapters"]) == {"torch", "keras"}
    for section, lines in found.items():
        assert f"{section}:" in text
        for name, value in lines.items():
            assert name in text
            assert str(value) in text


@pytest.mark.parametrize(
    ("name", "value", "line", "words"),
    [
        ("CC", "no-such-compiler", "compiler", "there is no C compiler"),
        ("CC", "false", "compiler", "does not print its version"),
        ("CC", "'", "compiler", "CC is not a command"),
        ("DROPOUT_POLICIES_COMPILE", "0", "allowed", "no, by DROPOUT_POLICIES_COMPILE=0"),
        (compile_cache.SETTING, "", "cache", "not used, by DROPOUT_POLICIES_CACHE="),
        (compile_cache.SETTING, "/proc/none", "cache", "not used: there is no cache folder"),
    ],
)
def test_info_says_what_is_wrong(name, value, line, words, monkeypatch):
    monkeypatch.setenv(name, value)
    assert words in dp.show_config("dicts")["compiled functions"][line]


def test_info_warns_of_nothing_that_it_prints():
    process = started("info", stdout=subprocess.PIPE, env={**os.environ, "CC": "no-such-compiler"})
    text, error = process.communicate()
    assert (process.returncode, error) == (0, b"")
    assert text.decode().count("there is no C compiler 'no-such-compiler'") == 2


def test_no_framework_is_imported_to_print_its_version():
    code = "import sys, dropout_policies as dp; found = dp.show_config('dicts'); "
    code += "print(found['versions']['torch'], 'torch' in sys.modules, 'torch' in found)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, imported, described = done.stdout.split()
    assert (version[0].isdigit(), imported, described) == (True, "False", "False")


def test_a_mode_that_is_none_is_an_error():
    with pytest.raises(
        dp.PolicyError, match=r"mode must be 'stdout' or 'dicts'\. Received: mode='json'"
    ):
        dp.show_config("json")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "koi8-r", "utf-8"])
@pytest.mark.parametrize("command", [["list"], ["show", "semeniuta"], ["show", "zarem✗\udcff"]])
def test_every_encoding_can_be_printed(encoding, command, monkeypatch):
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    monkeypatch.setattr(sys, "argv", ["dropout-policies", *command])
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error.flush()
    text, complaint = (each.buffer.getvalue().decode(encoding) for each in (out, error))
    if command[-1].startswith("zarem"):
        assert ended.value.code == 2
        assert complaint.startswith("error: There is no policy 'zarem")
    else:
        assert (ended.value.code, complaint) == (0, "")
        assert "semeniuta" in text
        assert "?" not in text


def test_a_diagram_in_ascii_has_a_mark_for_every_mark(monkeypatch, run):
    drawn = run("show", "semeniuta", "--layers", "3")[1]
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        cli.main()
    assert out.buffer.getvalue().decode() == drawn.translate(str.maketrans(cli.ASCII))
    assert len({cli.ASCII[mark] for mark in "│┊┃┇"}) == 4
    assert len({cli.ASCII[mark] for mark in "─╌━┅"}) == 4


@pytest.mark.parametrize("arguments", [["list"], ["show", "zaremba"], ["info"], ["--help"]])
def test_a_reader_that_has_left_is_no_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    process = started(*arguments, stdout=writing)
    os.close(writing)
    assert process.communicate()[1] == b""


@pytest.mark.parametrize("arguments", [["list"], ["show", "zaremba", "--json"]])
def test_a_full_disk_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        process = started(*arguments, stdout=full)
        error = process.communicate()[1].decode()
    assert process.returncode == 2
    assert error == "error: OSError: [Errno 28] No space left on device\n"


def test_an_interrupt_is_silent(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    (tmp_path / "own_module.py").write_text(MODULE)
    assert run("audit", "own_module:is_interrupted") == (130, "", "")


def test_without_typer_it_says_what_to_install(monkeypatch, capsys):
    def without(name, *rest):
        if name == "typer":
            raise ModuleNotFoundError("No module named 'typer'", name="typer")
        return importing(name, *rest)

    importing = builtins.__import__
    monkeypatch.delitem(sys.modules, "dropout_policies.cli")
    monkeypatch.delattr(dp, "cli")
    monkeypatch.setattr(builtins, "__import__", without)
    assert entry.main() == 2
    assert "pip install 'dropout-policies[cli]'" in capsys.readouterr().err
