"""The audit of Keras models that people build around a recurrent layer."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import dropout_policies as dp

pytestmark = pytest.mark.any_backend

WIDTH, UNITS = 9, 8


def audited(made):
    keras.utils.set_random_seed(3)
    return dp.audit(made)


def masked(audit):
    assert audit.undecided == (), str(audit)
    return [(f.site.value, f.per) for f in audit.findings if f.verdict == "masked"]


def lstm(**kwargs):
    return layers.LSTM(UNITS, return_sequences=True, dropout=0.4, **kwargs)


def test_a_model_may_return_its_last_states_too():
    x = keras.Input((None, WIDTH))
    y, h, c = lstm(return_state=True)(x)
    one = keras.Model(x, [h, c, layers.Dropout(0.4)(y)])
    assert masked(audited(one)) == [("input", "sequence"), ("output", "step")]


def test_a_model_subclass_may_return_a_dictionary():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm = lstm(return_state=True)

        def build(self, shape):
            self.lstm.build(shape)

        def call(self, x, training=False):
            y, h, c = self.lstm(x, training=training)
            return {"last": h + c, "all": y}

    mine = Mine()
    mine.build((None, None, WIDTH))
    assert masked(audited(mine)) == [("input", "sequence")]


@pytest.mark.parametrize("named", [False, True])
def test_a_model_may_take_an_initial_state(named):
    x = keras.Input((None, WIDTH), name="x")
    h, c = (keras.Input((UNITS,), name=name) for name in "hc")
    y = lstm()(x, initial_state=[h, c])
    inputs = {"x": x, "h": h, "c": c} if named else [x, h, c]
    assert masked(audited(keras.Model(inputs, y))) == [("input", "sequence")]


def test_a_second_sequence_is_refused():
    x, other = keras.Input((None, WIDTH)), keras.Input((None, WIDTH))
    one = keras.Model([x, other], lstm()(layers.Add()([x, other])))
    with pytest.raises(dp.PolicyError, match=r"2 inputs.*recurrent layer alone"):
        audited(one)


def test_padding_tokens_are_not_used():
    words = keras.Sequential(
        [keras.Input((None,)), layers.Embedding(20, WIDTH, mask_zero=True), lstm()]
    )
    before = words.predict(np.array([[1, 2, 0, 0]]), verbose=0)
    assert masked(audited(words)) == [("input", "sequence")]
    assert np.array_equal(words.predict(np.array([[1, 2, 0, 0]]), verbose=0), before)


def test_a_masking_layer_is_refused():
    padded = keras.Sequential([keras.Input((None, WIDTH)), layers.Masking(), lstm()])
    with pytest.raises(dp.PolicyError, match=r"has a Masking layer.*recurrent layer alone"):
        audited(padded)


def test_a_softmax_layer_is_left_out_and_put_back():
    ends = [layers.Dropout(0.3), layers.Dense(20), layers.Softmax()]
    probable = keras.Sequential([keras.Input((None, WIDTH)), lstm(), *ends])
    x = np.random.default_rng(1).normal(size=(2, 5, WIDTH))
    before = probable.predict(x, verbose=0)
    assert masked(audited(probable)) == [("input", "sequence"), ("output", "step")]
    assert "call" not in vars(ends[-1])
    assert np.array_equal(probable.predict(x, verbose=0), before)
    assert np.allclose(before.sum(-1), 1)


class Annealed(keras.layers.Layer):
    """Dropout whose rate rises to 0.4 in a thousand steps, which a weight counts."""

    def build(self, _):
        self.generator = keras.random.SeedGenerator(1)
        thousand = keras.initializers.Constant(1000.0)
        self.step = self.add_weight(shape=(1,), initializer=thousand, trainable=False)

    def call(self, x, training=False):
        if not training:
            return x
        rate = 0.4 * ops.minimum(1.0, self.step / 1000.0)
        keep = keras.random.uniform(ops.shape(x), seed=self.generator) >= rate
        return ops.where(keep, x / (1.0 - rate), 0.0)


def test_a_counter_that_sets_the_rate_keeps_its_value():
    lstm = keras.layers.LSTM(8, return_sequences=True)
    model = keras.Sequential([keras.Input((None, 9)), lstm, Annealed()])
    found = dp.audit(model).at("output")
    assert found.verdict == "masked"
    assert found.interval[0] < 0.4 < found.interval[1]
    assert found.scaled is True
    assert ops.convert_to_numpy(model.layers[-1].step).tolist() == [1000.0]


def test_a_learned_state_is_not_taken_for_the_first_weights():
    class Learned(keras.Model):
        def __init__(self):
            super().__init__()
            self.h0 = self.add_weight(shape=(1, 8), name="h0")
            self.rnn = keras.layers.GRU(8, return_sequences=True)

        def call(self, x, training=False):
            h = ops.broadcast_to(self.h0, (ops.shape(x)[0], 8))
            return self.rnn(x, initial_state=h, training=training)

    model = Learned()
    model(np.zeros((2, 3, 9), "float32"))
    assert dp.audit(model).policy == "none"


def test_batch_normalization_is_refused():
    model = keras.Sequential([keras.Input((None, WIDTH)), layers.BatchNormalization(), lstm()])
    with pytest.raises(dp.PolicyError, match="a call in training changes its evaluation"):
        dp.audit(model)
