"""TensorFlow's SavedModel of a model under a policy computes what the model does in evaluation."""

import keras
import numpy as np
import pytest

import dropout_policies as dp
from tests.keras.integrations.small_keras_model import build, inputs

if keras.backend.backend() == "torch":
    pytest.skip("TensorFlow and PyTorch stay in separate processes", allow_module_level=True)
tensorflow = pytest.importorskip("tensorflow")


def served(model, path, x):
    model.export(path, format="tf_saved_model", verbose=False)
    loaded = tensorflow.saved_model.load(path)
    return np.asarray(loaded.serve(x))


@pytest.mark.parametrize("kind", [keras.layers.LSTM, keras.layers.GRU])
@pytest.mark.parametrize("policy", ["zaremba", "variational", "awd"])
def test_it_serves_the_stock_model(policy, kind, tmp_path):
    x = inputs(4)
    model = build(kind=kind)
    stock = served(model, str(tmp_path / "stock"), x)
    dp.apply(model, policy, seed=1)
    assert not np.allclose(keras.ops.convert_to_numpy(model(x, training=True)), stock)
    np.testing.assert_array_equal(served(model, str(tmp_path / "model"), x), stock)


@pytest.mark.parametrize("policy", ["zoneout", "rnndrop"])
def test_it_has_the_rule_for_evaluation(policy, tmp_path):
    x = inputs(4)
    model = build()
    stock = model.predict(x, verbose=0)
    dp.apply(model, policy, rate=0.3)
    ours = model.predict(x, verbose=0)
    assert not np.allclose(ours, stock, atol=1e-3)
    np.testing.assert_allclose(served(model, str(tmp_path / "model"), x), ours, atol=1e-6)
