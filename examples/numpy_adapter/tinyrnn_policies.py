"""Dropout policies on tinyrnn: an adapter in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tinyrnn
from tinyrnn import Array, State, sigmoid

from dropout_policies.adapter import (
    Applied,
    ApplyRequest,
    Geometry,
    LayerUse,
    Parameter,
    Placement,
    Plan,
    PolicyError,
    RecurrentLayer,
    Site,
    Skipped,
    Slot,
    SwappedLayer,
    Tape,
    Touched,
    Wiring,
    cell_types,
    check_rates_are_used,
    check_sites,
    find_stacks,
    keyed,
    place_layers,
    plan_at_call,
    plan_in_evaluation,
    plan_masks,
    rate_at,
)

SITES = cell_types.LSTM.sites
"""Where `recurrence` lets noise fall; a policy with a site that is not among them is refused."""


def draw(plan: Plan, seed: int | None, call: int) -> dict[Slot, Array]:
    """The masks of a call, each of its planned shape: keyed, or from the framework's generator."""
    if seed is not None:
        return keyed.masks(plan, seed, call)
    drawn = {}
    for slot, mask in plan.items():
        rate = rate_at(mask.rate, call)
        keep = tinyrnn.generator.random(mask.shape) >= rate
        drawn[slot] = np.where(keep, *mask.rule.values(rate))
    return drawn


def means(plan: Plan, call: int) -> dict[Slot, Array]:
    """What stands for the masks in evaluation: the mean of each, where that is not 1."""
    return {
        slot: np.full(mask.shape, mask.rule.mean(rate_at(mask.rate, call)))
        for slot, mask in plan_in_evaluation(plan).items()
    }


def into_gates(value: Array, weight: Array, mask: Array | None) -> Array:
    """What a value `[B, F]` brings to the gates `[B, 4*H]`, under one mask for all of them
    `[B, F]`, or one for each, side by side `[B, 4*F]`."""
    if mask is None:
        return value @ weight.T
    masks = np.split(mask, mask.shape[-1] // value.shape[-1], axis=-1)
    parts = zip(masks, np.split(weight, len(masks)), strict=True)
    return np.concatenate([(value * m) @ w.T for m, w in parts], axis=-1)


def recurrence(
    layer: tinyrnn.LSTM, x: Array, state: State, masks: Mapping[Site, Array]
) -> tuple[Array, State]:
    """x `[T, B, D]` to y `[T, B, H]` and the last state, under masks `[T or 1, B, F]`."""
    whole = np.ones((1, 1, 1))
    w_ih = layer.w_ih * masks.get(Site.INPUT_WEIGHT, whole)[0]
    w_hh = layer.w_hh * masks.get(Site.RECURRENT_WEIGHT, whole)[0]
    h, c = state
    y = np.empty((*x.shape[:2], layer.units))
    for t in range(len(x)):
        m = {site: mask[t if len(mask) > 1 else 0] for site, mask in masks.items()}  # [B, F]
        entry = m.get(Site.INPUT, m.get(Site.BETWEEN))
        gates = into_gates(x[t], w_ih, entry) + into_gates(h, w_hh, m.get(Site.HIDDEN)) + layer.b
        i, f, g, o = np.split(gates, 4, axis=-1)
        new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g) * m.get(Site.CANDIDATE, 1.0)
        new_c = new_c * m.get(Site.CELL, 1.0)
        new_h = sigmoid(o) * np.tanh(new_c) * m.get(Site.STATE, 1.0)
        stay_h, stay_c = m.get(Site.HIDDEN_UPDATE, 0.0), m.get(Site.CELL_UPDATE, 0.0)
        h = stay_h * h + (1.0 - stay_h) * new_h
        c = stay_c * c + (1.0 - stay_c) * new_c
        y[t] = h * m.get(Site.OUTPUT, 1.0)  # what leaves; the h that is carried on is whole
    return y, (h, c)


@dataclass
class MaskKeys:
    """What the masks of a layer's calls are drawn from."""

    seed: int | None  # for keyed masks; None for the framework's generator
    call: int = 0  # how many there were
    hold: bool = False  # every call has the masks of the first
    always: bool = False  # masks fall in evaluation too
    rates_at: int | None = None  # the call whose rates hold, where a schedule is not to move


class PolicyLSTM(tinyrnn.LSTM):
    """A `tinyrnn.LSTM` under a policy: `apply` makes one of a layer by a swap of its class."""

    placement: Placement
    keys: MaskKeys
    tape: Tape | None

    def __call__(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        start = self.start(x, state)  # refuses a wrong width before a mask can hide it
        masks = self.masks(*x.shape[:2])
        return recurrence(self, x, start, masks) if masks else super().__call__(x, state)

    def masks(self, steps: int, batch: int) -> dict[Site, Array]:
        """The masks of a call, or what stands for them in evaluation; the call is counted."""
        keys, tape = self.keys, self.tape
        plan = plan_masks(
            self.placement, Geometry(self.inputs, self.units, batch=batch, steps=steps)
        )
        if keys.rates_at is not None:
            plan = plan_at_call(plan, keys.rates_at)
        call = 0 if keys.hold else keys.call
        if not (self.training or keys.always or (tape is not None and tape.plays)):
            drawn = means(plan, call)
        elif tape is None:
            drawn = draw(plan, keys.seed, call)
        else:
            drawn = tape.masks(plan, lambda: draw(plan, keys.seed, call), np.asarray, np.asarray)
        keys.call += self.training or keys.always
        return {slot.site: mask for slot, mask in drawn.items()}

    def sample(self, seed: int, hold: bool) -> MaskKeys:
        """Have masks fall in evaluation too, keyed by a seed; see `PolicyLayer`."""
        before = self.keys
        rates_at = before.call if before.rates_at is None else before.rates_at
        self.keys = MaskKeys(seed, hold=hold, always=True, rates_at=rates_at)
        return before

    def resume(self, before: MaskKeys) -> None:
        """Put the layer's own keys back."""
        self.keys = before

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, policy={self.placement.policy.name!r})"


def take_off(layer: PolicyLSTM) -> None:
    """Make a layer the stock one again."""
    layer.__class__ = tinyrnn.LSTM
    for name in PolicyLSTM.__annotations__:
        del vars(layer)[name]


class RestorableLayer(SwappedLayer):
    """A layer as it was, and the way back."""

    def restore(self) -> None:
        """Put the layer back."""
        if isinstance(self.layer, PolicyLSTM):
            take_off(self.layer)


def layers_of(model: Any) -> dict[str, tinyrnn.Layer]:
    """The layers of a model by name, in the order in which values flow; or a layer that is one."""
    return model.layers if isinstance(model, tinyrnn.Model) else {"model": model}


def find_layers(model: Any) -> tuple[list[RecurrentLayer], list[Skipped]]:
    """The layers that a policy can go on, and those that it cannot, with the reason."""
    names: dict[tinyrnn.Layer, list[str]] = {}
    for name, layer in layers_of(model).items():
        names.setdefault(layer, []).append(name)
    found, skipped = [], []
    for layer, (name, *aliases) in names.items():
        if type(layer) in (tinyrnn.LSTM, PolicyLSTM):
            found.append(RecurrentLayer(name, layer, "tinyrnn.LSTM", aliases=tuple(aliases)))
        elif isinstance(layer, tinyrnn.LSTM):
            why = "a subclass, whose own steps would be lost"
            skipped.append(Skipped(name, type(layer).__name__, why))
    return found, skipped


def uses(model: Any, found: Sequence[RecurrentLayer]) -> list[LayerUse]:
    """Where layers run, and what feeds each there: the one before it, if that is recurrent too."""
    items = {item.layer: item for item in found}
    made: list[LayerUse] = []
    before: list[LayerUse] = []
    for layer in layers_of(model).values():
        before = [LayerUse(items[layer], before)] if layer in items else []
        made += before
    return made


def check_is_free(model: Any, request: ApplyRequest) -> None:
    """Make sure that no layer is under a policy already.

    Raises:
        PolicyError: one is.
    """
    names = ", ".join(policy.name for policy in request.policies)
    for name, layer in ADAPTER.under_policy(model).items():
        raise PolicyError(
            f"{name} (tinyrnn.LSTM) is under policy {layer.placement.policy.name!r} already. Call "
            f"dropout_policies.remove(model) before applying {names}."
        )


def nothing_found(model: Any, skipped: Sequence[Skipped]) -> PolicyError:
    """What to say of a model without a layer for a policy."""
    others = "".join(f" It has {left.name} ({left.kind}): {left.why}." for left in skipped)
    return PolicyError(
        f"{model!r} has no recurrent layer that a policy can go on (tinyrnn.LSTM).{others}"
    )


class Probe:
    """A layer or model under audit; see `Probe`."""

    embedding = None

    def __init__(self, model: Any) -> None:
        self.model, self.name = model, repr(model)
        self.layers = list(layers_of(model).values())
        self.features = self.layers[0].inputs
        self.takes_states = isinstance(model, tinyrnn.LSTM)

    def __enter__(self) -> Probe:
        self._modes = [(layer, layer.training) for layer in self.layers]
        self._values = [(a, a.copy()) for a in self.model.parameters().values()]
        self._noise = self.noise()
        return self

    def __exit__(self, *error: object) -> None:
        self.replay(self._noise)
        for array, value in self._values:
            array[...] = value
        for layer, training in self._modes:
            layer.training = training

    def parameters(self) -> list[Parameter]:
        return [Parameter(name, a.shape, False) for name, a in self.model.parameters().items()]

    def run(
        self,
        weights: Mapping[str, Array],
        x: Array,
        batch: int,
        states: Sequence[Array] | None,
        training: bool,
    ) -> Array:
        own = self.model.parameters()
        for name, value in weights.items():
            own[name][...] = value
        self.model.train(training)
        given = [tuple(part[0] for part in states)] if states else []  # from [1, B, H] each
        found = self.model(np.repeat(x[:, None], batch, axis=1), *given)
        y: Array = found[0] if isinstance(found, tuple) else found
        return y

    def noise(self) -> Any:
        layers = ADAPTER.under_policy(self.model).values()
        return tinyrnn.generator.bit_generator.state, [(x, replace(x.keys)) for x in layers]

    def replay(self, noise: Any) -> None:
        tinyrnn.generator.bit_generator.state, layers = noise
        for layer, keys in layers:
            layer.keys = replace(keys)


class TinyAdapter:
    """The tinyrnn side of `dropout_policies`; see `Adapter`."""

    precedence = 0

    def owns(self, model: Any) -> bool:
        return isinstance(model, tinyrnn.Model | tinyrnn.Layer)

    def apply(self, model: Any, request: ApplyRequest) -> Applied:
        found, skipped = find_layers(model)
        check_is_free(model, request)
        if not found:
            raise nothing_found(model, skipped)
        selection = request.select(found, embeddings=(), sites_of=lambda _: SITES)
        for item, policy in selection.layers.items():
            check_sites(policy, f"{item.name} ({item.kind})", SITES)
        groups = find_stacks(selection.layers, uses(model, found), (), request.stacks)
        places = place_layers(selection.layers, groups)
        sizes = [(places[item], item.layers) for item in places]
        notes = check_rates_are_used(request, sizes, embeddings=False)
        # Nothing has been changed so far, and nothing raises from here on.
        before = [RestorableLayer(item.name, item.layer, PolicyLSTM) for item in places]
        for item, placement in places.items():
            item.layer.__class__ = PolicyLSTM
            vars(item.layer).update(placement=placement, keys=MaskKeys(request.seed), tape=None)
        rows = [[member.item for member in members] for members in groups]
        touched = [[Touched(i.name, i.kind, i.layers, places[i]) for i in row] for row in rows]
        left_out = [*skipped, *selection.skipped]
        return Applied(request.policies, touched, left_out, before, notes=notes)

    def wiring(self, model: Any, example: Any) -> Wiring:  # noqa: ARG002 - a chain shows all
        found, skipped = find_layers(model)
        if not found:
            raise nothing_found(model, skipped)
        return Wiring(found, uses(model, found))

    def remove(self, model: Any) -> None:
        for layer in self.under_policy(model).values():
            take_off(layer)

    def under_policy(self, model: Any) -> dict[str, PolicyLSTM]:
        return {n: x for n, x in layers_of(model).items() if isinstance(x, PolicyLSTM)}

    def random_seed(self) -> int:
        return int(tinyrnn.generator.integers(2**32))

    def changed(self, model: Any) -> None:
        """Nothing is compiled here."""

    def probe(self, model: Any) -> Probe:
        return Probe(model)


ADAPTER = TinyAdapter()
