"""TFLite: a model under a policy converts as the stock model does, and computes the same.

A stock LSTM with an open batch converts only when it is unrolled, and so does one under a policy.
"""

import keras
import numpy as np
import pytest

import dropout_policies as dp
from tests.keras.integrations.small_keras_model import build, inputs

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's converter takes models of its own", allow_module_level=True)
tensorflow = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the interpreter's successor


def computed(content, x):
    interpreter = tensorflow.lite.Interpreter(model_content=content)
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


def converted(model):
    return tensorflow.lite.TFLiteConverter.from_keras_model(model).convert()


@pytest.mark.parametrize(("batch", "unroll"), [(1, False), (1, True), (None, True)])
@pytest.mark.parametrize("policy", ["zaremba", "variational", "zoneout"])
def test_the_interpreter_computes_what_the_model_does_in_evaluation(policy, batch, unroll):
    x = inputs(batch or 4)
    model = build(batch, unroll)
    stock = computed(converted(model), x)
    dp.apply(model, policy)
    ours = computed(converted(model), x)
    np.testing.assert_allclose(ours, model.predict(x, verbose=0), atol=1e-5)
    assert np.allclose(ours, stock, atol=1e-6) == (policy != "zoneout")


def test_export_writes_such_a_file(tmp_path):
    path = tmp_path / "model.tflite"
    x, model = inputs(4), build(unroll=True)
    dp.apply(model, "zaremba", rate=0.5)
    model.export(str(path), format="litert", verbose=False)
    np.testing.assert_allclose(
        computed(path.read_bytes(), x), model.predict(x, verbose=0), atol=1e-5
    )
