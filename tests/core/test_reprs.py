"""What an interactive session shows of an object: one line that fits a terminal."""

import ast

import pytest
from torch import nn

import dropout_policies as dp

OBJECTS = {
    "a policy": dp.zaremba(),
    "no policy": dp.none(),
    "a schedule": dp.schedule({0: 0.1, 100: 0.5}),
    "a ramp": dp.ramp(0.0, 0.5, 10_000),
    "a rule with a ramp": dp.drop(dp.ramp(0.0, 0.5, 10_000), per="sequence"),
    "a diagram": dp.awd().diagram(layers=20, steps=26),
    "a model under a policy": dp.apply(nn.Sequential(nn.LSTM(3, 4), nn.LSTM(4, 4)), "zaremba"),
    "an audit": dp.audit(nn.LSTM(5, 8, num_layers=2)),
}


@pytest.mark.parametrize("what", OBJECTS)
def test_a_repr_is_one_line_of_a_terminal(what):
    text = repr(OBJECTS[what])
    assert "\n" not in text
    assert len(text) <= 200, text


def test_a_schedules_repr_is_how_it_is_written():
    assert repr(dp.schedule({0: 0.1, 100: 0.5})) == "dp.schedule({0: 0.1, 100: 0.5})"
    (call,) = ast.parse(repr(dp.ramp(0.1, 0.5, 4))).body
    made = eval(compile(ast.Expression(call.value), "repr", "eval"), {"dp": dp})
    assert made == dp.ramp(0.1, 0.5, 4)
    assert repr(dp.ramp(0.0, 0.5, 1000)) == (
        "dp.schedule({0: 0.0, 10: 0.005, 20: 0.01, ..., 990: 0.495, 1000: 0.5})"
    )


def test_reprs_name_what_they_stand_for():
    assert repr(OBJECTS["a diagram"]) == "<Diagram awd: L = 20, T = 26>"
    assert repr(OBJECTS["a model under a policy"]) == (
        "<Applied policy zaremba: 2 recurrent layers in 1 stack; evaluation: identity>"
    )


def test_a_layer_under_a_policy_shows_it_after_apply():
    model = nn.Sequential(nn.LSTM(3, 4))
    with dp.apply(model, "zaremba", rate=0.25, seed=7):
        assert "LSTM(3, 4, policy='zaremba', rate=0.25, seed=7)" in repr(model)
    assert "policy" not in repr(model)
