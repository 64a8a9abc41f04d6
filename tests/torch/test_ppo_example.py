"""The example of reinforcement learning: it learns, and its masks are replayed."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("ppo_lstm")


@pytest.mark.parametrize("policy", ["variational", "zaremba", "naive"])
def test_the_ratio_is_1_before_the_first_update(example, policy):
    config = example.Config(environments=8, steps=12, updates=3, policy=policy, rate=0.5)
    _, farthest = example.train(config)
    assert farthest < 1e-5


def test_without_the_rollouts_masks_it_is_not(example, monkeypatch):
    monkeypatch.setattr(example.Rollout, "calls", 10**6)
    config = example.Config(environments=8, steps=12, updates=1, rate=0.5)
    assert example.train(config)[1] > 1e-2


def test_it_learns_to_remember(example):
    rewards, _ = example.train(example.Config(updates=40))
    assert sum(rewards[-5:]) / 5 > 0.6  # a third by chance
