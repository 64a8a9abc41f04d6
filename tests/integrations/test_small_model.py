"""What the other tests here check by can fail."""

import pytest
import torch

import dropout_policies as dp
from tests.integrations.small_model import Classifier, check_masks, data, outputs_in_training


def run(policy, seed=None, before_call=lambda _: None, drop_again=0.0):
    model = Classifier()
    dp.apply(model, policy, rate=0.5, seed=seed)
    if drop_again:
        model.rnn.register_forward_hook(
            lambda _, __, out: (torch.nn.functional.dropout(out[0], drop_again), out[1])
        )
    outputs = outputs_in_training(model)
    with dp.record(model) as masks:
        for _ in range(3):
            before_call(model)
            model(data()[0])
    check_masks(masks["rnn"], outputs, calls=3)


def test_the_right_masks_pass():
    run("zaremba")


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "locked"},
        {"policy": "naive"},
        {"policy": "zaremba", "seed": 1, "before_call": lambda m: setattr(m.rnn, "calls", 0)},
        {"policy": "zaremba", "before_call": lambda m: m.eval()},
        {"policy": "zaremba", "drop_again": 0.3},
    ],
    ids=["held", "on the hidden state", "the same at each call", "none", "dropped twice"],
)
def test_other_masks_are_noticed(wrong):
    with pytest.raises(AssertionError):
        run(**wrong)
