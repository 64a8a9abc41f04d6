"""Optuna tunes the rate of a policy."""

import pytest
import torch

import dropout_policies as dp
from tests.integrations.small_model import Classifier, data, outputs_in_training

optuna = pytest.importorskip("optuna")


def train(model):
    """The loss in evaluation after three steps."""
    x, y = data()
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(model.eval()(x), y))


def study():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_the_rate_of_a_trial_is_the_rate_of_its_masks():
    dropped = {}

    def objective(trial):
        torch.manual_seed(0)
        model = Classifier()
        outputs = outputs_in_training(model)
        dp.apply(model, "zaremba", rate=trial.suggest_float("rate", 0.1, 0.8))
        value = train(model)
        dropped[trial.number] = torch.cat(outputs).eq(0).double().mean().item()
        return value

    found = study()
    found.optimize(objective, n_trials=4)
    assert len({trial.value for trial in found.trials}) == 4
    for trial in found.trials:  # some 5,800 elements of the output
        assert dropped[trial.number] == pytest.approx(trial.params["rate"], abs=0.03)


def test_rates_by_site_policies_and_one_model_for_all_trials():
    torch.manual_seed(0)
    model = Classifier()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    tried = set()

    def objective(trial):
        model.load_state_dict(start)
        name = trial.suggest_categorical("policy", ["zaremba", "variational"])
        rate = {site: trial.suggest_float(site, 0.0, 0.5) for site in ("input", "output")}
        with dp.apply(model, name, rate=rate) as applied:
            tried.add(applied.policy.name)
            return train(model)

    found = study()
    found.optimize(objective, n_trials=6)
    assert tried == {"zaremba", "variational"}
    assert type(model.rnn) is torch.nn.LSTM
