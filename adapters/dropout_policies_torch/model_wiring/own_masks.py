"""Masks that a model's code draws itself.

This module finds out which tensors consist only of random numbers, and where such numbers mask a
value. Noise that is only added is not a mask. Neither is noise with mean 0, however it is scaled: a
value that it multiplies sets the size of the noise. A mask that keeps everything, such as a mask at
rate 0, does not count either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dropout_policies.adapter import DropoutCall, Origin

from .known_tensors import find_values

_draws = count()


@dataclass(frozen=True)
class Numbers:
    """Knowledge of a tensor that holds nothing from an input, a weight or a layer.

    Args:
        draws: the random numbers that it consists of. Empty for a constant.
        function: the function that drew them.
        centre: the middle of their range.
        reach: their largest distance from the centre.
        call: the call of a dropout module that drew them, or None.
    """

    draws: frozenset[int] = frozenset()
    function: str = ""
    centre: float = 0.5
    reach: float = math.inf
    call: DropoutCall | None = None

    @property
    def can_mask(self) -> bool:
        """Whether they mask a value that they multiply."""
        return bool(self.draws) and self.reach > 0 and self.centre != 0


CONSTANT = Numbers()

GIVEN = frozenset({"tensor", "as_tensor", "asarray", "from_numpy", "frombuffer", "load"})
"""Functions that take no tensor, but may take an input of the model in another form."""

MADE_NEW = frozenset(
    {"new", "new_tensor", "new_zeros", "new_ones", "new_empty", "new_empty_strided", "new_full"}
    | {"zeros_like", "ones_like", "empty_like", "full_like", "zero_", "fill_"}
)
"""Functions that use only the form of their argument, such as its shape."""

LIKE_FIRST = frozenset(
    {"type_as", "view_as", "expand_as", "reshape_as", "to", "__getitem__", "index_select"}
)
"""Functions whose other arguments only determine the form of the first one."""

UNIFORM, EITHER, AROUND_0, OTHER = (0.5, 0.5), (0.5, 0.6), (0.0, math.inf), (0.5, math.inf)
"""Ranges by centre and reach: from 0 to 1; 0 or 1 (the ends of the range, which do occur, unlike
those of the first); all numbers around 0; any other range."""

DRAWS = {
    **dict.fromkeys(("rand", "rand_like", "uniform_"), UNIFORM),
    **dict.fromkeys(("bernoulli", "bernoulli_"), EITHER),
    **dict.fromkeys(("randn", "randn_like", "normal", "normal_", "cauchy_"), AROUND_0),
    **dict.fromkeys(("randint", "randint_like", "random_", "randperm"), OTHER),
    **dict.fromkeys(("exponential_", "geometric_", "log_normal_"), OTHER),
    **dict.fromkeys(("poisson", "binomial", "multinomial"), OTHER),
}
"""The functions that draw random numbers, with the range of these numbers."""

PRODUCTS = frozenset({"mul", "rmul", "multiply"})
SUMS = frozenset({"add", "radd"})
COMPARISONS = frozenset({"gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal"})
ROUNDED = frozenset({"floor", "round", "ceil", "trunc", "int", "long", "bool"})
NEGATED = frozenset({"logical_not", "bitwise_not", "invert"})


class OwnMask(NamedTuple):
    """Noise that falls on values.

    Args:
        noise: the noise.
        values: the values that it masks. If there are several, it chooses between them.
    """

    noise: Numbers
    values: tuple[Tensor, ...]


Find = Callable[[Tensor], Numbers | Origin | None]
"""A function that returns what is known of a tensor: that it is numbers, or a value's origin."""


def made_of_numbers(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], find: Find
) -> Numbers | None:
    """Describe a function's result if it holds no value of the model. Otherwise return None.

    Args:
        name: the function's name.
        args: its positional arguments.
        kwargs: its keyword arguments.
        find: the function that returns what is known of a tensor.
    """
    if name in DRAWS:
        return _drawn(name, args, kwargs, find)
    if name in MADE_NEW:
        return CONSTANT
    given = list(find_values(args[:1] if name in LIKE_FIRST else (args, dict(kwargs))))
    if not given:
        is_written = bool(args) and isinstance(args[0], list | tuple | int | float)
        return CONSTANT if name not in GIVEN or is_written else None
    known = [numbers for tensor in given if (numbers := _numbers(tensor, find)) is not None]
    if not known or any(_is_value(tensor, find) for tensor in given):
        return None
    noise = [numbers for numbers in known if numbers.draws]
    if not noise:
        return CONSTANT
    draws = frozenset().union(*(numbers.draws for numbers in noise))
    centre, reach = _range_after(name, noise[0], [*args, *kwargs.values()][:2], find)
    return replace(noise[0], draws=draws, centre=centre, reach=reach)


def draw(
    function: str, limits: tuple[float, float] = EITHER, call: DropoutCall | None = None
) -> Numbers:
    """Describe newly drawn random numbers that nothing else shares.

    Args:
        function: the function that drew them.
        limits: the centre and reach of their range.
        call: the call of a dropout module that drew them, or None.
    """
    return Numbers(frozenset({next(_draws)}), function, *limits, call)


def own_mask(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, find: Find
) -> OwnMask | None:
    """Return the mask that a function applies to a value, or None.

    Args:
        name: the function's name.
        args: its positional arguments.
        kwargs: its keyword arguments.
        result: its result.
        find: the function that returns what is known of a tensor.
    """
    operands = [*args, *kwargs.values()]
    plain = name.strip("_")
    masks: list[Any]
    masked: list[Any]
    if plain in PRODUCTS:
        a, b = operands[:2]
        masks, masked = ([b], [a]) if _noise(b, find) else ([a], [b])
        if isinstance(masked[0], Tensor) and masked[0].shape != result.shape:
            return None  # a number that scales the noise
    elif plain == "masked_fill":
        masks, masked = [operands[1]], [operands[0], operands[2]]
    elif plain == "where" and len(operands) == 3:
        first, second, third = operands
        is_method = isinstance(first, Tensor) and first.dtype != torch.bool
        masks, masked = ([second], [first, third]) if is_method else ([first], [second, third])
    elif plain == "setitem":
        masks, masked = list(find_values(operands[1])), [operands[0], operands[2]]
    else:
        return None
    noise = next((found for mask in masks if (found := _noise(mask, find)) is not None), None)
    values = tuple(v for v in masked if isinstance(v, Tensor) and _is_value(v, find))
    return OwnMask(noise, values) if noise is not None and noise.can_mask and values else None


def is_chosen(name: str, args: Sequence[Any]) -> bool:
    """Whether a function adds two tensors that are never both nonzero at the same element.

    Such a sum chooses between two values.
    """
    if name.strip("_") not in SUMS or len(args) < 2:
        return False
    a, b = args[:2]
    both = isinstance(a, Tensor) and isinstance(b, Tensor)
    return both and not bool(((a != 0) & (b != 0)).any())


def _numbers(tensor: Tensor, find: Find) -> Numbers | None:
    known = find(tensor)
    return known if isinstance(known, Numbers) else None


def _noise(value: Any, find: Find) -> Numbers | None:
    numbers = _numbers(value, find) if isinstance(value, Tensor) else None
    return numbers if numbers is not None and numbers.draws else None


def _is_value(tensor: Tensor, find: Find) -> bool:
    """Whether a tensor holds values of the model.

    Of unknown tensors, a single number may be a rate. Integers and booleans, such as lengths and
    padding, only choose.
    """
    known = find(tensor)
    if known is not None:
        return isinstance(known, Origin)
    return tensor.numel() > 1 and (tensor.is_floating_point() or tensor.is_complex())


def _drawn(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], find: Find) -> Numbers | None:
    """Describe the result of a function that draws. None if model values affect what it draws."""
    is_in_place = name.endswith("_")
    settings = list(args[is_in_place or name.endswith("_like") :])
    if any(_is_value(tensor, find) for tensor in find_values((settings, dict(kwargs)))):
        return None
    function, limits = f"{'Tensor' if is_in_place else 'torch'}.{name}", DRAWS[name]
    if name.startswith("bernoulli"):
        rates = [b for v in (*settings, kwargs.get("p")) if (b := _bounds(v, find)) is not None]
        low, high = rates[-1] if rates else (0.5, 0.5)
        limits = (low, 0.0) if low == high and low in (0, 1) else limits
    elif name == "uniform_":
        low = float(settings[0] if settings else kwargs.get("from", 0.0))
        high = float(settings[1] if len(settings) > 1 else kwargs.get("to", 1.0))
        limits = (low + high) / 2, (high - low) / 2
    elif name.startswith("normal"):
        mean = _bounds(settings[0] if settings else kwargs.get("mean", 0.0), find)
        limits = AROUND_0 if mean == (0.0, 0.0) else OTHER
    return draw(function, limits)


def _bounds(value: Any, find: Find) -> tuple[float, float] | None:
    """Return the minimum and the maximum of constants. None for anything else."""
    if isinstance(value, int | float):
        return float(value), float(value)
    if not isinstance(value, Tensor) or value.is_complex() or not value.numel():
        return None
    numbers = find(value)
    is_constant = isinstance(numbers, Numbers) and not numbers.draws
    if not (is_constant or (numbers is None and value.numel() == 1)) or value.is_meta:
        return None
    least, greatest = torch.aminmax(value.detach().double())
    return float(least), float(greatest)


def _range_after(
    name: str, noise: Numbers, operands: Sequence[Any], find: Find
) -> tuple[float, float]:
    """Return the centre and reach of a function's result on noise.

    A function that only changes the form of the noise leaves both as they are.
    """
    centre, reach = noise.centre, noise.reach
    plain = name.strip("_")
    if plain in ROUNDED:
        least = float(math.floor(centre - reach)) if reach < math.inf else 0.0
        is_one = plain == "floor" and centre + reach == least + 1
        return (least, 0.0) if is_one else OTHER
    if plain in NEGATED:
        return 1 - centre, reach
    if plain == "neg":
        return -centre, reach
    is_first = _noise(operands[0], find) is not None
    constants = [b for value in operands if (b := _bounds(value, find)) is not None]
    if not constants:
        count_noise = sum(_noise(value, find) is not None for value in operands)
        return (centre, reach) if count_noise < 2 else OTHER
    low, high = constants[0]
    middle, spread = (low + high) / 2, (high - low) / 2
    if plain in COMPARISONS:
        if centre - reach < high and low < centre + reach:
            return EITHER
        is_above = low >= centre + reach
        asks_above = plain.startswith("l")
        return float(is_above == (asks_above == is_first)), 0.0
    if plain in ("add", "radd"):
        return centre + middle, reach + spread
    if plain in ("sub", "rsub", "subtract"):
        sign = 1 if is_first and plain != "rsub" else -1
        return sign * (centre - middle), reach + spread
    if plain in PRODUCTS and low == high:
        return centre * low, reach * abs(low) if low else 0.0
    if plain in ("div", "divide", "true_divide") and is_first and low == high != 0:
        return centre / low, reach / abs(low)
    return centre, reach
