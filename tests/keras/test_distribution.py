"""Data-parallel training draws the masks of the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

CODE = """
import json, keras, numpy as np
import dropout_policies as dp
from dropout_policies_keras import LSTM, RNN
if {devices} > 1:
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    assert len(keras.distribution.list_devices()) == {devices}
keras.utils.set_random_seed(0)
rules = dp.naive(0.4) | dp.weight_drop(0.3) | dp.zoneout(0.3, 0.2)
model = keras.Sequential([
    keras.Input((6, 3)),
    LSTM(8, return_sequences=True, policy=rules, seed=1),
    RNN([keras.layers.LSTMCell(8), keras.layers.LSTMCell(8)], policy=rules, seed=1),
])
model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
rng = np.random.default_rng(0)
x, y = rng.standard_normal((4, 6, 3)).astype("f4"), rng.standard_normal((4, 8)).astype("f4")
print(json.dumps([float(model.train_on_batch(x, y)) for _ in range(3)]))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution runs on JAX")
def test_two_devices_train_as_one():
    def losses(devices):
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-c", CODE.format(devices=devices)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags},
        )
        return json.loads(done.stdout.splitlines()[-1])

    one, two = losses(1), losses(2)
    assert len(set(one)) == 3
    assert two == pytest.approx(one, rel=1e-5)
