"""Training calls on two replicas or devices, run as a program of its own: how many devices there
are has to be said before a backend starts. Prints what came out as JSON."""

import json
import sys

import keras
import numpy as np
from dropout_policies_keras import LSTM, Embedding
from keras import ops

import dropout_policies as dp

B, T, D, H = 4, 3, 2, 16
ROWS = dp.Policy(output=dp.drop(0.5))
SCHEDULE = dp.Policy(output=dp.drop(dp.schedule({0: 0.2, 1: 0.8})))
WORDS = dp.Policy(embedding=dp.drop(0.5, per="sequence"))
X = np.ones((B, T, D), "float32")
Y = np.zeros((B, T, H), "float32")


def model(policy=ROWS, seed=None, kind=LSTM):
    keras.utils.set_random_seed(0)
    if kind is Embedding:
        layer = Embedding(4, H, policy=policy, seed=seed, name="rnn")
        some = keras.Sequential([keras.Input((T,), dtype="int32"), layer])
    else:
        layer = LSTM(H, return_sequences=True, policy=policy, seed=seed, name="rnn")
        some = keras.Sequential([keras.Input((T, D)), layer])
    some.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return some


def kept(y):
    return np.asarray(ops.convert_to_numpy(y)) != 0


def error_of(function):
    try:
        function()
    except Exception as error:
        return str(error)
    return "no error"


def on_tensorflow():
    import tensorflow as tf

    tf.get_logger().setLevel("CRITICAL")
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def in_(strategy, *arguments):
        with strategy.scope():
            return model(*arguments)

    def replicas(some, x, eager=False):
        """Which outputs of a training call each replica keeps."""

        def run(x):
            return two.run(lambda x: some(x, training=True), args=(x,))

        results = (run if eager else tf.function(run, autograph=False))(tf.constant(x))
        return [kept(y) for y in two.experimental_local_results(results)]

    def differ(some, x=X, **how):
        (a, b), (c, _) = replicas(some, x, **how), replicas(some, x, **how)
        return not (a == b).all(), not (a == c).all()

    def fitted(some):
        return some.fit(X, Y, batch_size=B, epochs=3, shuffle=False, verbose=0).history["loss"]

    def sampled(some):
        with dp.monte_carlo(some, seed=1):
            return some.predict(X, verbose=0)

    def recorded(some):
        with dp.record(some):
            replicas(some, X, eager=True)

    def scheduled():
        some = in_(two, SCHEDULE)
        shares = [np.mean(replicas(some, np.ones((64, T, D), "float32"))) for _ in "12"]
        return [*map(float, shares), some.layers[-1].calls]

    seeded, in_scope = in_(two, ROWS, 1), in_(two, ROWS, 1)
    refused = {
        "run": error_of(lambda: replicas(seeded, X)),
        "eager": error_of(lambda: replicas(seeded, X, eager=True)),
        "fit": error_of(lambda: fitted(seeded)),
        "words": error_of(lambda: replicas(in_(two, WORDS, 1, Embedding), np.ones((B, T)))),
        "with a schedule": error_of(lambda: replicas(in_(two, SCHEDULE, 1), X)),
        "samples": error_of(lambda: sampled(in_(two))),
        "records": error_of(lambda: recorded(in_(two))),
    }
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    mirrored_one = tf.distribute.MirroredStrategy(["CPU:0"])
    return {
        "refused": refused,
        "calls": seeded.layers[-1].calls,
        "own masks": {
            "compiled": differ(in_(two)),
            "eager": differ(in_(two), eager=True),
            "schedule": differ(in_(two, SCHEDULE)),
            "words": differ(in_(two, WORDS, None, Embedding), np.ones((B, T), "int32")),
        },
        "schedule": scheduled(),
        "alike": {
            "weights": [fitted(in_(two, dp.weight_drop(), 1)), fitted(model(dp.weight_drop(), 1))],
            "one device": [fitted(in_(one, ROWS, 1)), fitted(model(ROWS, 1))],
            "one replica": [fitted(in_(mirrored_one, ROWS, 1)), fitted(model(ROWS, 1))],
            "outside of run": [
                ops.convert_to_numpy(each(X, training=True)).tolist()
                for each in (in_scope, model(ROWS, 1))
            ],
            "evaluation": [
                seeded.predict(X, verbose=0).tolist(),
                model().predict(X, verbose=0).tolist(),
            ],
        },
    }


def on_jax():
    import jax
    from jax.sharding import AxisType, PartitionSpec

    assert jax.device_count() == 2
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))
    halves = X.reshape(2, B // 2, T, D)

    def states(some):
        of = some.trainable_variables, some.non_trainable_variables
        return ([v.value for v in each] for each in of)

    def outputs(some, how, x=halves, others=None, form=lambda f: f):
        weights, own = states(some)
        others = own if others is None else others

        def call(others, x):
            return some.stateless_call(weights, others, x, training=True)

        if how == "pmap":
            return jax.pmap(form(call), in_axes=(None, 0))(others, x)
        if how == "pmap of states":
            copies = [np.stack([other] * 2) for other in others]
            return jax.pmap(form(call))(copies, x)
        rows, all_of_it = PartitionSpec("rows"), PartitionSpec()
        mapped = jax.shard_map(
            form(call),
            mesh=mesh,
            in_specs=(all_of_it, rows),
            out_specs=(rows, all_of_it),
            check_vma=False,  # with it no layer of Keras runs, of which h starts at zeros
        )
        y, new = jax.jit(mapped)(others, np.concatenate(x))
        return y.reshape(2, -1, *y.shape[1:]), new

    def differ(how, policy=ROWS, kind=LSTM, x=halves):
        some = model(policy, None, kind)
        (a, b), new = outputs(some, how, x)
        others = [each[0] if how != "shard_map" else each for each in new]
        (c, _), _ = outputs(some, how, x, others)
        return not (kept(a) == kept(b)).all(), not (kept(a) == kept(c)).all()

    def whole(some):
        return np.asarray(ops.convert_to_numpy(some(X, training=True)))

    def scheduled():
        """What each of two calls keeps, and how many calls are counted."""
        some, x, others, shares = model(SCHEDULE), np.ones((2, 64, T, D), "float32"), None, []
        for _ in "12":
            y, others = outputs(some, "pmap", x, others)
            others = [each[0] for each in others]
            shares.append(float(np.mean(kept(y))))
        return [*shares, int(others[0][1])]

    ways = ["pmap", "pmap of states", "shard_map"]
    seeded, words = model(ROWS, 1), np.ones((2, B // 2, T), "int32")
    refused = {how: error_of(lambda how=how: outputs(seeded, how)) for how in ways}
    refused |= {
        "compiled before": error_of(lambda: outputs(seeded, "pmap", form=jax.jit)),
        "words": error_of(lambda: outputs(model(WORDS, 1, Embedding), "pmap", words)),
    }
    one = jax.pmap(lambda x: seeded.stateless_call(*states(seeded), x, training=True)[0])
    weights = model(dp.weight_drop(), 1)
    return {
        "refused": refused,
        "calls": seeded.layers[-1].calls,
        "own masks": {
            **{how: differ(how) for how in ways},
            "words": differ("pmap", WORDS, Embedding, words),
            "schedule": differ("pmap", SCHEDULE),
        },
        "schedule": scheduled(),
        "alike": {
            "weights": [
                np.concatenate(outputs(weights, "pmap")[0]).tolist(),
                whole(weights).tolist(),
            ],
            "one device": [one(X[None])[0].tolist(), whole(seeded).tolist()],
        },
    }


if __name__ == "__main__":
    found = {"tensorflow": on_tensorflow, "jax": on_jax}[keras.backend.backend()]()
    sys.stdout.write(json.dumps(found))
