"""Captum: attributions of an evaluated model under a policy are those of the stock model."""

import pytest
import torch

import dropout_policies as dp
from tests.integrations.small_model import Classifier, data

attribution = pytest.importorskip("captum.attr")

pytestmark = [  # Captum's own
    pytest.mark.filterwarnings("ignore:Input Tensor"),
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
]


@pytest.mark.parametrize("method", ["IntegratedGradients", "Saliency", "DeepLift", "Occlusion"])
def test_attributions_are_those_of_the_stock_model(method):
    torch.manual_seed(0)
    model = Classifier().eval()
    x, _ = data()
    explain = getattr(attribution, method)
    arguments = {"sliding_window_shapes": (1, 3)} if method == "Occlusion" else {}
    stock = explain(model).attribute(x, target=1, **arguments)
    with dp.apply(model, "zaremba", rate=0.5):
        ours = explain(model).attribute(x, target=1, **arguments)
    assert stock.abs().sum() > 0
    assert torch.equal(ours, stock)


def test_attributions_under_zoneout_are_of_the_means_of_its_masks():
    torch.manual_seed(0)
    model = Classifier().eval()
    x, _ = data()
    stock = attribution.IntegratedGradients(model).attribute(x, target=1)
    dp.apply(model, "zoneout", rate=0.3)
    explain = attribution.IntegratedGradients(model)
    ours, error = explain.attribute(x, target=1, n_steps=200, return_convergence_delta=True)
    assert error.abs().max() < 1e-3, "attributions sum to the change of the output"
    assert not torch.allclose(ours, stock, atol=1e-3)


def test_in_training_mode_attributions_are_random():
    model = Classifier().train()
    dp.apply(model, "zaremba", rate=0.5)
    x, _ = data()
    saliency = attribution.Saliency(model)
    assert not torch.equal(saliency.attribute(x, target=1), saliency.attribute(x, target=1))
