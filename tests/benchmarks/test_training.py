"""The training loop: what it learns, and that an interrupted run is the same run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import checkpoint, files
from benchmarks.checkpoint import CheckpointError
from benchmarks.ptb.engine import initial_weights
from benchmarks.ptb.presets import PRESETS
from benchmarks.recipe import learning_rate, over
from benchmarks.torch_training import Trainer, linear_weights
from tests.support.tiny_run import WORDS, config, hooks, run_in

pytestmark = pytest.mark.usefixtures("tiny")
FIGURES = ("learning_rate", "train_perplexity", "valid_perplexity")


def figures(run):
    result = run.result()
    epochs = [[epoch[key] for key in FIGURES] for epoch in result["epochs"]]
    return epochs, result["test_perplexity"], result["first_losses"]


def test_a_run_learns_and_leaves_its_results(tmp_path):
    run = run_in(tmp_path, config(policy="none", epochs=12))
    assert run.train(hooks(), 1e9)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["finished"]
    assert len(result["epochs"]) == 12
    assert result["epochs"][-1]["valid_perplexity"] < WORDS / 2
    assert result["epochs"][-1]["valid_perplexity"] < result["epochs"][0]["valid_perplexity"]
    assert result["config"] == config(policy="none", epochs=12).to_dict()
    assert {"python", "numpy", "torch", "dropout-policies"} <= set(result["versions"])
    assert {"cpu", "cores"} <= set(result["machine"])
    assert result["wall_seconds"] >= sum(e["seconds"] for e in result["epochs"])


@pytest.mark.parametrize("stop_after", [1, 34, 40, 80])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, stop_after):
    """Bit for bit: 34 windows an epoch, so in the first, at its end, and in later epochs."""
    whole = run_in(tmp_path / "whole", config())
    assert whole.task.steps == 34
    assert whole.train(hooks(), 1e9)
    first = run_in(tmp_path / "parts", config())
    assert not first.train(hooks(stop_after), 1e9)
    second = run_in(tmp_path / "parts", config())
    second.resume()
    assert second.train(hooks(), 1e9)
    assert figures(second) == figures(whole)
    for name, array in whole.task.engine.weights().items():
        np.testing.assert_array_equal(second.task.engine.weights()[name], array)


def test_a_finished_run_can_be_trained_for_longer(tmp_path):
    whole = run_in(tmp_path / "whole", config(epochs=3))
    whole.train(hooks(), 1e9)
    run_in(tmp_path / "parts", config(epochs=2)).train(hooks(), 1e9)
    longer = run_in(tmp_path / "parts", config(epochs=3))
    longer.resume()
    longer.train(hooks(), 1e9)
    assert figures(longer) == figures(whole)


def test_checkpoints_are_written_as_often_as_asked(tmp_path, monkeypatch):
    saved = []
    run = run_in(tmp_path, config(epochs=1))
    monkeypatch.setattr(run, "save", lambda: saved.append(run.progress.batch))
    run.train(hooks(), 0.0)
    assert saved == [*range(1, 35), 0]


def test_another_runs_checkpoint_is_refused(tmp_path):
    run_in(tmp_path, config(epochs=1)).train(hooks(), 1e9)
    for other in (config(seed=2), config(policy="naive")):
        with pytest.raises(CheckpointError, match=r"belongs to another run \((seed|policy): "):
            run_in(tmp_path, other).resume()


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign", "pickle"])
def test_a_checkpoint_that_cannot_be_read_is_refused(tmp_path, damage):
    run = run_in(tmp_path, config(epochs=1))
    path = run.checkpoint
    run.train(hooks(), 1e9)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(3)}, path, {"format": "pt"})
    else:
        import pickle

        content = {"empty": b"", "cut": whole[: len(whole) // 2], "pickle": pickle.dumps({"x": 1})}
        path.write_bytes(content[damage])
    with pytest.raises(CheckpointError, match=str(path.name)):
        run_in(tmp_path, config(epochs=1)).resume()


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"x": np.ones(2)}, {"n": 1})
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"x": np.zeros(2)}, {"n": 2})
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    arrays, record = checkpoint.load(path)
    assert record == {"n": 1}
    np.testing.assert_array_equal(arrays["x"], np.ones(2))


def test_a_loss_that_is_no_number_ends_the_run_with_its_name(tmp_path, monkeypatch):
    run = run_in(tmp_path, config())
    monkeypatch.setattr(run.task.engine, "train_window", lambda *_: float("nan"))
    with pytest.raises(ArithmeticError, match=r"tiny-zaremba.*epoch 1, batch 1"):
        run.train(hooks(), 1e9)


@pytest.mark.parametrize("learning_rate", [0.1, 50.0])
def test_a_step_in_tensors_alone_is_the_step(learning_rate):
    """What is captured on a GPU; with the gradients clipped and whole."""
    trained = []
    for captured in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 4)
        named = dict(linear_weights("linear", model))
        for clip in (1e-3, 1e3):
            trainer = Trainer(model, named, clip)

            def losses(x, model=model):
                costs = model(x).square().sum()
                return costs / len(x), costs

            x = torch.randn(5, 3)
            if captured:
                figure = trainer._whole(losses, [x, torch.tensor(learning_rate)])
            else:
                loss, figure = losses(x)
                trainer.step(loss, learning_rate)
        trained.append([figure.detach(), *trainer.weights().values()])
    for ours, expected in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_learning_rate_falls_as_the_paper_says():
    small = [learning_rate(PRESETS["small"], [{}] * done) for done in range(6)]
    assert small == [1.0, 1.0, 1.0, 1.0, 0.5, 0.25]
    medium = PRESETS["medium"]
    assert learning_rate(medium, [{}] * 5) == 1.0
    assert learning_rate(medium, [{}] * 38) == pytest.approx(1.2**-33)


def test_the_learning_rate_falls_when_validation_gets_no_better():
    recipe = replace(PRESETS["small"], full_epochs=None)
    done = [{"valid_perplexity": value} for value in (9.0, 7.0, 7.0, 6.0, 5.0)]
    rates = [learning_rate(recipe, done[:count]) for count in range(6)]
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("perplexities", "is_over"),
    [
        ((9.0, 8.0, 7.0), False),
        ((9.0, 7.0, 8.0), False),
        ((9.0, 7.0, 8.0, 6.0, 6.5), False),
        ((9.0, 7.0, 8.0, 7.0), True),
        ((7.0, 9.0, 8.0), True),
        ((7.0, 7.0), False),
        ((7.0,), False),
        ((), False),
        ((9.0, 8.0, 7.0, 6.0, 5.0, 4.0), True),
    ],
)
def test_a_run_is_over_when_its_patience_is(perplexities, is_over):
    recipe = replace(PRESETS["small"], patience=2)
    done = [{"valid_perplexity": value} for value in perplexities]
    assert over(recipe, 6, done) == is_over
    assert over(replace(recipe, patience=None), 6, done) == (len(done) == 6)


def test_a_run_that_gets_no_better_ends_early(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], patience=1, learning_rate=1e-9))
    run = run_in(tmp_path, config(epochs=9, policy="none"))
    steady = {"train_perplexity": 7.0, "valid_perplexity": 7.0}
    monkeypatch.setattr(run.task, "after_epoch", lambda _: steady)
    assert run.train(hooks(), 1e9)
    result = run.result()
    assert result["finished"]
    assert len(result["epochs"]) == 2
    assert result["test_perplexity"] > 1
    again = run_in(tmp_path, config(epochs=9, policy="none"))
    again.resume()
    assert again.train(hooks(stop_after=1), 1e9)
    assert again.result()["test_perplexity"] == result["test_perplexity"]


def test_a_common_start_is_common_and_others_are_not(tiny):
    weights = [initial_weights(config(b), WORDS)["embedding"] for b in ("torch", "jax")]
    np.testing.assert_array_equal(*weights)
    apart = [
        initial_weights(config(b, same_start=False), WORDS)["embedding"] for b in ("torch", "jax")
    ]
    assert not np.array_equal(*apart)
    assert 0.9 * tiny.init < abs(weights[0]).max() <= tiny.init


def test_the_recipes_are_the_papers():
    def row(name):
        p = PRESETS[name]
        return (
            p.units,
            p.rate,
            p.window,
            p.init,
            p.full_epochs,
            p.decay,
            p.epochs,
            p.clip,
            p.paper,
        )

    assert row("small")[0] == 200
    assert PRESETS["small"].policy == "none"
    assert row("small")[2:] == (20, 0.1, 4, 2.0, 13, 5.0, (120.7, 114.5))
    assert row("medium") == (650, 0.5, 35, 0.05, 6, 1.2, 39, 5.0, (86.2, 82.7))
    assert row("large") == (1500, 0.65, 35, 0.04, 14, 1.15, 55, 10.0, (82.2, 78.4))
    assert all(PRESETS[name].batch == 20 for name in ("small", "medium", "large"))
