"""keras-tuner tunes the rate of a policy, and gives the best model back under that policy."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import LSTM

import dropout_policies as dp
from tests.keras.integrations.small_keras_model import FEATURES, STEPS, build, inputs

tuner = pytest.importorskip("keras_tuner")
if keras.backend.backend() == "tensorflow":
    pytest.importorskip("tensorboard", reason="keras-tuner imports it on this backend")

RATES = [0.0, 0.3, 0.6]


def applied(hyperparameters):
    model = build()
    dp.apply(model, "zaremba", rate=hyperparameters.Choice("rate", RATES))
    model.compile(optimizer="adam", loss="mse")
    return model


def in_the_class(hyperparameters):
    keras.utils.set_random_seed(0)
    rate = hyperparameters.Choice("rate", RATES)
    recurrent = LSTM(16, return_sequences=True, policy="zaremba", rate=rate, name="low")
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), recurrent, keras.layers.Dense(2)])
    model.compile(optimizer="adam", loss="mse")
    return model


@pytest.mark.parametrize("build_model", [applied, in_the_class])
def test_the_rate_of_a_trial_is_the_rate_of_its_model(build_model, tmp_path):
    x = inputs(16)
    y = x[..., :2].cumsum(1)
    search = tuner.GridSearch(
        build_model, objective="val_loss", directory=str(tmp_path), project_name="rates"
    )
    search.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    trials = search.oracle.get_best_trials(3)
    assert {trial.hyperparameters.get("rate") for trial in trials} == set(RATES)
    assert len({trial.score for trial in trials}) == 3, "the rate changes the training"
    best = search.get_best_models()[0]
    rates = {rule.rate for rule in best.get_layer("low").placement.policy.values()}
    assert rates == {trials[0].hyperparameters.get("rate")}
    np.testing.assert_allclose(best.evaluate(x, y, verbose=0), trials[0].score, rtol=1e-4)
