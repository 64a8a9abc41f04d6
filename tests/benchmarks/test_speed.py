"""The speed benchmark: turns, ratios, aims, and a command that runs to its end. No times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.locks import LAUNCHER, locked
from benchmarks.processes import INTERRUPTED
from benchmarks.speed import __main__ as command
from benchmarks.speed import aims, jobs, page, timing, torch_times, worker
from benchmarks.stopping import UNTIL_INPUT_ENDS

ROOT = Path(__file__).parents[2]


def test_contestants_take_turns_and_each_has_as_many():
    calls = []
    contestants = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    found = timing.interleaved(contestants, seconds=0.0)
    assert {len(times) for times in found.values()} == {timing.ROUNDS[0]}
    assert all(time > 0 for times in found.values() for time in times)
    measured = "".join(dict.fromkeys(calls))
    assert set(measured) == set("abc")
    # In blocks of repeats: in each round every name once.
    blocks = [calls[0]]
    for name in calls:
        if name != blocks[-1]:
            blocks.append(name)
    assert min(blocks.count(name) for name in "abc") >= timing.ROUNDS[0] // 2


def test_a_ratio_is_the_median_pair_by_pair():
    """One slow round does not count, and one in which the whole machine was slow even less."""
    a, b = [2.0, 2.0, 2.0, 20.0, 30.0], [1.0, 1.0, 1.0, 10.0, 1.0]
    middle, low, high = timing.ratio(a, b)
    assert (middle, low) == (2.0, 2.0)
    assert high == 2.0


@pytest.mark.parametrize("list_of", [jobs.every, jobs.quick])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_jobs_have_names_of_their_own_and_come_back_from_json(list_of, device):
    made = list(list_of(device))
    assert len({job.name for job in made}) == len(made)
    assert [jobs.Job.from_dict(json.loads(json.dumps(job.to_dict()))) for job in made] == made
    sections = {job.section for job in made}
    assert sections == set(jobs.SECTIONS) - (
        {"gpu"}
        if device == "cpu"
        else {"keras", "keras-memory", "torch", "layers", "small", "evaluation", "busy"}
    )


def result(section, found, policies=("zaremba",), **others):
    job = jobs.Job(section, "LSTM", jobs.SMALL, policies, **others)
    return {
        "job": job.to_dict(),
        "found": found,
        "versions": {"torch": "1"},
        "machine": {"cpu": "one", "cores": 2},
    }


def test_an_aim_is_about_the_worst():
    fast, slow = ([1.0] * 3, [1.5] * 3)
    results = [
        result("torch", {"stock": fast, "zaremba": fast, "stock with dropout": fast}),
        result("torch", {"stock": fast, "awd": slow, "stock with dropout": fast}, ("awd",)),
    ]
    (aim,) = aims.aims(results)
    assert aim.worst == ("LSTM awd, B20 T20 H200 L2", 1.5)
    assert not aim.met
    (aim,) = aims.aims(results[:1])
    assert aim.met
    assert "| zaremba | 1e+03 | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) |  |" in page.page(results)


def at(shape, found, policy, cell="LSTM"):
    """A result of the section "torch" at some shape."""
    made = result("torch", {name: [each] * 3 for name, each in found.items()}, (policy,))
    made["job"] |= {"shape": vars(shape), "cell": cell}
    return made


def test_a_mean_is_over_all_sizes_and_geometric():
    made = [
        at(jobs.SMALL, {"stock": 9.0, "zaremba": 1.0, "stock with dropout": 2.0}, "zaremba"),
        at(jobs.MEDIUM, {"stock": 9.0, "zaremba": 4.0, "stock with dropout": 2.0}, "zaremba"),
        at(jobs.MEDIUM, {"stock": 9.0, "awd": 1.0, "stock with dropout": 2.0}, "awd"),
    ]
    found = dict(aims.means(made, "LSTM", jobs.VERTICAL, jobs.DROPPED))
    assert found == {"LSTM zaremba, 2 sizes": pytest.approx(1.0)}
    assert not dict(aims.means(made, "GRU", jobs.VERTICAL, jobs.DROPPED))
    assert not dict(aims.means(made[:1], "LSTM", jobs.VERTICAL, jobs.DROPPED))


def test_the_page_begins_with_what_all_sizes_come_to():
    made = []
    for cell, factor in (("LSTM", 1.0), ("GRU", 0.5)):
        for shape in (jobs.SMALL, jobs.MEDIUM):
            times = {"stock": 2.0, "zaremba": factor, "stock with dropout": 2.0, "products": 0.25}
            made.append(at(shape, times, "zaremba", cell))
            times = {"stock": 2.0, "variational": 1.5 * factor, "cell loop": 6.0}
            made.append(at(shape, times, "variational", cell))
    first = page.page(made).partition("## How")[0]
    assert "takes 0.50 of the time of PyTorch's own layer" in first
    assert "For a GRU it is 0.25." in first
    assert "takes\n  0.38 to 0.75 of the time of PyTorch's layer without dropout" in first
    assert "0.12 to 0.25 of the time of a loop" in first
    assert "| GRU | vertical and weight policies | 0.25 |" in first
    assert "all of these sizes are `zaremba` and `variational`." in first
    assert "| zaremba | 1e+03 | 0.50 (0.50–0.50) | 0.50 (0.50–0.50) | 25% |" in page.page(made)


def test_a_small_layer_has_its_worst_size():
    sizes = {
        "B1 T1 H16 D16": {"stock": [1.0] * 3, "zaremba": [2.0] * 3},
        "B8 T35 H16 D512": {"stock": [4.0] * 3, "zaremba": [2.0] * 3},
    }
    made = [result("small", sizes)]
    (aim,) = aims.aims(made)
    assert aim.worst == ("LSTM zaremba, B1 T1 H16 D16", 2.0)
    row = "| LSTM zaremba | B1 T1 H16 D16 | B8 T35 H16 D512 | 1.00 | 0.50 | 2.00 | 1e+03 | 2e+03 |"
    text = page.page(made)
    assert row in text
    assert "2 small sizes, with B = 1, 8; T = 1, 35; H = 16; and" in text


def test_evaluation_and_a_busy_machine_have_their_aims():
    made = [
        result("evaluation", {"stock": [2.0] * 3, "zoneout": [3.0] * 3}, ("zoneout",)),
        result("busy", {"zaremba": {
            "stock": [2.0] * 3, "policy": [1.0] * 3,
            "stock, busy": [20.0] * 3, "policy, busy": [4.0] * 3,
        }}),
    ]  # fmt: skip
    where = {aim.text: (*aim.worst, aim.met) for aim in aims.aims(made)}
    assert where == {
        "evaluation, for policies with their own rule ÷ stock layer": (
            *("LSTM zoneout, B20 T20 H200 L2", 1.5),
            False,
        ),
        "on a busy machine, policies ÷ stock layer (for zaremba, with the same dropout)": (
            *("LSTM zaremba, B20 T20 H200 L2", 0.2),
            True,
        ),
    }
    text = page.page(made)
    assert "| LSTM zoneout | B20 T20 H200 L2 | 2e+03 | 3e+03 | 1.50 (1.50–1.50) |" in text
    assert "| LSTM zaremba | B20 T20 H200 L2 | 10.0 | 4.0 | 0.20 (0.20–0.20) |" in text


def test_a_machine_is_named_once_with_what_it_measured():
    slow, fast = [1.2] * 3, [0.5] * 3
    made = [
        result("layers", {"untied": {"stock": slow, "variational": fast}}, ("variational",)),
        result("peers", {"fastai AWD_LSTM": {"missing": "no module"}}),
    ]
    text = page.page(made)
    assert text.count("one, 2 cores") == 1
    assert "- one, 2 cores; PyTorch 1: layers, peers." in text


def test_what_other_libraries_kernels_decide_is_marked():
    slow = {
        name: [1.2] * 3 for name in ("zaremba", "zaremba, captured", "stock", "stock, captured")
    }
    slow |= {f"{jobs.same_dropout_of('zaremba')}{how}": [1.0] * 3 for how in ("", ", captured")}
    text = page.page([result("gpu", slow, device="cuda")])
    assert "with the same dropout (cuDNN's kernels) |" in text


def test_small_layers_evaluation_and_a_busy_machine_are_measured(monkeypatch):
    monkeypatch.setattr(timing, "LEAST", 0.0)
    monkeypatch.setattr(torch_times, "SMALL_SIZES", {"B": (2,), "T": (3,), "H": (4,)})
    shape = jobs.Shape(2, 3, 4, 2)
    measure = worker.measure
    small = measure(jobs.Job("small", "RNN", shape, ("zaremba",), seconds=0.0))
    assert "B2 T3 H4 D4" in small
    assert "B1 T35 H16 D512" in small
    evaluated = measure(jobs.Job("evaluation", "LSTM", shape, ("zoneout",), seconds=0.0))
    assert evaluated.keys() == {"stock", "zoneout"}
    busy = measure(jobs.Job("busy", "GRU", shape, ("variational",), seconds=0.0))["variational"]
    assert busy.keys() == {"stock", "policy", "stock, busy", "policy, busy"}


def test_each_kind_of_layer_has_its_aim():
    slow, fast = [1.2] * 3, [0.5] * 3
    found = {
        "projection": {"stock": [1.0] * 3, "variational": fast},
        "untied": {"stock": [1.0] * 3, "variational": slow},
    }
    made = [result("layers", found, ("variational",))]
    where = {aim.text: (*aim.worst, aim.met) for aim in aims.aims(made)}
    assert where == {
        "variational on an LSTM with a projection ÷ stock layer": (
            *("LSTM projection, B20 T20 H200 L2", 0.5),
            True,
        ),
        "variational with separate masks for each gate ÷ stock layer": (
            *("LSTM untied, B20 T20 H200 L2", 1.2),
            False,
        ),
    }
    row = "| LSTM, separate masks for each gate | B20 T20 H200 L2 | 1e+03 | 1.2e+03 | 1.20 (1.20–"
    assert row in page.page(made)


def test_memory_in_keras_is_held_against_as_many_dropout_layers_or_its_layer():
    def bytes_of(training):
        return {"training": training * 2**20, "evaluation": 2**20}

    names = {"stock": 8, "Dropout layers": 10, "zaremba": 9, "zoneout": 12}
    found = {name: bytes_of(peak) for name, peak in names.items()}
    made = [result("keras-memory", found, ("zaremba", "zoneout"), backend="jax")]
    where = {aim.text: (aim.worst, aim.met) for aim in aims.aims(made)}
    assert where == {
        "Keras memory: vertical policies ÷ stock layers and dropout layers at the same places": (
            ("LSTM zaremba, jax", 0.9),
            True,
        ),
        "Keras memory: policies inside the recurrence ÷ stock layer": (
            ("LSTM zoneout, jax", 1.5),
            False,
        ),
        "Keras memory in evaluation ÷ stock layer": (("LSTM zaremba, jax", 1.0), True),
    }
    assert "| LSTM | jax | zoneout | 12.0 | 1.50 | 1.0 | 1.00 |" in page.page(made)


def test_growth_is_by_the_smallest():
    sizes = {"35": 35.0, "70": 70.0, "140": 168.0}
    by_size = {size: {"zaremba": [time], "stock": [1.0]} for size, time in sizes.items()}
    job = jobs.Job("growth", "LSTM", jobs.SMALL, ("zaremba",))
    times = aims.per_token(job, "T", by_size, "zaremba")
    assert times == {35: [1 / 20], 70: [1 / 20], 140: [1.2 / 20]}
    assert aims.by_smallest(times) == {70: 1.0, 140: pytest.approx(1.2)}


def test_a_rise_is_from_any_smaller_size_and_a_fall_is_none():
    times = {1: 4.0, 16: 1.0, 64: 0.8, 256: 1.0}
    rounds = {size: [each, each, each] for size, each in times.items()}
    assert aims.rises(rounds) == {16: 0.25, 64: 0.8, 256: 1.25}
    slower = {1: [1.0, 9.0, 2.0], 2: [1.5, 13.5, 3.0]}  # the machine, in some rounds
    assert aims.rises(slower) == {2: 1.5}
    shape = jobs.Shape(1, 1, 4, 1)
    by_b = {str(size): {"awd": [size * t], "stock": [1.0]} for size, t in times.items()}
    by_t = {size: {"awd": [float(size)], "stock": [1.0]} for size in ("1", "2")}
    made = result("growth", {"T": by_t, "B": by_b}, ("awd",))
    made["job"]["shape"] = vars(shape)
    met = {aim.text: (aim.met, round(aim.worst[1], 2)) for aim in aims.aims([made])}
    assert met == {
        "time per token at a larger T ÷ at a smaller T": (True, 1.0),
        "time per token at a larger B ÷ at a smaller B": (False, 1.25),
    }


def test_an_aim_is_missed_by_the_figure_itself_not_by_its_rounding():
    assert not aims.Aim("", 1.1, [("", 1.1004)]).met
    assert aims.Aim("", 1.1, [("", 1.1)]).met


def test_what_is_not_installed_is_said_to_be():
    text = page.page([result("peers", {"fastai AWD_LSTM": {"missing": "no module"}})])
    assert "| fastai AWD_LSTM | not installed |" in text


@pytest.fixture
def tiny(monkeypatch):
    """A job of every section of PyTorch's, and Keras's memory, on layers of a few units."""
    shape = jobs.Shape(2, 3, 4, 2)

    def few(device):
        for cell, policy in (("LSTM", "zaremba"), ("GRU", "variational")):
            yield jobs.Job("torch", cell, shape, (policy,), device=device, seconds=0.0)
        yield jobs.Job("memory", "LSTM", shape, ("awd",), device=device)
        yield jobs.Job("masks", "LSTM", shape, ("zoneout",), device=device, seconds=0.0)
        yield jobs.Job("keras-memory", "LSTM", shape, ("zaremba", "zoneout"), "jax")

    monkeypatch.setattr(command, "quick", few)


@pytest.mark.slow  # each of its parts is tested above; it starts a process for each job
@pytest.mark.usefixtures("tiny")
def test_the_command_measures_and_goes_on_where_it_was(tmp_path):
    run = CliRunner().invoke
    done = run(command.app, ["--quick", "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    sections = [each["job"]["section"] for each in found]
    assert sections == ["torch", "torch", "memory", "masks", "keras-memory"]
    for peaks in (found[2]["found"]["awd"], *found[4]["found"].values()):
        assert 0 < peaks["evaluation"] < peaks["training"]
    peaks = {name: each["training"] for name, each in found[4]["found"].items()}
    assert peaks["recurrent_dropout"] > peaks["stock"], "it keeps masks"
    assert "[5/5]" in done.output
    again = run(command.app, ["--quick", "--out", str(tmp_path), "--resume"])
    assert again.exit_code == 0
    assert "[" not in again.output.split("ratio")[0].strip()
    assert json.loads((tmp_path / "speed.json").read_text(encoding="utf-8")) == found

    one = tmp_path / "memory-torch-LSTM-B2T3H4L2-awd" / "result.json"
    older = json.loads(one.read_text(encoding="utf-8"))
    older["versions"]["commit"] = "another"
    one.write_text(json.dumps(older), encoding="utf-8")
    third = run(command.app, ["--quick", "--out", str(tmp_path), "--resume"])
    assert third.output.count("/5]") == 1
    assert "[3/5]" in third.output


def test_a_job_that_fails_ends_the_command_and_says_why(tmp_path, monkeypatch):
    broken = jobs.Job("torch", "LSTM", jobs.Shape(2, 3, 4, 2), ("no-such-policy",), seconds=0.0)
    monkeypatch.setattr(command, "quick", lambda _: [broken])
    done = CliRunner().invoke(command.app, ["--quick", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "no-such-policy" in done.output
    assert "PolicyError" in done.output


def test_a_folder_that_another_command_measures_in_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "quick", lambda _: [])
    with locked(tmp_path, LAUNCHER):
        done = CliRunner().invoke(command.app, ["--quick", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.startswith(f"error: {tmp_path} is in use by another run")


def test_a_measurement_ends_with_the_command(tmp_path):
    job = jobs.Job("masks", "LSTM", jobs.Shape(2, 3, 4, 2), ("zoneout",), seconds=10_000.0)
    (tmp_path / "job.json").write_text(json.dumps(job.to_dict()))
    line = [sys.executable, "-m", "benchmarks.speed.worker", str(tmp_path), UNTIL_INPUT_ENDS]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, cwd=ROOT, check=False)
    assert done.returncode == INTERRUPTED
    assert not (tmp_path / "result.json").exists()
