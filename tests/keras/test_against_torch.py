"""PyTorch and Keras, side by side: one seed, one set of weights, the same numbers."""

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.support import keras_subject, torch_subject
from tests.support.cases import cases, numbers
from tests.support.properties import are_equal


@settings(max_examples=6)
@given(cases(kinds=("lstm", "gru", "rnn_tanh"), projections=False))
def test_outputs_states_and_slopes_are_the_same_in_training(case):
    are_equal(keras_subject.run(case), torch_subject.run(case), case, 2e-4)


@pytest.mark.parametrize("name", ["zaremba", "naive"])
def test_gradients_are_the_same(name):
    """One step of plain SGD at rate 1 moves every weight by its gradient."""
    from dropout_policies.policies import catalog
    from tests.support.cases import Case

    case = Case(catalog.resolve(name, 0.4), layers=2, batch=4, steps=6, initial_state=False)
    given_numbers = numbers(case)
    layer = torch_subject.build(case, given_numbers)
    y, _ = layer(torch.from_numpy(given_numbers.x))
    (y**2).sum(dim=(0, 2)).mean().backward()

    stack = keras_subject.build(case, given_numbers)
    inputs = keras.Input((case.steps, case.input_size))
    x = inputs
    for part in stack:
        x = part(x)[0]
    model = keras.Model(inputs, x)
    model.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=lambda _, got: keras.ops.sum(got**2, axis=(1, 2)),
    )
    batch = given_numbers.x.swapaxes(0, 1).astype("float32")
    before = [part.get_weights() for part in stack]
    model.train_on_batch(batch, np.zeros((case.batch, case.steps, case.hidden_size), "float32"))
    for inner, part in enumerate(stack):
        moved = [a - b for a, b in zip(before[inner], part.get_weights(), strict=True)]
        expected = [
            getattr(layer, f"{kind}_l{inner}").grad.numpy()
            for kind in ("weight_ih", "weight_hh", "bias_ih")
        ]
        for got, want in zip(moved, expected, strict=True):
            np.testing.assert_allclose(got, want.T, rtol=1e-4, atol=1e-5)
