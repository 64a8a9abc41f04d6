"""The drop-in layers: those of keras.layers in every way but the masks."""

import keras
import numpy as np
import pytest
from dropout_policies_keras import GRU, LSTM, RNN, SimpleRNN, masks
from dropout_policies_keras.kernels import compiled
from keras import ops

import dropout_policies as dp
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import Placement, PlannedMask, Slot
from dropout_policies.policies.rates import rate_at
from dropout_policies.policies.sites import Site
from tests.support.keras_subject import directions_of

B, T, D, H = 3, 5, 4, 6
FORMS = {
    "last output": {},
    "sequences": {"return_sequences": True},
    "states": {"return_sequences": True, "return_state": True},
    "last output and states": {"return_state": True},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "unrolled": {"unroll": True, "return_sequences": True},
    "no bias": {"use_bias": False},
    "relu": {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    "half the work": {"implementation": 1, "return_sequences": True},
}


def data(seed=0, shape=(B, T, D)):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def flat(result):
    return [ops.convert_to_numpy(part) for part in keras.tree.flatten(result)]


def assert_same(a, b):
    for left, right in zip(flat(a), flat(b), strict=True):
        np.testing.assert_array_equal(left, right)


KINDS = {
    "LSTM": (keras.layers.LSTM, LSTM, {}),
    "GRU": (keras.layers.GRU, GRU, {}),
    "GRU before": (keras.layers.GRU, GRU, {"reset_after": False}),
    "SimpleRNN": (keras.layers.SimpleRNN, SimpleRNN, {}),
}


def pair(form, kind="LSTM", **policy):
    """A stock layer and a policy layer with its weights."""
    stock_kind, our_kind, more = KINDS[kind]
    stock, ours = stock_kind(H, **FORMS[form], **more), our_kind(H, **FORMS[form], **more, **policy)
    stock.build((B, T, D))
    ours.build((B, T, D))
    ours.set_weights(stock.get_weights())
    return stock, ours


QUIET = [{}, {"policy": "none"}, {"policy": "zaremba", "rate": 0.0}]
MASK = np.array([[1, 1, 1, 0, 0], [1] * 5, [1, 1, 0, 0, 0]], bool)


def same_as_stock(form, kind):
    state = [data(1, (B, H)), data(2, (B, H))][: 2 if kind == "LSTM" else 1]
    quiet = [(policy, True) for policy in QUIET]
    silent = [{"policy": "naive"}, {"policy": "variational"}, {"policy": "awd"}]
    for policy, training in quiet + [(policy, False) for policy in silent]:
        stock, ours = pair(form, kind, **policy)
        for arguments in ({}, {"mask": ops.convert_to_tensor(MASK)}, {"initial_state": state}):
            expected = stock(data(), training=training, **arguments)
            assert_same(expected, ours(data(), training=training, **arguments))


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_and_rate_zero_are_the_stock_layer_bit_for_bit(form):
    same_as_stock(form, "LSTM")


@pytest.mark.parametrize("kind", ["GRU", "GRU before", "SimpleRNN"])
def test_so_they_are_for_every_kind_of_layer(kind):
    same_as_stock("states", kind)


@pytest.mark.parametrize("policy", ["zoneout", "rnndrop"])
def test_rate_zero_is_the_stock_layer_for_policies_that_evaluate_otherwise(policy):
    stock, ours = pair("states", policy=policy, rate=0.0)
    for training in (False, True):
        assert_same(stock(data(), training=training), ours(data(), training=training))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("policy", ["zaremba", "naive"])
def test_training_keeps_every_shape_of_the_stock_layer_and_masks(form, policy):
    stock, ours = pair(form, policy=policy)
    expected, got = flat(stock(data())), flat(ours(data(), training=True))
    assert [part.shape for part in got] == [part.shape for part in expected]
    assert not np.array_equal(got[0], expected[0])
    assert ours.compute_output_shape((B, T, D)) == stock.compute_output_shape((B, T, D))


@pytest.mark.parametrize("backwards", [False, True])
def test_the_last_output_is_the_last_of_the_sequences(backwards):
    ours = LSTM(H, return_sequences=True, go_backwards=backwards, policy="zaremba", seed=1)
    last = LSTM(H, go_backwards=backwards, policy="zaremba", seed=1)
    sequences = flat(ours(data(), training=True))[0]
    last.build((B, T, D))
    last.set_weights(ours.get_weights())
    np.testing.assert_array_equal(flat(last(data(), training=True))[0], sequences[:, -1])


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (2, 3, 4)])
def test_mask_bits_are_the_cores(seed, shape):
    layer = LSTM(H, policy="zaremba", seed=seed)
    layer.calls = 2**32 - 1
    for slot in (Slot(Site.OUTPUT, 2, 1), Slot(Site.HIDDEN, 0, 0)):
        state = ops.cast(layer.cell.seed_generator.state, "int32")
        for rate in (0.0, 0.3, 1 - 1e-12):
            least_word = ops.convert_to_tensor(keyed.threshold(rate) - 2**31, dtype="int32")
            got = masks.keep_bits(masks.mask_key(state, slot), least_word, shape, 7)
            expected = keyed.keep_bits(keyed.mask_key(seed, 2**32 - 1, slot), rate, shape, 7)
            np.testing.assert_array_equal(ops.convert_to_numpy(got), expected)


@pytest.mark.parametrize("call", [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_scheduled_mask_is_the_cores_bit_for_bit(call):
    rate = dp.schedule({0: 0.1, 2: 0.3, 2**31 - 1: 0.65})
    layer = LSTM(H, policy=dp.Policy(input=dp.drop(rate)), seed=3)
    layer.calls = call
    slot = Slot(Site.INPUT, 0, 0)
    wanted = {slot: PlannedMask(dp.drop(rate), rate, (4, 3, 5))}
    state = ops.cast(layer.generator.state, "int32")
    got = ops.convert_to_numpy(
        masks.draw(wanted, layer.generator, masks.BitSource(state), "float32")[slot]
    )
    expected = keyed.masks(wanted, 3, call)[slot].astype("float32")
    np.testing.assert_array_equal(got, expected)
    assert rate_at(rate, call) == {0: 0.1, 1: 0.1, 2: 0.3}.get(call, 0.65)


def test_seeded_masks_are_a_function_of_seed_and_call():
    ours = LSTM(H, policy="naive", seed=3)
    first, second = flat(ours(data(), training=True)), flat(ours(data(), training=True))
    assert ours.calls == 2
    assert not np.array_equal(first[0], second[0])
    ours.calls = 0
    assert_same(ours(data(), training=True), first)
    assert_same(ours(data(), training=True), second)


def test_unseeded_masks_follow_the_frameworks_seed():
    def outputs():
        keras.utils.set_random_seed(5)
        layer = LSTM(H, policy="naive")
        return flat([layer(data(), training=True), layer(data(), training=True)])

    first, second = outputs(), outputs()
    assert_same(first, second)
    assert not np.array_equal(first[0], first[1])


def test_evaluation_advances_no_random_state():
    for seed in (None, 3):
        ours = LSTM(H, policy="naive", seed=seed)
        ours(data())
        assert ours.calls == 0


def test_a_process_with_the_later_rows_draws_their_masks():
    whole = LSTM(H, policy="naive", seed=8)
    expected = flat(whole(data(), training=True))[0]
    part = LSTM(H, policy="naive", seed=8)
    part.build((B, T, D))
    part.set_weights(whole.get_weights())
    part.row_offset = 1
    np.testing.assert_allclose(flat(part(data()[1:], training=True))[0], expected[1:], atol=1e-6)


def test_stateful_calls_carry_the_whole_state_on():
    stateful = LSTM(H, policy="zaremba", seed=4, stateful=True)
    carried = LSTM(H, policy="zaremba", seed=4, return_state=True)
    first = flat(stateful(data(1), training=True))
    carried.build((B, T, D))
    carried.set_weights(stateful.get_weights())
    y, h, c = carried(data(1), training=True)
    assert_same(first, y)
    assert_same(stateful.states, [h, c])
    y, *_ = carried(data(2), training=True, initial_state=[h, c])
    assert_same(stateful(data(2), training=True), y)


def test_both_halves_of_bidirectional_get_masks_of_their_own():
    inner = LSTM(H, policy=dp.Policy(input=dp.drop(0.5)), seed=2, return_sequences=True)
    layer = keras.layers.Bidirectional(inner, merge_mode=None)
    layer.build((B, T, D))
    forward, backward = directions_of(layer)
    assert [half.placement for half in directions_of(layer)] == [inner.placement] * 2
    backward.set_weights(forward.get_weights())
    y, reverse = flat(layer(data(), training=True))
    flipped = flat(layer(data()[:, ::-1], training=True))
    assert not np.array_equal(y, flipped[1][:, ::-1])
    assert not np.array_equal(reverse, flipped[0][:, ::-1])


def test_bidirectional_does_not_run_past_the_masks():
    """On a GPU it would run both directions in one kernel of its own."""

    def may_fuse(**policy):
        layer = keras.layers.Bidirectional(LSTM(H, **policy))
        layer.build((B, T, D))
        if not hasattr(layer, "_can_attempt_fused_lstm"):
            pytest.skip("this Keras has no such kernel")
        return layer._can_attempt_fused_lstm(None)

    assert may_fuse()
    assert may_fuse(policy="none")
    assert not may_fuse(policy="zaremba")


def test_inside_its_own_loop_the_layer_may_use_cudnn(monkeypatch):
    monkeypatch.setattr(compiled, "may_use_fused_kernel", lambda *_: True)  # as if on a GPU
    seen = []
    original = keras.layers.LSTM.inner_loop

    def inner_loop(self, *args, **kwargs):
        seen.append(self.use_cudnn)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.layers.LSTM, "inner_loop", inner_loop)
    layer = LSTM(H, policy="zaremba")
    layer(data(), training=True)
    layer.use_cudnn = False
    layer(data(), training=True)
    assert seen == ["auto", False]
    assert layer.use_cudnn is None


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_other_dtypes_run_with_the_same_bits(dtype):
    for policy in ("zaremba", "naive"):
        layer = LSTM(H, policy=policy, seed=1, dtype=dtype)
        plain = LSTM(H, policy=policy, seed=1)
        got = layer(data(), training=True)
        plain.build((B, T, D))
        plain.set_weights(layer.get_weights())
        expected = flat(plain(data(), training=True))[0]
        assert keras.backend.standardize_dtype(got.dtype) == layer.compute_dtype
        got = ops.convert_to_numpy(ops.cast(got, "float32"))
        np.testing.assert_allclose(got, expected, atol=0.06)
        np.testing.assert_array_equal(got == 0, expected == 0)


def test_a_symbolic_chain_joins_into_one_stack():
    def chain(*policies):
        layers = [LSTM(H, return_sequences=True, **policy) for policy in policies]
        keras.Sequential([keras.Input((T, D)), *layers])
        return [(p.layer, p.first, p.last) for p in (layer.placement for layer in layers)]

    zaremba, naive = {"policy": "zaremba"}, {"policy": "naive"}
    assert chain(zaremba) == [(0, True, True)]
    assert chain(*[zaremba] * 3) == [(0, True, False), (1, False, False), (2, False, True)]
    depths = [LSTM(H, return_sequences=True, policy="zaremba") for _ in range(3)]
    keras.Sequential([keras.Input((T, D)), *depths])
    assert [layer.placement.depth for layer in depths] == [0, 1, 2]
    with pytest.raises(dp.PolicyError, match=r"stack=\(0, 2\) and stack=\(1, 2\)"):
        chain(zaremba, naive)
    inner = {"policy": dp.Policy(hidden=dp.drop(0.5))}
    assert chain(zaremba, inner) == [(0, True, True), (0, True, True)]
    said = {"policy": "zaremba", "stack": (0, 1)}
    assert chain(said, zaremba) == [(0, True, True), (0, True, True)]


def test_layers_join_through_layers_without_weights():
    low, high = (LSTM(H, return_sequences=True, policy="zaremba") for _ in range(2))
    keras.Sequential([keras.Input((T, D)), low, keras.layers.Activation("tanh"), high])
    assert [(p.layer, p.first, p.last) for p in (low.placement, high.placement)] == [
        (0, True, False),
        (1, False, True),
    ]


def test_a_bidirectional_that_feeds_a_policy_layer_must_say_where_it_stands():
    def model(**stack):
        inner = LSTM(H, return_sequences=True, policy="zaremba", **stack)
        start = keras.layers.Bidirectional(inner)(keras.Input((T, D)))
        return LSTM(H, policy="zaremba", stack=(1, 2) if stack else None)(start)

    with pytest.raises(dp.PolicyError, match=r"inside Bidirectional.*stack=\(0, 2\)"):
        model()
    model(stack=(0, 2))


@pytest.mark.parametrize(
    "drop",
    [
        keras.layers.Dropout(0.5),
        keras.layers.GaussianNoise(0.5),
        keras.layers.TimeDistributed(keras.layers.Dropout(0.5)),
        keras.layers.Lambda(lambda x: keras.random.dropout(x, 0.5), output_shape=(T, D)),
    ],
)
def test_dropout_between_two_policy_layers_is_refused(drop):
    low, high = (LSTM(H, return_sequences=True, policy="zaremba") for _ in range(2))
    with pytest.raises(dp.PolicyError, match=r"keras.layers.*second time"):
        keras.Sequential([keras.Input((T, D)), low, drop, high])


def test_two_layers_that_one_feeds_have_masks_of_their_own():
    low, a, b = (LSTM(H, return_sequences=True, policy="zaremba", seed=1) for _ in range(3))
    start = keras.Input((T, D))
    middle = low(start)
    keras.Model(start, [a(middle), b(middle)])
    assert [(p.layer, p.first, p.last) for p in (a.placement, b.placement)] == [
        (1, False, True),
        (2, False, True),
    ]


def test_a_layer_that_follows_itself_is_refused():
    layer = LSTM(H, return_sequences=True, policy="zaremba")
    middle = layer(keras.Input((T, H)))
    with pytest.raises(dp.PolicyError, match="follows itself"):
        layer(middle)


@pytest.mark.parametrize("use_cudnn", ["auto", False])
def test_bidirectional_evaluates_as_the_stock_layer_bit_for_bit(use_cudnn):
    stock, ours = (
        keras.layers.Bidirectional(kind(H, use_cudnn=use_cudnn, return_sequences=True, **policy))
        for kind, policy in ((keras.layers.LSTM, {}), (LSTM, {"policy": "naive"}))
    )
    stock.build((B, T, D))
    ours.build((B, T, D))
    ours.set_weights(stock.get_weights())
    assert_same(ours(data()), stock(data()))
    for half in directions_of(ours):
        assert vars(half)["use_cudnn"] == use_cudnn


def test_a_chain_that_is_broken_does_not_join():
    layers = [LSTM(H, return_sequences=True, policy="zaremba") for _ in range(2)]
    keras.Sequential([keras.Input((T, D)), layers[0], keras.layers.Dense(H), layers[1]])
    assert all(layer.placement == Placement(dp.zaremba()) for layer in layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "zaremba", "rate": 1.0}, r"\[0, 1\)"),
        ({"policy": "zaremba", "rate": float("nan")}, r"\[0, 1\)"),
        ({"policy": "zarema"}, "Did you mean 'zaremba'"),
        ({"policy": "zaremba", "seed": -1}, "seed must be"),
        ({"policy": "zaremba", "seed": 2**32}, "seed must be"),
        ({"policy": "zaremba", "dropout": 0.3}, "Received: dropout=0.3,"),
        ({"policy": "none", "recurrent_dropout": 0.3}, "recurrent_dropout=0.3"),
        ({"policy": "zaremba", "rate": [0.1, 0.2], "stack": (0, 1)}, "rates for 2 layers"),
        ({"rate": 0.3}, "rate goes with a policy"),
        ({"stack": (0, 2)}, "stack goes with a policy"),
        ({"policy": "zaremba", "stack": (2, 2)}, "do not fit into a stack of 2"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(dp.PolicyError, match=message):
        LSTM(H, **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRU(H, policy="rnndrop"), "GRU has no site 'cell'"),
        (lambda: GRU(H, policy=dp.zoneout()), r"no site 'cell_update'.*rate=\{'cell_update': 0\}"),
        (lambda: SimpleRNN(H, policy="semeniuta"), "SimpleRNN has no site 'candidate'"),
        (lambda: GRU(H, policy="zaremba", recurrent_dropout=0.1), "recurrent_dropout=0.1"),
        (
            lambda: RNN(keras.layers.LSTMCell(H, dropout=0.3), policy="zaremba"),
            "Received: dropout=0.3",
        ),
        (lambda: RNN(keras.layers.GRUCell(H), rate=0.3), "rate goes with a policy"),
    ],
)
def test_what_a_layer_does_not_have_is_refused(make, message):
    with pytest.raises(dp.PolicyError, match=message):
        make()


def test_rates_for_other_layers_than_there_are_show_in_training():
    """Only once the layers have joined is it known how many there are."""
    rate = {"input": 0.3, "between": [0.1, 0.2], "output": 0.4}
    low, high = (LSTM(H, return_sequences=True, policy="zaremba", rate=rate) for _ in range(2))
    model = keras.Sequential([keras.Input((T, D)), low, high])
    model(data(), training=True)
    with pytest.raises(dp.PolicyError, match="rates for 2 layers"):
        LSTM(H, policy="zaremba", rate=rate)(data(), training=True)


def test_a_padding_mask_is_not_kept_for_the_next_call():
    layer = LSTM(H, policy="naive", seed=1)
    layer(data(), training=True)
    layer.calls = 0
    plain = flat(layer(data(), training=True))[0]
    layer.calls = 0
    padded = flat(layer(data(), mask=ops.convert_to_tensor(MASK), training=True))[0]
    layer.calls = 0
    assert_same(layer(data(), training=True), plain)
    assert not np.array_equal(padded, plain)


@pytest.mark.parametrize("policy", ["zoneout", "variational", "weight_drop", "semeniuta"])
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_every_path_runs_in_narrow_floats(policy, dtype):
    untied = dp.variational(gates="untied")
    layer = LSTM(H, policy=untied if policy == "variational" else policy, seed=1, dtype=dtype)
    plain = LSTM(H, policy=layer.placement.policy, seed=1)
    for training in (True, False):
        got = layer(data(), training=training)
        plain.build((B, T, D))
        plain.set_weights(layer.get_weights())
        assert keras.backend.standardize_dtype(got.dtype) == layer.compute_dtype
        got = ops.convert_to_numpy(ops.cast(got, "float32"))
        np.testing.assert_allclose(got, flat(plain(data(), training=training))[0], atol=0.06)


def test_without_a_policy_native_dropout_stays():
    stock, ours = (kind(H, dropout=0.5, seed=3) for kind in (keras.layers.LSTM, LSTM))
    expected = stock(data(), training=True)
    ours.build((B, T, D))
    ours.set_weights(stock.get_weights())
    assert_same(ours(data(), training=True), expected)


@pytest.mark.parametrize("policy", ["zaremba", "weight_drop"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU before"])
def test_where_keras_has_a_kernel_for_all_steps_it_runs_under_the_masks(kind, policy, monkeypatch):
    stock, _, _ = KINDS[kind]
    _, ours = pair("states", kind, policy=policy, seed=1)
    x, asked = data(), []
    expected = ours(x, training=True)

    def kernel(layer, sequences, states, mask, **_):
        asked.append(layer)
        return keras.layers.RNN.inner_loop(layer, sequences, states, mask)

    monkeypatch.setattr(compiled, "may_use_fused_kernel", lambda *_: True)  # as if on a GPU
    monkeypatch.setattr(stock, "inner_loop", kernel)
    ours.calls = 0
    for left, right in zip(flat(ours(x, training=True)), flat(expected), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)
    assert len(asked) == 1
    inside = pair("states", kind, policy="variational")[1]
    inside(x, training=True)
    assert len(asked) == 1, "no kernel has masks inside the recurrence"


@pytest.mark.parametrize("more", [{}, {"zero_output_for_mask": True}], ids=["held over", "zeros"])
@pytest.mark.parametrize("form", ["last output", "states", "backwards", "unrolled"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_padded_steps_give_what_they_give_in_the_stock_layer(kind, form, more):
    """In the loop under a policy too: no mask drops anything here."""
    stock_kind, our_kind, others = KINDS[kind]
    stock, ours = (
        each(H, **FORMS[form], **others, **more, **policy)
        for each, policy in ((stock_kind, {}), (our_kind, {"policy": dp.zaremba(1e-9)}))
    )
    stock.build((B, T, D))
    ours.build((B, T, D))
    ours.set_weights(stock.get_weights())
    # Of the second sample nothing is there at first, of the third in between.
    mask = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 1, 0]], bool)
    expected, got = (flat(each(data(), mask=mask, training=True)) for each in (stock, ours))
    for left, right in zip(got, expected, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)
