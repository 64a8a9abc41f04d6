"""The benchmark's model in Keras: the same as in PyTorch, and the same after an interruption."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from benchmarks.ptb.batches import columns, evaluation_windows, windows
from benchmarks.ptb.engine import initial_weights, perplexities
from benchmarks.ptb.engines.keras_engine import KerasEngine
from benchmarks.ptb.engines.torch_engine import TorchEngine
from benchmarks.ptb.presets import PRESETS
from tests.support.tiny_run import TINY, WORDS, config, tiny_corpus

pytestmark = pytest.mark.usefixtures("tiny")
BACKEND = {"torch": "keras-torch"}.get(keras.backend.backend(), keras.backend.backend())


def engines(policy):
    ours, other = config(BACKEND, policy), config("torch", policy)
    return KerasEngine(ours, initial_weights(ours, WORDS)), TorchEngine(
        other, initial_weights(other, WORDS)
    )


def batches():
    return list(windows(columns(tiny_corpus().train, TINY.batch), TINY.window))


@pytest.mark.parametrize("policy", ["none", "zaremba", "naive", "awd", "zaremba+zoneout"])
def test_from_a_common_start_both_frameworks_train_alike(policy):
    """Losses, weights and carried state: plain SGD, clipping and masks are the same."""
    ours, other = engines(policy)
    for x, y in batches()[:20]:
        losses = [engine.train_window(x, y, 1.0) for engine in (ours, other)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
    for a, b in ((ours.weights(), other.weights()), (ours.carried(), other.carried())):
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_allclose(a[name], b[name], atol=1e-4, err_msg=name)
    assert ours.calls() == other.calls()


def test_gradients_are_clipped_alike(monkeypatch):
    """Words come more than once in a window; TensorFlow hands their gradients over apart."""
    monkeypatch.setitem(PRESETS, "tiny", replace(TINY, clip=0.05))
    ours, other = engines("none")
    start = ours.weights()
    for x, y in batches()[:5]:
        for engine in (ours, other):
            engine.train_window(x, y, 1.0)
    for name, array in ours.weights().items():
        np.testing.assert_allclose(array, other.weights()[name], atol=1e-6, err_msg=name)
    moved = sum(((array - start[name]) ** 2).sum() for name, array in ours.weights().items())
    assert np.sqrt(moved) <= 5 * 0.05 * (1 + 1e-5)


@pytest.mark.parametrize("policy", ["zaremba", "variational", "zoneout"])
def test_evaluation_counts_every_token_once_and_moves_nothing(policy):
    ours, other = engines(policy)
    (x, y), *_ = batches()
    ours.train_window(x, y, 1.0)
    other.restore(ours.weights(), ours.carried(), ours.calls())
    before, calls = ours.carried(), ours.calls()
    for batch, steps in ((4, 5), (1, 40)):
        text = tiny_corpus().valid
        figures = [perplexities([e], evaluation_windows(text, batch, steps)) for e in (ours, other)]
        np.testing.assert_allclose(*figures, rtol=1e-5)
    for words in (x[0], x[0, :1]):
        next_words = [engine.next_word(words) for engine in (ours, other)]
        np.testing.assert_allclose(*next_words, atol=1e-5)
        assert np.exp(next_words[0]).sum() == pytest.approx(1.0)
    assert ours.calls() == calls
    for name, array in ours.carried().items():
        np.testing.assert_array_equal(array, before[name])


def test_what_is_restored_goes_on_as_it_would_have():
    whole, _ = engines("zaremba")
    for x, y in batches()[:3]:
        whole.train_window(x, y, 1.0)
    again, _ = engines("zaremba")
    again.restore(whole.weights(), whole.carried(), whole.calls())
    for x, y in batches()[3:6]:
        assert whole.train_window(x, y, 0.5) == again.train_window(x, y, 0.5)
    for name, array in whole.weights().items():
        np.testing.assert_array_equal(array, again.weights()[name])
