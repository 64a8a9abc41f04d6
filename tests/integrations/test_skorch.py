"""skorch: a policy in the module's class stays through `fit` and `clone`; one applied, does not."""

import numpy as np
import pytest
import torch
from dropout_policies_torch import LSTM

import dropout_policies as dp
from tests.integrations.small_model import (
    FEATURES,
    UNITS,
    Classifier,
    check_evaluation,
    check_masks,
    data,
    outputs_in_training,
)

skorch = pytest.importorskip("skorch")


class WithPolicy(Classifier):
    def __init__(self, rate=0.5):
        super().__init__()
        self.rnn = LSTM(
            FEATURES, UNITS, num_layers=2, batch_first=True, policy="zaremba", rate=rate
        )


def net(module, **arguments):
    return skorch.NeuralNetClassifier(
        module,
        criterion=torch.nn.CrossEntropyLoss,
        lr=0.1,
        batch_size=8,
        max_epochs=2,
        train_split=None,
        iterator_train__shuffle=False,
        verbose=0,
        **arguments,
    )


def arrays():
    x, y = data()
    return x.numpy(), y.numpy()


@pytest.mark.parametrize("how", ["in the class", "applied"])
def test_masks_are_new_in_training_and_absent_in_prediction(how, tmp_path):
    fitted = net(WithPolicy if how == "in the class" else Classifier).initialize()
    if how == "applied":
        dp.apply(fitted.module_, "zaremba", rate=0.5)
    outputs = outputs_in_training(fitted.module_)
    with dp.record(fitted.module_) as masks:
        fitted.partial_fit(*arrays())
    check_masks(masks["rnn"], outputs, calls=6)
    x, _ = arrays()
    np.testing.assert_array_equal(fitted.predict_proba(x), fitted.predict_proba(x))
    fitted.save_params(f_params=tmp_path / "params.pt")
    check_evaluation(fitted.module_, torch.load(tmp_path / "params.pt"))


def test_fit_makes_the_module_again():
    applied = net(Classifier).initialize()
    dp.apply(applied.module_, "zaremba", rate=0.5)
    applied.fit(*arrays())
    assert type(applied.module_.rnn) is torch.nn.LSTM, "what apply changed, fit threw away"
    made = net(WithPolicy).fit(*arrays())
    assert isinstance(made.module_.rnn, LSTM)


def test_a_callback_applies_the_policy_to_what_fit_makes():
    class Apply(skorch.callbacks.Callback):
        def on_train_begin(self, net, **_):
            if type(net.module_.rnn) is torch.nn.LSTM:  # new, so not in partial_fit
                dp.apply(net.module_, "zaremba", rate=0.5)

    fitted = net(Classifier, callbacks=[Apply()])
    for _ in range(2):
        fitted.fit(*arrays())
        assert isinstance(fitted.module_.rnn, LSTM)
    fitted.partial_fit(*arrays())


def test_a_grid_search_tunes_the_rate():
    search = pytest.importorskip("sklearn.model_selection").GridSearchCV(
        net(WithPolicy), {"module__rate": [0.0, 0.5]}, cv=2, refit=True, error_score="raise"
    )
    search.fit(*arrays())
    rates = {
        next(iter(search.best_estimator_.module_.rnn.placement.policy.values())).rate,
        search.best_params_["module__rate"],
    }
    assert len(rates) == 1
