"""ONNX Runtime computes what a Keras model under a policy computes in evaluation."""

import keras
import numpy as np
import pytest

import dropout_policies as dp
from tests.keras.integrations.small_keras_model import build, inputs

if keras.backend.backend() == "torch":
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
else:
    pytest.importorskip("tf2onnx", reason="Keras exports to ONNX with it on this backend")
onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's exporters warn of themselves


def exported(model, path, x):
    model.export(path, format="onnx", verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("policy", ["zaremba", "variational", "awd", "zoneout"])
def test_the_file_computes_what_the_model_does_in_evaluation(policy, tmp_path):
    x, model = inputs(4), build()
    model(x)  # Keras exports to ONNX only a model that was called
    stock = exported(model, str(tmp_path / "stock.onnx"), x)
    dp.apply(model, policy)
    ours = exported(model, str(tmp_path / "model.onnx"), x)
    np.testing.assert_allclose(ours, model.predict(x, verbose=0), atol=1e-5)
    assert np.allclose(ours, stock, atol=1e-6) == (policy != "zoneout")
    operators = {node.op_type for node in onnx.load(str(tmp_path / "model.onnx")).graph.node}
    assert not any("Random" in operator or "Dropout" in operator for operator in operators)
