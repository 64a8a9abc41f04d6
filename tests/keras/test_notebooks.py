"""The notebook that runs Keras, on this backend."""

import keras
import pytest

from tests.support import notebooks

pytestmark = pytest.mark.any_backend

TWO_FRAMEWORKS = notebooks.FOLDER / "two_frameworks.ipynb"


def test_two_frameworks_executes_and_says_what_was_committed(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    anew = notebooks.execute(TWO_FRAMEWORKS)
    before = notebooks.read(TWO_FRAMEWORKS)
    words = notebooks.without_numbers(notebooks.printed(anew))
    assert words == notebooks.without_numbers(notebooks.printed(before))
