"""Keras layers and models that the tests audit: this library's, Keras's, and models of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from dropout_policies_keras import GRU, LSTM, SimpleRNN
from keras import layers

import dropout_policies as dp
from dropout_policies.policies.sites import Site

from .audited import Case, case_of_policy

FEATURES = 9


def built(make: Callable[[], Any]) -> Callable[[], Any]:
    def layer() -> Any:
        made = make()
        made.build((None, None, FEATURES))
        return made

    return layer


def model(rate: float = 0.0, activation: str | None = None) -> keras.Model:
    """A language model with dropout between its layers; it may return probabilities."""
    return keras.Sequential(
        [
            keras.Input((20,), dtype="int32"),
            layers.Embedding(30, 12),
            layers.Dropout(rate),
            layers.LSTM(12, return_sequences=True),
            layers.Dropout(rate),
            layers.LSTM(12),
            layers.Dropout(rate),
            layers.Dense(14, activation=activation),
        ]
    )


def model_under(policy: str) -> keras.Model:
    made = model()
    dp.apply(made, policy)
    return made


def case_of_arguments(kind: str, name: str, gates: str, **rates: float) -> Case:
    """A stock layer with dropout arguments: masks per sequence, on its input and on h."""
    sites = {"dropout": Site.INPUT, "recurrent_dropout": Site.HIDDEN}
    rules = {
        (sites[argument], 0, 0): dp.drop(rate, per="sequence", gates=gates)
        for argument, rate in rates.items()
    }
    return Case(
        f"keras.layers.{kind}, {name}", built(lambda: getattr(layers, kind)(8, **rates)), rules
    )


def cases() -> list[Case]:
    zaremba = dp.zaremba(0.4)
    found = [
        Case("keras.layers.LSTM", built(lambda: layers.LSTM(8)), {}, "none"),
        Case(
            "keras.layers.Bidirectional(GRU)",
            built(lambda: layers.Bidirectional(layers.GRU(8))),
            {},
            "none",
        ),
        case_of_arguments("LSTM", "dropout", "tied", dropout=0.4),
        # With recurrent_dropout, Keras draws a mask for each gate.
        case_of_arguments(
            "LSTM", "dropout and recurrent_dropout", "untied", dropout=0.3, recurrent_dropout=0.4
        ),
        case_of_arguments(
            "GRU", "dropout and recurrent_dropout", "untied", dropout=0.3, recurrent_dropout=0.4
        ),
        case_of_arguments(
            "SimpleRNN", "dropout and recurrent_dropout", "tied", dropout=0.3, recurrent_dropout=0.4
        ),
        Case(
            "keras.layers.RNN of two cells",
            built(lambda: layers.RNN([layers.LSTMCell(8, dropout=0.4), layers.LSTMCell(8)])),
            {(Site.INPUT, 0, 0): dp.drop(0.4, per="sequence")},
        ),
        case_of_policy("model with Dropout layers", lambda: model(0.4), zaremba, 2),
        case_of_policy(
            "model after apply: awd", lambda: model_under("awd"), dp.awd(), 2, tokens=True
        ),
    ]
    for name in dp.names():
        policy = dp.resolve(name)
        made = built(lambda policy=policy: LSTM(8, policy=policy))
        found.append(case_of_policy(f"LSTM: {name}", made, policy))
    for kind, policy in (
        (GRU, dp.variational()),
        (GRU, dp.zoneout(cell=0.0, hidden=0.2)),
        (SimpleRNN, dp.naive()),
    ):
        made = built(lambda kind=kind, policy=policy: kind(8, policy=policy))
        found.append(case_of_policy(f"{kind.__name__}: {policy.name}", made, policy))
    return found
