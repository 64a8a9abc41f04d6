"""A policy on a model of tinyrnn, and the audit of it and of a layer written by hand."""

import tinyrnn
from tinyrnn import LSTM, Linear, Model

import dropout_policies as dp

tinyrnn.seed(0)
model = Model(low=LSTM(8, 16), high=LSTM(16, 16), head=Linear(16, 5))
applied = dp.apply(model, policy="zaremba", rate=0.5)
print(applied)

print(dp.audit(model))


class Forgetful(LSTM):
    """It was meant to mask what leaves it."""

    def step(self, x, h, c):
        h, c = super().step(x, h, c)
        return tinyrnn.dropout(h, 0.5, self.training), c


print(dp.audit(Forgetful(8, 16)))
