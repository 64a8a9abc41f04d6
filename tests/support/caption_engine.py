"""What the captioning engine of a backend does, as `python -m tests.support.caption_engine BACKEND`
prints it: a process can hold one Keras backend."""

import json
import sys
from unittest import mock

import numpy as np

from benchmarks.captions import presets
from benchmarks.captions.task import make
from tests.support.tiny_captions import (
    config,
    fed,
    first_batch,
    one_row,
    smaller,
    step_by_step,
    tiny_flickr,
)


def engine_results(backend: str) -> dict:
    """Of a run from a common start: the losses of some steps, what a batch costs in one and step by
    step, captions; and of single rows under `variational`, what the LSTM was not fed with."""
    with mock.patch.dict(presets.PRESETS, {"tiny": smaller()}):
        task = make(config(backend), None, tiny_flickr())
        losses = [task.train(batch, 0.5) for epoch in range(2) for batch in task.batches(epoch, 0)]
        batch = first_batch(task)
        costs = task.engine.costs(batch), step_by_step(task.engine, batch)
        said = task.write([task.engine])
    with mock.patch.dict(presets.PRESETS, {"tiny": smaller(batch=1)}):
        alone = make(config(backend, "variational"), None, tiny_flickr())
        unfed = [fed(alone.engine, one_row(batch, row)) for row in range(4)]
    return {
        "losses": losses,
        "costs": costs[0].tolist(),
        "stepped": costs[1].tolist(),
        "said": said,
        "unfed": np.array(unfed).tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(engine_results(sys.argv[1])))
