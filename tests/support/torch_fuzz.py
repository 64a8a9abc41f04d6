"""Random calls of the PyTorch layers, whose tensors lie in memory in any way: as the layer runs
them, by the plain loop, and by the stock layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dropout_policies as dp
from dropout_policies.masks.tape import Record
from dropout_policies.policies.sites import UPDATES

from .torch_fuzz_calls import TOLERANCES, Call, Tensors, Wrong
from .torch_fuzz_run import (
    REFUSALS,
    Outcome,
    build,
    forward,
    leaves,
    measure,
    plain_loop,
    plain_tensors,
    tensors_of,
    threads,
)
from .torch_layouts import FAULTS, MASK_LAYOUTS, plain


def check_close(call: Call, what: str, ours: Tensor, theirs: Tensor) -> None:
    """Make sure that two results are the same, to rounding."""
    tolerance = TOLERANCES[call.autocast or call.dtype]
    ours, theirs = plain(ours, torch.float64), plain(theirs, torch.float64)
    assert ours.shape == theirs.shape, what
    if theirs.numel() == 0:
        return
    most = tolerance * (1.0 + theirs.abs().max())
    distance = (ours - theirs).abs().max()
    assert distance <= most, (
        f"{what}: {float(distance):.3g} apart, of {float(theirs.abs().max()):.3g}"
    )


def check_outcomes(call: Call, ours: Outcome, theirs: Outcome) -> None:
    """Make sure that a call gave the reference's outputs and gradients."""
    for name in call.outputs:
        check_close(call, name, ours.outputs[name], theirs.outputs[name])
    if ours.refused is not None:
        return
    passes = {"gradient": (ours.grads, theirs.grads)}
    if ours.again:
        second = theirs.again if call.backward == "second order" else theirs.grads
        passes["first gradient"] = (ours.again, second)
    for what, (found, expected) in passes.items():
        for name in found.keys() | expected.keys():
            some = found.get(name, expected.get(name))
            nothing = torch.zeros_like(plain(some))
            check_close(
                call, f"{what} of {name}", found.get(name, nothing), expected.get(name, nothing)
            )


def _simple(call: Call) -> Call:
    """The call as a reference makes it."""
    return replace(call, owner="layer", autocast=None, dtype=torch.float64)


def equals_plain_loop(call: Call) -> None:
    """Hold a call to the plain loop in double precision on plain copies of its tensors."""
    tensors = tensors_of(call)
    simple = _simple(call)
    copies = plain_tensors(call, tensors)
    reference = build(simple, copies)
    with plain_loop(), dp.record(reference) as drawn:
        expected = measure(reference, simple, copies, reference=True)
    layer = build(call, tensors)
    found = _measured(layer, call, tensors, _masks_put_in(layer, call, drawn))
    if found is not None:
        check_outcomes(call, found, expected)


def _measured(layer: nn.Module, call: Call, tensors: Tensors, masks: Any) -> Outcome | None:
    """What a call gives in the context that puts its masks in; or None where neither the layer nor
    the stock one has half precision."""
    try:
        with masks:
            return measure(layer, call, tensors)
    except RuntimeError:
        half = call.autocast or call.dtype
        if half in (torch.float32, torch.float64):
            raise
        given = tensors_of(call)
        with pytest.raises(RuntimeError):
            measure(build(call, given, stock=True), call, given)
        return None


def _masks_put_in(layer: nn.Module, call: Call, drawn: Record) -> Any:
    if call.masks is None:
        return nullcontext()
    lay = MASK_LAYOUTS[call.masks]
    return _replayed(
        layer,
        {
            name: [{slot: lay(mask) for slot, mask in masks.items()} for masks in each]
            for name, each in drawn.items()
        },
    )


def _replayed(layer: nn.Module, masks: Mapping[str, Any]) -> Any:
    """The context in which these are a layer's masks; where there are none, one of no effect."""
    there = any(each for made in masks.values() for each in made)
    return dp.replay(layer, masks) if there else nullcontext()


def whole(drawn: Record) -> Record:
    """Masks of the same shapes that keep everything."""
    return {
        name: [
            {
                slot: np.zeros_like(mask) if slot.site in UPDATES else np.ones_like(mask)
                for slot, mask in masks.items()
            }
            for masks in each
        ]
        for name, each in drawn.items()
    }


def equals_stock_under_whole_masks(call: Call) -> None:
    """Hold a call, all of whose masks keep everything, to the stock layer in double precision."""
    tensors = tensors_of(call)
    simple = _simple(call)
    copies = plain_tensors(call, tensors)
    reference_layer = build(simple, copies)
    expected = measure(build(simple, copies, stock=True), simple, copies, reference=True)
    layer = build(call, tensors)
    with plain_loop(), dp.record(reference_layer) as drawn:
        forward(reference_layer, simple, copies)
    found = _measured(layer, call, tensors, _replayed(layer, whole(drawn)))
    if found is not None:
        check_outcomes(call, found, expected)


STILL = ("no policy", "rate 0", "evaluation")
"""When a layer is the stock one, bit for bit."""


def equals_stock_exactly(call: Call, still: str) -> None:
    """Hold a call under no mask to the stock layer's on the same tensors, bit for bit.

    Args:
        call: the call.
        still: one of `STILL`; "rate 0" stands for an evaluation that is not the stock layer's.
    """
    if call.kind == "LSTM" and call.dtype is not torch.float64:
        # oneDNN's LSTM reads wrong numbers where what it saved comes back in another layout.
        call = replace(call, saved=None)
    policy, more = call.policy, {}
    if still == "evaluation" and policy.evaluation != "identity":
        still = "rate 0"
    if still == "no policy":
        more = {"policy": None, "seed": None}
    elif still == "rate 0":
        more = {"policy": policy.with_rates(0.0) if policy else policy}

    def attempt(stock: bool) -> Outcome | Exception:
        tensors = tensors_of(call)
        try:
            layer = build(call, tensors, stock, **({} if stock else more))
            return measure(layer.train(still != "evaluation"), call, tensors)
        except REFUSALS as error:
            return error

    theirs, ours = attempt(True), attempt(False)
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), (ours, theirs)
        return
    assert not isinstance(ours, Exception), ours
    assert type(ours.refused) is type(theirs.refused), (ours.refused, theirs.refused)
    for found, expected in (
        (ours.outputs, theirs.outputs),
        (ours.grads, theirs.grads),
        (ours.again, theirs.again),
    ):
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert torch.equal(plain(tensor), plain(expected[name])), name


def treated_as_by_stock(wrong: Wrong) -> None:
    """Make sure that what the stock layer refuses is refused with an error of its type, or of ours,
    and that what it takes gives the same numbers where every mask keeps everything."""
    call = wrong.call
    drawn: Record = {}
    ours = _attempt(wrong, drawn=drawn)
    if call.kind == "LSTM" and call.packed and wrong.name in call.states and _changes(wrong):
        # The stock layer checks no state of packed input, and reads past its end.
        assert isinstance(ours, (*REFUSALS, dp.PolicyError)), f"accepted: {ours!r}"
        return
    theirs = _attempt(wrong, stock=True)
    if isinstance(theirs, Exception):
        assert isinstance(ours, Exception), f"accepted; the stock layer: {theirs!r}"
        # RuntimeError stands for its subclasses. Where the stock layer stumbles, as by an
        # AttributeError, any of these types is better.
        same = [kind for kind in REFUSALS if isinstance(theirs, kind)] or [type(theirs), *REFUSALS]
        same = list(REFUSALS) if wrong.fault == "nested" else same  # a ValueError about dimensions
        assert isinstance(ours, (*same, dp.PolicyError)), f"{ours!r}; the stock layer: {theirs!r}"
        return
    if isinstance(ours, Exception):
        # A bias that broadcasts, a sparse weight, a state of integers: the stock layer takes them
        # by chance. But nothing is wrong with an input of more steps or samples.
        # A nested tensor of one sample is taken for a batch.
        unclear = wrong.name != "x" or call.packed or wrong.fault == "nested"
        if isinstance(ours, REFUSALS) and unclear and _changes(wrong):
            return
        raise AssertionError("the stock layer takes it") from ours
    found = _attempt(wrong, masks=whole(drawn))
    assert isinstance(found, Outcome), found
    check_outcomes(call, found, theirs)


def _attempt(
    wrong: Wrong,
    stock: bool = False,
    drawn: Record | None = None,
    masks: Record | None = None,
) -> Outcome | Exception:
    """The outcome of a wrong call, or its error; on new tensors.

    Args:
        stock: whether it is the stock layer's.
        drawn: where the masks are noted.
        masks: those that are put in.
    """
    call, tensors = wrong.call, tensors_of(wrong.call)
    change = FAULTS[wrong.fault]
    try:
        if wrong.name in tensors:
            value = tensors[wrong.name]
            tensors[wrong.name] = _wrong_leaf(change(plain(value)), value.requires_grad)
        layer = build(call, tensors, stock)
        with ExitStack() as stack:
            if drawn is not None:
                record = stack.enter_context(dp.record(layer))
            elif masks is not None:
                stack.enter_context(_replayed(layer, masks))
            stack.enter_context(threads(call.threads[0]))
            if stock:  # oneDNN's LSTM checks no weight: a wrong one ends the process
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            outputs = forward(layer, call, tensors)
            if drawn is not None:
                drawn.update(record)
        found = Outcome({name: output.detach() for name, output in outputs.items()})
        for name, output in outputs.items():
            if wrong.name == f"gradient of {name}":
                output.register_hook(change)
        named = leaves(layer, call, tensors)
        loss = [output for output in outputs.values() if output.requires_grad]
        grads = [torch.ones_like(output) for output in loss]
        got = torch.autograd.grad(loss, list(named.values()), grads, allow_unused=True)
        found.grads = {n: g for n, g in zip(named, got, strict=True) if g is not None}
    except Exception as error:  # of whatever type: it is compared
        return error
    return found


def _changes(wrong: Wrong) -> bool:
    """Whether the fault makes a tensor another one."""
    before = tensors_of(wrong.call).get(wrong.name)
    if before is None:
        return True
    after = FAULTS[wrong.fault](plain(before))
    return not (
        isinstance(after, Tensor)
        and (after.layout, after.is_nested, after.is_quantized) == (torch.strided, False, False)
        and (after.shape, after.dtype, after.device) == (before.shape, before.dtype, before.device)
    )


def _wrong_leaf(value: Any, requires_grad: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    real = value.is_floating_point() or value.is_complex()
    return value.detach().requires_grad_(requires_grad and real and not value.is_quantized)


def fuzz(
    check: Callable[[Any], None],
    cases: st.SearchStrategy[Any],
    examples: int,
    shrink: bool = True,
) -> None:
    """Check random cases.

    Args:
        check: of one case; raises if it is not as it must be.
        cases: what to draw from.
        examples: how many to draw.
        shrink: whether to look for a smaller case than the first that fails.
    """
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

    @settings(
        max_examples=examples,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def holds(case: Any) -> None:
        check(case)

    holds()
