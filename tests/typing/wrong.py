"""A user's program with a mistake on every marked line; see `test_typing`."""

import dropout_policies_torch as dpt
from torch import nn

import dropout_policies as dp

dpt.LSTM(3, 4, polcy="zaremba")  # wrong
dpt.LSTM(3, 4, policy=0.5)  # wrong
dpt.GRU(3, 4, policy="zaremba", rate="0.5")  # wrong
dpt.RNN(3, 4, num_layer=2)  # wrong
dpt.LSTMCell(3, 4, seed="1")  # wrong
dpt.Embedding(3, policy="awd")  # wrong
dpt.GRU(3, 4, policy="zaremba", stack=2)  # wrong
dp.zaremba(rate="half")  # wrong
dp.drop(0.5, per="steps")  # wrong
dp.apply(nn.LSTM(3, 4), rates=0.5)  # wrong
dp.apply(nn.LSTM(3, 4), "zaremba", 0.5, 1)  # wrong
dp.zaremba().diagram(layer=3)  # wrong
