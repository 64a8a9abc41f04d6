"""ONNX Runtime computes what a PyTorch model under a policy computes in evaluation."""

import numpy as np
import pytest
import torch

import dropout_policies as dp
from tests.integrations.small_model import FEATURES, Classifier, data

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
runtime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's exporters warn of themselves


def run(path, x):
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def exported(model, x, path, **arguments):
    torch.onnx.export(model, (x,), str(path), **arguments)
    return [node.op_type for node in onnx.load(str(path)).graph.node]


@pytest.mark.parametrize("dynamo", [True, False], ids=["the exporter", "the older exporter"])
@pytest.mark.parametrize("policy", ["zaremba", "variational", "awd"])
def test_the_file_is_the_stock_models(policy, dynamo, tmp_path):
    torch.manual_seed(0)
    model = Classifier().eval()
    x, _ = data()
    arguments = {"dynamo": dynamo}
    stock = exported(model, x, tmp_path / "stock.onnx", **arguments)
    dp.apply(model, policy)
    operators = exported(model, x, tmp_path / "model.onnx", **arguments)
    assert operators == stock
    assert operators.count("LSTM") == 2
    assert not any("Dropout" in operator or "Random" in operator for operator in operators)
    with torch.no_grad():
        np.testing.assert_allclose(run(tmp_path / "model.onnx", x), model(x), atol=1e-5)
    np.testing.assert_array_equal(run(tmp_path / "model.onnx", x), run(tmp_path / "stock.onnx", x))


@pytest.mark.parametrize("policy", ["zoneout", "rnndrop"])
def test_policies_with_a_rule_for_evaluation_are_exported_with_it(policy, tmp_path):
    torch.manual_seed(0)
    model = Classifier().eval()
    x, _ = data()
    with torch.no_grad():
        stock = model(x)
    dp.apply(model, policy, rate=0.3)
    exported(model, x, tmp_path / "model.onnx", dynamo=True)
    with torch.no_grad():
        assert not torch.equal(model(x), stock)
        np.testing.assert_allclose(run(tmp_path / "model.onnx", x), model(x), atol=1e-5)


def test_any_batch_and_length(tmp_path):
    model = Classifier().eval()
    x, _ = data()
    dp.apply(model, "zaremba", rate=0.5)
    names = {0: "batch", 1: "steps"}
    exported(
        model,
        x,
        tmp_path / "model.onnx",
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": names},
    )
    other = torch.randn(3, 9, FEATURES)
    with torch.no_grad():
        np.testing.assert_allclose(run(tmp_path / "model.onnx", other), model(other), atol=1e-5)
