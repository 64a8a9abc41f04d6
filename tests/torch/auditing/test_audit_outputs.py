"""What PyTorch modules do with the output of their last layer: decoders, softmax, other types."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import dropout_policies as dp
from tests.support.audited import find_errors
from tests.support.torch_audited import Loop, Model, case_by_hand
from tests.support.torch_unusual import Around, Decoded, Packed, dropped


@pytest.mark.parametrize("words", [9, 20])
@pytest.mark.parametrize(
    "decode",
    [
        lambda m, y: dropped(m, m.linear(y)),
        lambda m, y: nn.functional.linear(y, dropped(m, m.linear.weight), m.linear.bias),
        lambda m, y: dropped(m, m.linear(dropped(m, y))),
    ],
    ids=["what it gives", "its weights", "what it sees and gives"],
)
def test_masks_after_the_last_layer_leave_the_output_undecided(decode, words):
    torch.manual_seed(0)
    found = dp.audit(Decoded(decode, words)).at("output")
    assert found.verdict == "undecided"
    assert "on what comes after the last layer" in found.note


def test_masks_on_an_output_of_one_feature_are_undecided():
    for decode in (lambda m, y: dropped(m, m.linear(y)), lambda m, y: m.linear(dropped(m, y))):
        torch.manual_seed(0)
        assert dp.audit(Decoded(decode, words=1)).at("output").verdict == "undecided"
    torch.manual_seed(0)
    whole = dp.audit(Decoded(lambda m, y: m.linear(y), words=1))
    assert (whole.policy, whole.at("output").verdict) == ("none", "whole")


def test_masks_before_a_linear_layer_are_on_the_output():
    torch.manual_seed(0)
    found = dp.audit(Decoded(lambda m, y: m.linear(dropped(m, y)))).at("output")
    assert (found.verdict, found.per, found.scaled) == ("masked", "step", True)


@dataclass
class Outputs:
    loss: torch.Tensor | None
    logits: torch.Tensor


def test_an_output_may_be_a_dataclass():
    torch.manual_seed(0)
    audit = dp.audit(Around(after=lambda y: Outputs(None, nn.functional.dropout(y, 0.4))))
    assert audit.at("output").verdict == "masked"


def test_the_embedding_is_not_taken_for_a_matrix_of_its_shape():
    class Early(Model):
        def __init__(self):
            super().__init__()
            decoder, embedding = self.decoder, self.embedding
            del self.decoder, self.embedding
            self.decoder, self.embedding = decoder, embedding

    torch.manual_seed(0)
    assert next(iter(dict(Early().named_parameters()))).startswith("lstm")
    audit = dp.audit(Early())
    assert (audit.policy, audit.undecided) == ("zaremba", ())


@pytest.mark.parametrize("policy", ["state", "variational"])
def test_a_module_of_packed_sequences_is_given_them(policy):
    torch.manual_seed(0)
    audit = dp.audit(Packed(Loop(policy)))
    assert find_errors(case_by_hand(policy), audit) == [], str(audit)


def test_tokens_may_be_packed():
    torch.manual_seed(0)
    model = Model()
    model.lstm.batch_first = False
    audit = dp.audit(Packed(model))
    assert (audit.policy, audit.undecided) == ("zaremba", ())


@pytest.mark.parametrize(
    "softmax",
    [
        lambda y: nn.functional.log_softmax(y, dim=-1),
        lambda y: torch.softmax(y, -1),
        lambda y: torch.special.log_softmax(input=y, dim=-1),
        lambda y: y.softmax(-1),
        lambda y: y.flatten(0, 1).softmax(-1).unflatten(0, y.shape[:2]),
    ],
    ids=["functional", "torch", "special", "method", "view"],
)
def test_probabilities_may_be_made_in_code(softmax):
    torch.manual_seed(0)
    audit = dp.audit(Decoded(lambda m, y: softmax(m.linear(dropped(m, y)))))
    assert audit.differences == ("input is whole",)
    assert audit.undecided == ()


def test_a_softmax_inside_is_left_alone():
    torch.manual_seed(0)

    def decode(module, y):
        weights = 9 * torch.softmax(torch.zeros(9, dtype=y.dtype), -1)
        return module.linear(dropped(module, y) * weights).log_softmax(-1)

    audit = dp.audit(Decoded(decode))
    assert audit.differences == ("input is whole",)
    assert audit.undecided == ()


def test_after_an_audit_probabilities_are_unchanged():
    module = Model(last=nn.Softmax(-1)).eval()
    tokens = torch.arange(12).reshape(2, 6)
    before = module(tokens)
    dp.audit(module)
    assert torch.equal(module(tokens), before)
    assert torch.allclose(before.sum(-1), torch.ones(2, 6))
