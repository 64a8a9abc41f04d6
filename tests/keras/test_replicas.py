"""Training calls on several replicas of a TensorFlow strategy, or devices of `jax.pmap`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from dropout_policies_keras import LSTM

ROOT = Path(__file__).parents[2]
BACKEND = keras.backend.backend()
SEVERAL = r"rnn: .* belong to the rows of the whole batch, and this call runs on several replicas"
OWN = {
    "tensorflow": ["compiled", "eager", "schedule", "words"],
    "jax": ["pmap", "pmap of states", "shard_map", "schedule", "words"],
}
REFUSED = {
    "tensorflow": ["run", "eager", "fit", "words", "with a schedule", "samples", "records"],
    "jax": ["pmap", "pmap of states", "shard_map", "compiled before", "words"],
}
ALIKE = {
    "tensorflow": ["weights", "one device", "one replica", "outside of run", "evaluation"],
    "jax": ["weights", "one device"],
}

if BACKEND == "torch":

    def test_a_process_of_many_says_which_rows_it_has():
        """As under DistributedDataParallel: keyed masks are those of the whole batch."""
        x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype("float32")
        whole = LSTM(8, policy="naive", seed=3)
        expected = keras.ops.convert_to_numpy(whole(x, training=True))
        for first in (0, 2):
            part = LSTM(8, policy="naive", seed=3)
            part.build(x.shape)
            part.set_weights(whole.get_weights())
            part.row_offset = first
            got = keras.ops.convert_to_numpy(part(x[first : first + 2], training=True))
            np.testing.assert_allclose(got, expected[first : first + 2], atol=1e-6)

else:

    @pytest.fixture(scope="module")
    def found():
        flags = "--xla_force_host_platform_device_count=2"
        done = subprocess.run(
            [sys.executable, "-m", "tests.keras.replicas"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": BACKEND, "XLA_FLAGS": flags},
        )
        return json.loads(done.stdout.splitlines()[-1])

    @pytest.mark.parametrize("how", OWN[BACKEND])
    def test_without_a_seed_each_replica_and_each_call_has_masks_of_its_own(found, how):
        assert found["own masks"][how] == [True, True]

    def test_a_schedule_moves_once_a_call(found):
        first, second, calls = found["schedule"]
        assert first == pytest.approx(0.8, abs=0.05)
        assert second == pytest.approx(0.2, abs=0.05)
        assert calls == 2

    @pytest.mark.parametrize("how", REFUSED[BACKEND])
    def test_masks_that_depend_on_the_row_are_refused(found, how):
        assert re.search(SEVERAL, found["refused"][how]), found["refused"][how]
        assert found["calls"] == 0, "a call that is refused is not counted"

    @pytest.mark.parametrize("what", ALIKE[BACKEND])
    def test_what_depends_on_no_row_is_as_on_one_device(found, what):
        np.testing.assert_allclose(*found["alike"][what], rtol=1e-5, atol=1e-6)
