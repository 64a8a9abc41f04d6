"""The acoustic model in Keras: the same as in PyTorch, step by step, from one start."""

import keras
import numpy as np
import pytest

from benchmarks.speech import presets
from benchmarks.speech.task import make
from tests.support.tiny_speech import TINY, config, smaller, tiny_speech

BACKEND = {"torch": "keras-torch"}.get(keras.backend.backend(), keras.backend.backend())


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", TINY)


def tasks(policy):
    return [make(config(backend, policy), None, tiny_speech()) for backend in (BACKEND, "torch")]


@pytest.mark.parametrize("policy", ["none", "zaremba", "variational"])
def test_from_a_common_start_both_frameworks_train_alike(policy):
    ours, other = tasks(policy)
    for epoch in range(2):
        for batch in ours.batches(epoch, 0):
            losses = [task.train(batch, 0.5) for task in (ours, other)]
            np.testing.assert_allclose(*losses, rtol=1e-4)
    for name, array in ours.arrays().items():
        np.testing.assert_allclose(array, other.arrays()[name], atol=1e-4, err_msg=name)
    assert ours.calls() == other.calls()
    for a, b in zip(ours.at_end().values(), other.at_end().values(), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_gradients_are_clipped_alike(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", smaller(clip=0.05))
    ours, other = tasks("none")
    start = ours.arrays()
    (batch, *_) = ours.batches(0, 0)
    for task in (ours, other):
        task.train(batch, 1.0)
    moved = sum(((array - start[name]) ** 2).sum() for name, array in ours.arrays().items())
    assert np.sqrt(moved) == pytest.approx(0.05, rel=1e-4)
    for name, array in ours.arrays().items():
        np.testing.assert_allclose(array, other.arrays()[name], atol=1e-6, err_msg=name)


def test_what_is_restored_goes_on_as_it_would_have():
    whole, _ = tasks("zaremba")
    batches = list(whole.batches(0, 0))
    for batch in batches[:2]:
        whole.train(batch, 0.5)
    again, _ = tasks("zaremba")
    again.restore(whole.arrays(), whole.calls())
    for batch in batches[2:]:
        assert whole.train(batch, 0.5) == again.train(batch, 0.5)
