"""Training steps in Keras, beside its own layers with their own dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

import dropout_policies as dp

from .jobs import Job, policy_of
from .timing import Seconds, interleaved

RATE = 0.5
KEYED = ("zaremba", "variational")


def steps(job: Job) -> Seconds:
    """Each policy, two of them with keyed masks too, and what Keras has."""
    made = dict(contestants(job))
    for name in KEYED:
        made[f"{name}, keyed"] = _model(job, policy=name, seed=1)
    return interleaved({name: _step(model, job) for name, model in made.items()}, job.seconds)


def contestants(job: Job) -> Iterator[tuple[str, keras.Model]]:
    """What Keras has, and each policy."""
    yield "stock", _model(job)
    yield "dropout", _model(job, dropout=RATE)
    yield "recurrent_dropout", _model(job, dropout=RATE, recurrent_dropout=RATE)
    yield "Dropout layers", _model(job, between=lambda: keras.layers.Dropout(RATE))
    yield (
        "SpatialDropout1D layers",
        _model(job, between=lambda: keras.layers.SpatialDropout1D(RATE)),
    )
    for name in job.policies:
        yield name, _model(job, policy=name)


def _model(
    job: Job,
    between: Callable[[], Any] | None = None,
    policy: str | None = None,
    seed: int | None = None,
    **arguments: float,
) -> keras.Model:
    shape, kind = job.shape, getattr(keras.layers, job.cell)
    model = keras.Sequential([keras.Input((shape.steps, shape.units))])
    for _ in range(shape.layers):
        if between is not None:
            model.add(between())
        model.add(kind(shape.units, return_sequences=True, **arguments))
    if between is not None:
        model.add(between())
    if policy is not None:
        dp.apply(model, policy=policy_of(policy, job.cell), seed=seed)
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    return model


def _step(model: keras.Model, job: Job) -> Callable[[], object]:
    shape, random = job.shape, np.random.default_rng(0)
    size = (shape.batch, shape.steps, shape.units)
    x, y = (random.standard_normal(size).astype(np.float32) for _ in range(2))
    return lambda: model.train_on_batch(x, y)
