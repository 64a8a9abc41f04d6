"""`python -m benchmarks.ptb` as a person runs it: in a shell, offline, on the language made up."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import command as command_module
from benchmarks import starts
from benchmarks.checkpoint import load
from benchmarks.ptb.__main__ import app

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


def environment(tmp_path, **more):
    """No corpus, and no way to one: the proxy does not answer."""
    offline = {"https_proxy": "http://127.0.0.1:9", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    known = {k: v for k, v in os.environ.items() if k not in ("PTB_DIR", "KERAS_BACKEND")}
    return known | offline | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"} | more


def command(*arguments):
    return [sys.executable, "-m", "benchmarks.ptb", *map(str, arguments)]


def ptb(tmp_path, *arguments, code=0, **more):
    """What the command prints, its run of white space folded."""
    done = subprocess.run(
        command("--out", tmp_path / "out", *arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path, **more),
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def two_backends(tmp_path_factory):
    """One epoch of the demo from a common start in PyTorch and Keras on JAX."""
    tmp_path = tmp_path_factory.mktemp("two")
    printed = ptb(tmp_path, "--same-start", "--epochs", 1, "--backend", "torch", "--backend", "jax")
    return printed, tmp_path / "out"


def test_the_table_and_the_files_are_there(two_backends):
    printed, out = two_backends
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [r["config"]["backend"] for r in results] == ["torch", "jax"]
    assert (out / "curves.png").read_bytes().startswith(PNG)
    assert "could not be downloaded" in printed
    assert "the floor" in printed
    assert str(out / "curves.png") in printed
    for result in results:
        figures = [result["test_perplexity"], result["epochs"][0]["valid_perplexity"]]
        assert all(f"{figure:.1f}" in printed for figure in figures)
        assert result["corpus"]["floor"] < result["test_perplexity"] < 200
    assert max(len(line) for line in printed.splitlines() if not line.startswith("data: ")) <= 120


def test_losses_agree_from_a_common_start(two_backends):
    """The comparison that the command prints, here over an epoch's 99 steps."""
    printed, out = two_backends
    assert re.search(r"zaremba +torch and jax +99 +\S+ +\d+ +yes", printed)
    a, b = (json.loads(line) for line in (out / "results.jsonl").read_text().splitlines())
    steps, difference, _ = starts.start_difference(a["first_losses"], b["first_losses"])
    assert steps == 99
    assert difference < starts.TOLERANCE


def test_a_start_that_differs_is_said_to(two_backends):
    _, out = two_backends
    a, b = (json.loads(line) for line in (out / "results.jsonl").read_text().splitlines())
    b["first_losses"][40] *= 1.002
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(starts.compare_starts([a, b]))
    assert re.search(r"2\.0\de-03 +41 +no", console.export_text())


def models(tmp_path, *arguments, code=0):
    """What `ensemble` or `sample` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ptb", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_trained_models_are_averaged_whatever_they_were_trained_in(two_backends, tmp_path):
    _, out = two_backends
    runs = [out / f"demo-zaremba-0.5-{backend}-s1-same" for backend in ("torch", "jax")]
    printed = models(tmp_path, "ensemble", *runs, "--out", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())
    assert [member["backend"] for member in found["members"]] == ["torch", "jax"]
    single, both = (row["test_perplexity"] for row in found["averages"])
    trained = json.loads((runs[0] / "result.json").read_text())["test_perplexity"]
    assert single == pytest.approx(trained, rel=1e-5)
    assert both == pytest.approx(trained, rel=0.01)  # from one start they are nearly one model
    assert f"{both:.1f}" in printed
    assert "not a run's folder" in models(tmp_path, "ensemble", tmp_path, code=1)


def test_a_trained_model_writes(two_backends, tmp_path):
    _, out = two_backends
    run = out / "demo-zaremba-0.5-jax-s1-same"
    printed = models(tmp_path, "sample", run, "the", "--words", 12)
    assert printed.startswith("the ")
    assert len(printed.split()) == 13


def test_a_policy_has_its_own_rates_and_several_are_joined(tmp_path):
    """zaremba takes the preset's rate, zoneout the catalogue's."""
    arguments = ("--policy", "zaremba+zoneout", "--policy", "locked", "--epochs", 1)
    ptb(tmp_path, *arguments)
    runs = sorted(folder.name for folder in (tmp_path / "out").iterdir() if folder.is_dir())
    assert runs == ["demo-locked-torch-s1", "demo-zaremba+zoneout-0.5-torch-s1"]
    assert "both set a rule for input" in ptb(tmp_path, "--policy", "zaremba+locked", code=1)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, processes):
    """Ctrl-C, as a terminal sends it: to the whole group of processes."""
    arguments = ("--policy", "zaremba", "--epochs", 2, "--processes", processes)
    process = subprocess.Popen(
        command("--out", tmp_path / "out", *arguments, "--checkpoint-minutes", 0),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path),
        start_new_session=True,
    )
    folder = tmp_path / "out" / "demo-zaremba-0.5-torch-s1"
    while not (folder / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"stopped in epoch [12], batch \d+\. To continue, .* --resume", printed)
    _, record = load(folder / "checkpoint.safetensors")
    assert 0 < record["progress"]["epoch"] * 99 + record["progress"]["batch"] < 198

    ptb(tmp_path, *arguments, "--resume")
    resumed = json.loads((folder / "result.json").read_text())
    ptb(tmp_path / "whole", *arguments)
    whole = json.loads((tmp_path / "whole" / "out" / folder.name / "result.json").read_text())
    assert resumed["first_losses"] == whole["first_losses"]
    assert resumed["test_perplexity"] == whole["test_perplexity"]


def test_a_run_stops_at_a_checkpoint_when_its_minutes_are_over(tmp_path):
    arguments = ("--epochs", 200, "--minutes", 0.15)
    printed = ptb(tmp_path, *arguments, code=130)
    assert re.search(r"stopped in epoch \d+, batch \d+\. To continue, .* --resume", printed)
    folder = tmp_path / "out" / "demo-zaremba-0.5-torch-s1"
    assert (folder / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "zarema"), "Did you mean 'zaremba'"),
        (("--rate", "1.5"), r"\[0, 1\)"),
        (("--data", "/nowhere/at/all"), "There is no folder /nowhere/at/all"),
        (("--processes", "3"), "Write one of 1, 2, 4, 5, 10, 20"),
    ],
)
def test_bad_arguments_end_with_one_clear_line(tmp_path, arguments, message):
    printed = ptb(tmp_path, *arguments, code=1)
    assert re.search("error: .*" + message, printed)
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def invoked(*arguments):
    """The command in this process; only where it ends before it trains."""
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def single_error(done):
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.output.splitlines() if not line.startswith("data: ")]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    "name",
    ["[/red]", "[red]x[/red]", "a\nb", "\udcff", "é", "~nobody-of-this-name", "x" * 300, "["],
)
def test_any_path_that_is_not_there_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    printed = single_error(invoked("--data", name, "--out", tmp_path / "out"))
    assert " ".join(name.split()).replace("\udcff", "\\udcff") in printed
    assert not (tmp_path / "out").exists()


@pytest.fixture
def texts(tmp_path):
    """A text that is long enough for the demo."""
    folder = tmp_path / "[bold]texts"
    folder.mkdir()
    for part in ("train", "valid", "test"):
        (folder / f"{part}.txt").write_text("a b c d e f\n" * 100)
    return folder


@pytest.mark.parametrize("out", ["file", "file/below", "x" * 300, "loop/x", "/proc/none/x"])
def test_an_out_that_cannot_be_written_is_one_line(tmp_path, texts, out):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = invoked("--data", texts, "--out", tmp_path / out)
    printed = single_error(done)
    assert str(tmp_path / out) in printed
    assert "cannot be written to" in printed or "is not a path" in printed
    assert f"data: own text in {texts}: 700 / 700 / 700 tokens, 7 words; 0 tok" in done.output


def test_a_result_that_is_damaged_is_one_line(tmp_path, texts, monkeypatch):
    monkeypatch.setattr(command_module, "launcher", lambda *_: lambda *_: 0)
    folder = tmp_path / "out" / "demo-none-torch-s1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    arguments = ("--policy", "none", "--data", texts, "--out", tmp_path / "out")
    assert "result.json cannot be read as JSON" in single_error(invoked(*arguments))


@pytest.mark.parametrize("option", ["--minutes", "--checkpoint-minutes", "--gpus"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_are_none_are_refused(tmp_path, option, value):
    done = invoked(option, value, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert option in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("ensemble", "{}"), ("sample", "{}")])
@pytest.mark.parametrize("name", ["none", "[/x]", "x" * 300, "file", "job"])
def test_a_folder_that_is_no_run_is_one_line(tmp_path, arguments, name):
    (tmp_path / "file").touch()
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.json").write_text("[" * 100_000)
    given = [argument.format(tmp_path / name) for argument in arguments]
    assert str(tmp_path / name) in single_error(invoked(*given))


def test_an_own_text_is_trained_on_and_named_in_its_results(tmp_path, texts):
    """In a terminal that has ASCII alone."""
    (texts / "test.txt").write_text("a b new\n" * 100)
    printed = ptb(tmp_path, "--data", texts, "--epochs", 1, "--rate", 0, PYTHONIOENCODING="ascii")
    assert "100 of the test are not in the training part and count as <unk>" in printed
    assert "demo on own text" in printed
    corpus = json.loads((tmp_path / "out" / "results.jsonl").read_text())["corpus"]
    assert corpus["name"] == "own text"
    assert corpus["tokens"] == [700, 700, 400]
    assert corpus["unknown"] == [0, 0, 100]
    for part, sha256 in corpus["sha256"].items():
        assert sha256 == hashlib.sha256((texts / f"{part}.txt").read_bytes()).hexdigest()
    (texts / "valid.txt").write_text("a b\n" * 100)
    refused = ptb(tmp_path, "--data", texts, "--epochs", 2, "--rate", 0, "--resume", code=1)
    assert "belongs to another run (corpus: " in refused


def test_a_common_start_of_one_backend_is_refused(tmp_path):
    done = subprocess.run(
        command("--out", tmp_path / "out", "--same-start"),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == 2
    assert "it compares backends, and only one is given" in done.stderr


def test_an_unreadable_checkpoint_ends_with_one_clear_line(tmp_path):
    folder = tmp_path / "out" / "demo-none-torch-s1"
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    printed = ptb(tmp_path, "--policy", "none", "--resume", code=1)
    assert re.search(r"error: .*checkpoint.safetensors cannot be read", printed)
    assert (folder / "checkpoint.safetensors").read_bytes() == b"not a checkpoint"


def test_the_help_tells_every_option():
    done = subprocess.run(
        command("--help"),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    for option in ("backend", "preset", "policy", "rate", "seed", "epochs", "data", "out"):
        assert f"--{option}" in done.stdout
    assert "--same-start" in done.stdout
    assert "--resume" in done.stdout
