"""What the translation engine of a backend does, as `python -m tests.support.translation_engine
BACKEND` prints it: a process can hold one Keras backend."""

import json
import sys
from unittest import mock

import numpy as np

from benchmarks.translation import presets
from benchmarks.translation.task import make
from tests.support.tiny_captions import step_by_step
from tests.support.tiny_translation import config, short_sources, smaller, tiny_tatoeba


def engine_results(backend: str) -> list[dict]:
    """Of a run from a common start, without attention and with it: the losses of an epoch, what a
    batch costs in one and step by step, the state that sources of all lengths leave, and
    translations."""
    return [_engine_results(backend, attention) for attention in (False, True)]


def _engine_results(backend: str, attention: bool) -> dict:
    with mock.patch.dict(presets.PRESETS, {"tiny": smaller(attention=attention, layers=2)}):
        task = make(config(backend), None, tiny_tatoeba())
    losses = [task.train(batch, 0.5) for batch in task.batches(0, 0)]
    batch = next(task.batches(1, 0))
    state = task.engine.begin(short_sources(task, np.random.default_rng(0)))
    if attention:  # where there is no word, frameworks have what they like of the encoder's
        *state, _, _ = state
    return {
        "losses": losses,
        "costs": task.engine.costs(batch).tolist(),
        "stepped": step_by_step(task.engine, batch).tolist(),
        "last": float(np.sum([np.abs(array).sum() for array in state])),
        "said": task.write([task.engine]),
        "arrays": sorted(task.arrays()),
    }


if __name__ == "__main__":
    print(json.dumps(engine_results(sys.argv[1])))
