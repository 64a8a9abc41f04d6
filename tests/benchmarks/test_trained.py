"""Trained models: the average of several, and the text that one writes."""

import json

import numpy as np
import pytest

from benchmarks.checkpoint import CheckpointError
from benchmarks.ptb import corpus as corpora
from benchmarks.ptb import trained
from benchmarks.ptb.batches import evaluation_windows
from benchmarks.ptb.corpus import synthetic
from benchmarks.ptb.engine import perplexities
from benchmarks.ptb.task import TEST_STEPS
from benchmarks.trained import load
from tests.support.tiny_run import config, hooks, run_in, tiny_corpus

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def runs(tmp_path):
    """Three runs with other seeds, two epochs each."""
    made = []
    for seed in (1, 2, 3):
        folder = tmp_path / str(seed)
        chosen = config(seed=seed, epochs=2)
        run = run_in(folder, chosen)
        run.train(hooks(), 1e9)
        job = {"config": chosen.to_dict(), "data": None}
        (folder / "job.json").write_text(json.dumps(job))
        made.append(run)
    return made


def loaded(runs):
    return [load(run.folder, "torch", "ptb", tiny_corpus()) for run in runs]


def test_a_model_is_what_was_trained(runs):
    (model,) = loaded(runs[:1])
    assert model.epochs == 2
    for name, array in runs[0].task.engine.weights().items():
        np.testing.assert_array_equal(model.engine.weights()[name], array)
    found = trained.average([model], "torch")["averages"]
    assert found[0]["test_perplexity"] == pytest.approx(runs[0].progress.final["test_perplexity"])


def test_the_average_is_of_probabilities_word_by_word(runs):
    models = loaded(runs)
    text = tiny_corpus().test
    windows = list(evaluation_windows(text, 1, TEST_STEPS))
    ((x, y, weight),) = windows
    costs = [next(model.engine.nats([(x, y)])) for model in models]
    chances = np.mean([np.exp(-cost.astype(np.float64)) for cost in costs], axis=0)
    wanted = np.exp((-np.log(chances) * weight).sum() / weight.sum())
    found = trained.average(models, "torch")
    assert [row["models"] for row in found["averages"]] == [1, 2, 3]
    assert found["averages"][-1]["test_perplexity"] == pytest.approx(wanted, rel=1e-6)
    alone = [perplexities([m.engine], windows)[0] for m in models]
    assert found["averages"][-1]["test_perplexity"] < np.exp(np.mean(np.log(alone)))
    assert len(found["members"]) == 3
    assert {"versions", "machine"} <= set(found)


def test_words_that_cost_much_do_not_vanish():
    """e^-700 is next to zero, and e^-inf is zero; the mean of both costs 700 + log 2."""

    class Certain:
        def __init__(self, cost):
            self.cost = cost

        def nats(self, windows):
            return (np.full(x.shape, self.cost, np.float32) for x, _ in windows)

    window = np.zeros((1, 3), np.int32), np.zeros((1, 3), np.int32), np.ones((1, 3), np.float32)
    alone, both = np.log(perplexities([Certain(700.0), Certain(np.inf)], [window]))
    assert alone == pytest.approx(700.0)
    assert both == pytest.approx(700.0 + np.log(2.0))


def test_a_text_goes_on_from_its_first_words(runs):
    (model,) = loaded(runs[:1])
    text = trained.write(model, "w1 W2 nobody", 80, 1.0, seed=1)
    assert text.split()[:3] == ["w1", "w2", "w0"]
    assert len(text.split()) == 83
    assert text == trained.write(model, "w1 W2 nobody", 80, 1.0, seed=1)
    assert text != trained.write(model, "w1 W2 nobody", 80, 1.0, seed=2)


def test_a_low_temperature_writes_the_likeliest_words(runs):
    (model,) = loaded(runs[:1])
    first, then = trained.write(model, "w1", 1, 0.001, seed=1).split()
    scores = model.engine.next_word(np.array([1], np.int32))
    assert (first, then) == ("w1", f"w{scores.argmax()}")


def test_what_is_no_run_or_anothers_is_refused(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "load", lambda _: synthetic())
    with pytest.raises(CheckpointError, match=r"not a run's folder: it has no job\.json"):
        load(tmp_path / "nowhere", "torch", "ptb")
    with pytest.raises(CheckpointError, match=r"other data: .*'tiny'.* Received: .*'synthetic'"):
        load(runs[0].folder, "torch", "ptb")


def test_a_run_of_another_task_is_refused_with_the_command_for_it(runs):
    with pytest.raises(CheckpointError, match=r"another task\. Write: python -m benchmarks\.ptb "):
        load(runs[0].folder, "torch", "captions")
