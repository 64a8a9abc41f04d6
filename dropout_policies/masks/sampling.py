"""Masks in evaluation, and masks that are recorded from calls and put back into calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..argument_checks import check_integer, check_seed, short_repr
from ..errors import PolicyError
from ..placement.adapters import Adapter, find_adapter
from . import nested
from .keyed import derived_seed
from .tape import Player, Record, Recorder, Tape


class PolicyLayer(Protocol):
    """A layer under a policy, as an adapter provides it.

    `sample` switches masks on in evaluation too, with the keys of a seed. It returns what `resume`
    needs to restore the layer's own masks, as if nothing had happened. With `hold`, every call has
    the masks of call 0. Rates on a schedule do not advance meanwhile.
    """

    tape: Tape | None

    def sample(self, seed: int, hold: bool) -> Any: ...

    def resume(self, before: Any) -> None: ...


def policy_layers(model: Any) -> tuple[Adapter, dict[str, PolicyLayer]]:
    """Return the adapter of a model, and its layers under a policy by name.

    Raises:
        PolicyError: the model has no such layer.
    """
    adapter = find_adapter(model)
    layers = adapter.under_policy(model)
    if not layers:
        raise PolicyError(
            f"{type(model).__name__} has no layer under a policy. Call dp.apply(model, ...) "
            "first, or build it from layers with a policy."
        )
    return adapter, layers


@contextmanager
def monte_carlo(model: Any, *, hold: bool = False, seed: int | None = None) -> Iterator[None]:
    """Apply masks in evaluation too: each call is then a sample of the network's prediction.

    Gal & Ghahramani 2016, section 4.1. When the block ends, each layer continues with the masks
    that it would have drawn anyway.

    This affects only layers under a policy, not the framework's own dropout layers.

    Args:
        model: a model with layers under a policy.
        hold: use the same masks in all calls. The masks of a sample then depend only on its row in
            the batch, so that a whole test set runs through the same network.
        seed: an integer in [0, 2**32) for the masks. None: draw one from the framework's generator.

    Raises:
        PolicyError: the model has no layer under a policy, its calls share masks already (call
            `monte_carlo` outside of `sequence` and `hold`), `hold` is true and the model has a
            PyTorch cell that runs step by step, or the seed is out of range.
    """
    adapter, layers = policy_layers(model)
    chosen = adapter.random_seed() if seed is None else check_seed(seed)
    before: list[tuple[PolicyLayer, Any]] = []
    try:
        for number, layer in enumerate(layers.values()):
            # Each layer has its own seed: two stacks may have layers with the same number.
            before.append((layer, layer.sample(derived_seed(chosen, number), hold)))
        adapter.changed(model)
        yield
    finally:
        for layer, memory in before:
            # If the policy has been removed meanwhile, there is nothing to restore.
            if getattr(layer, "placement", None) is not None:
                layer.resume(memory)
        adapter.changed(model)


class Samples(NamedTuple):
    """The mean of several samples and their spread (standard deviation), element by element.

    Each has the structure of a sample: an array, or dicts, lists and tuples of arrays.

    Args:
        mean: the mean.
        spread: the standard deviation.
    """

    mean: Any
    spread: Any


def average(
    model: Any, probabilities: Callable[[], Any], samples: int = 20, *, seed: int | None = None
) -> Samples:
    """Average the predictions of a network over several sets of masks.

    ```python
    mean, spread = dp.average(model, lambda: model(x).softmax(-1), samples=50)
    ```

    Args:
        model: a model with layers under a policy, in evaluation mode.
        probabilities: a function without arguments that runs the model and returns an array of
            any framework, or dicts, lists and tuples of arrays, also nested.
        samples: K, the number of sets of masks, at least 1.
        seed: as in `monte_carlo`.

    Returns:
        The mean and the spread. Both have the structure, the shapes and the framework of what
        `probabilities` returns.

    Raises:
        PolicyError: `samples` is below 1, the model has no layer under a policy, the seed is out
            of range, or the results of `probabilities` cannot be averaged or differ in structure.
    """
    samples = check_integer(samples, "samples", 1)
    if not callable(probabilities):
        raise PolicyError(
            f"average takes a function that runs the model: dp.average(model, lambda: model(x)). "
            f"Received: probabilities={short_repr(probabilities)}"
        )
    with monte_carlo(model, seed=seed):
        first = probabilities()
        running = [_RunningMean(where, leaf) for where, leaf in nested.leaves(first, first)]
        for _ in range(1, samples):
            sample = nested.leaves(probabilities(), first)
            for each, (_, leaf) in zip(running, sample, strict=True):
                each.add(leaf)
    mean = nested.rebuild(first, iter([each.mean for each in running]))
    return Samples(mean, nested.rebuild(first, iter([each.spread() for each in running])))


class _RunningMean:
    """The mean and the spread of one array's samples so far (Welford 1962).

    Args:
        where: the place of the array in the output, for errors.
        leaf: the first sample.
    """

    def __init__(self, where: str, leaf: Any) -> None:
        self.where, self.shape, self.count = where, _shape(leaf), 1
        if "complex" in str(getattr(leaf, "dtype", type(leaf))):
            raise PolicyError(
                f"{nested.output_name(where)} is complex, and a standard deviation is not defined "
                "for each element. Average its real and imaginary part, or its absolute value."
            )
        with self._arithmetic(leaf):
            self.mean = leaf * 1.0  # integers and booleans are averaged as fractions
            self.squares = self.mean * 0.0

    def add(self, leaf: Any) -> None:
        """Add one more sample."""
        if _shape(leaf) != self.shape:
            raise PolicyError(
                f"{nested.output_name(self.where)} has another shape in another call, and cannot "
                f"be averaged. Received: {self.shape}, then {_shape(leaf)}"
            )
        self.count += 1
        with self._arithmetic(leaf):
            sample = leaf * 1.0
            distance = sample - self.mean
            self.mean = self.mean + distance / self.count
            self.squares = self.squares + distance * (sample - self.mean)

    def spread(self) -> Any:
        with self._arithmetic(self.squares):
            return (self.squares / self.count) ** 0.5

    @contextmanager
    def _arithmetic(self, leaf: Any) -> Iterator[None]:
        """Turn any error of the arithmetic into one that names the output."""
        try:
            yield
        except Exception as error:  # each framework has its own
            raise PolicyError(
                f"{nested.output_name(self.where)} cannot be averaged "
                f"({type(error).__name__}: {error}). Return arrays of numbers, or dicts, lists and "
                f"tuples of them. Received: {type(leaf).__name__}"
            ) from error


def _shape(leaf: Any) -> tuple[Any, ...]:
    return tuple(getattr(leaf, "shape", ()))


@contextmanager
def record(model: Any) -> Iterator[Record]:
    """Record the masks of calls as arrays.

    ```python
    with dp.record(model) as masks:
        model(x)
    masks["rnn"][0][dp.Slot(dp.Site.INPUT, layer=0, direction=0)]  # [T, B, D]
    ```

    Args:
        model: a model with layers under a policy.

    Yields:
        A dict from the name of each layer to a list of its calls. A call is a dict from `Slot` to
        a NumPy array, which has the shape that the plan gives (see `PlannedMask`): `[T, B, F]` for
        masks on values, with T = 1 if a mask lasts longer than a step.

    Raises:
        PolicyError: the model has no layer under a policy.
    """
    adapter, layers = policy_layers(model)
    calls: Record = {name: [] for name in layers}
    tapes = {name: Recorder(calls[name], layer.tape) for name, layer in layers.items()}
    with _with_tapes(adapter, model, layers, tapes):
        yield calls


@contextmanager
def replay(
    model: Any, masks: Mapping[str, Sequence[Mapping[Any, np.ndarray[Any, Any]]]]
) -> Iterator[None]:
    """Use given masks in calls instead of drawing new ones, in evaluation too.

    Args:
        model: the model that the masks were recorded from, or another one with the same plan.
        masks: what `record` returned, changed as you like. Layers that it does not name draw
            their own masks.

    Raises:
        PolicyError: `masks` does not have the form that `record` returns, it names an unknown
            layer, or the masks of a layer are recorded or replaced already. During a call: a mask
            is missing, not planned, of another shape or not an array of numbers, or there are more
            calls than masks. At the end: there were fewer calls than masks.
    """
    adapter, layers = policy_layers(model)
    recorded = list(masks.values()) if isinstance(masks, Mapping) else [None]
    if not all(isinstance(calls, list | tuple) for calls in recorded):
        raise PolicyError(
            f"replay takes what record gives: for each layer's name a list with its calls, each a "
            f"dict from dp.Slot to an array. Received: masks={short_repr(masks)}"
        )
    unknown = [name for name in masks if name not in layers]
    if unknown:
        raise PolicyError(
            f"There is no layer under a policy called {', '.join(map(short_repr, unknown))}. "
            f"There are: {', '.join(map(repr, layers))}."
        )
    taped = [name for name in masks if layers[name].tape is not None]
    if taped:
        raise PolicyError(
            f"{taped[0]}: its masks are already recorded or replayed. Replay first, and record "
            "inside: with dp.replay(model, masks), dp.record(model) as again: ..."
        )
    players = {name: Player(name, calls) for name, calls in masks.items()}
    with _with_tapes(adapter, model, layers, players):
        yield
    for player in players.values():
        player.check_end()


@contextmanager
def _with_tapes(
    adapter: Adapter, model: Any, layers: Mapping[str, PolicyLayer], tapes: Mapping[str, Tape]
) -> Iterator[None]:
    before = [(layers[name], layers[name].tape) for name in tapes]
    for name, tape in tapes.items():
        layers[name].tape = tape
    adapter.changed(model)
    try:
        yield
    finally:
        for layer, its_own in before:
            if getattr(layer, "placement", None) is not None:
                layer.tape = its_own
        adapter.changed(model)
