"""What happens at a site: the kind of noise, its rate, how long a mask lives, one for all gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..argument_checks import check_integer, short_repr
from ..errors import PolicyError
from .rates import (
    LayerRates,
    Rate,
    RuleRates,
    check_rate,
    highest_rate,
    parse_rates,
    rates_from_json,
    rates_text,
    rates_to_json,
)
from .sites import GATE_INPUTS, MATRICES, UPDATES, WEIGHTS, Site

Kind = Literal["drop", "zoneout"]
Lifetime = Literal["step", "sequence", "call"]
Gates = Literal["tied", "untied"]
MaskShape = Literal["element", "channel"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at a site; m ~ Bernoulli(1 − rate) for each element.

    Args:
        rate: the probability of dropping (of keeping the previous value, for zoneout), in [0, 1);
            a `Schedule`; or a tuple with one of these for each layer of the stack.
        per: a mask's lifetime: `"step"` draws anew for every step, `"sequence"` holds one mask
            per sample through all steps of a call, `"call"` holds one mask for all samples and
            steps of a call (weights and embedding alone).
        kind: `"drop"`: m ⊙ x / (1 − rate). `"zoneout"`: (1 − m) ⊙ previous + m ⊙ new.
        gates: `"tied"`: all gates see one mask; `"untied"`: each has its own.
        scaled: whether what is kept is divided by 1 − rate in training. If not, evaluation
            multiplies by 1 − rate instead.
        shape: where values have spatial axes, as in a convolutional LSTM: `"element"` draws for
            each element, `"channel"` for each channel, a whole feature map (Tompson et al. 2015,
            arXiv:1411.4280). Elsewhere both are the same.

    Raises:
        PolicyError: a rate lies outside [0, 1), or another word is unknown.
    """

    rate: RuleRates
    per: Lifetime = "step"
    kind: Kind = "drop"
    gates: Gates = "tied"
    scaled: bool = True
    shape: MaskShape = "element"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", parse_rates(self.rate))
        words = {
            "per": ("step", "sequence", "call"),
            "kind": ("drop", "zoneout"),
            "gates": ("tied", "untied"),
            "shape": ("element", "channel"),
        }
        for name, known in words.items():
            word = getattr(self, name)
            text = str.__str__(word) if isinstance(word, str) else ""  # of a subclass too
            if text not in known:
                raise PolicyError(
                    f"{name} must be {' or '.join(map(repr, known))}. "
                    f"Received: {name}={short_repr(word)}"
                )
            object.__setattr__(self, name, text)
        if not isinstance(self.scaled, bool):
            raise PolicyError(
                f"scaled must be True or False. Received: scaled={short_repr(self.scaled)}"
            )
        if self.kind == "zoneout":
            object.__setattr__(self, "scaled", False)

    @property
    def active(self) -> bool:
        """Whether it ever drops anything at all."""
        return highest_rate(self.rate) > 0.0

    @property
    def same_in_evaluation(self) -> bool:
        """Whether evaluation is the identity; it is the mask's mean otherwise."""
        return self.kind == "drop" and self.scaled

    def of_layer(self, depth: int) -> Rate:
        """The rate in a stack's layer number `depth`, from 0.

        Raises:
            PolicyError: there are rates for other layers only.
        """
        if not isinstance(self.rate, tuple):
            return self.rate
        depth = check_integer(depth, "depth", 0)
        if depth >= len(self.rate):
            raise PolicyError(
                f"There are rates for {len(self.rate)} layers, and this stack has a layer number "
                f"{depth + 1}. Received: rate={rates_text(self.rate)}; write one for each layer."
            )
        return self.rate[depth]

    def of_layers(self, first: int, layers: int) -> Rule:
        """The rule as it is in some layers of a stack, from number `first` on.

        Raises:
            PolicyError: there are rates for fewer layers.
        """
        if not isinstance(self.rate, tuple):
            return self
        rates = tuple(self.of_layer(depth) for depth in range(first, first + layers))
        return replace(self, rate=rates[0] if len(set(rates)) == 1 else rates)

    def values(self, rate: float) -> tuple[float, float]:
        """What a mask holds where its bit says keep, and where it says drop.

        A drop's mask is multiplied with the value; a zoneout's is 1 where the previous value stays.

        Raises:
            PolicyError: the rate lies outside [0, 1).
        """
        if not 0.0 <= rate < 1.0:
            check_rate(rate)
        if self.kind == "zoneout":
            return 0.0, 1.0
        return (1.0 / (1.0 - rate) if self.scaled else 1.0), 0.0

    def value(self, kept: bool, rate: float) -> float:
        """One of `values`."""
        return self.values(rate)[0 if kept else 1]

    def mean(self, rate: float) -> float:
        """The mean of a mask, which stands for it in evaluation."""
        kept, dropped = self.values(rate)
        return kept * (1.0 - rate) + dropped * rate

    def __str__(self) -> str:
        return f"{self.kind} {self.text()}"

    def text(self) -> str:
        """Rate, lifetime and what is out of the ordinary."""
        extra = " untied" * (self.gates == "untied")
        extra += " unscaled" * (self.kind == "drop" and not self.scaled)
        lifetime = f"{self.per} and channel" if self.shape == "channel" else self.per
        return f"{rates_text(self.rate)} per {lifetime}{extra}"

    def check_at(self, site: Site) -> None:
        """Make sure that the rule can stand at a site.

        Raises:
            PolicyError: it cannot; the message shows what can.
        """
        site = Site.of(site)
        kind = "zoneout" if site in UPDATES else "drop"
        if self.kind != kind:
            raise PolicyError(
                f"Site {site.value!r} takes rules of kind {kind!r}. Received: {self}; write: "
                f"{site.value}=dp.Rule({rates_text(self.rate)}, kind={kind!r})"
            )
        lifetimes: tuple[str, ...] = ("step", "sequence")
        if site in WEIGHTS:
            lifetimes = ("call",)
        elif site is Site.EMBEDDING:
            lifetimes = ("sequence", "call")
        if self.per not in lifetimes:
            raise PolicyError(
                f"A mask at site {site.value!r} lives per {' or '.join(lifetimes)}. Received: "
                f"per={self.per!r}; write: per={lifetimes[0]!r}"
            )
        if self.gates == "untied" and site not in GATE_INPUTS:
            raise PolicyError(
                f"Site {site.value!r} is not on its way into the gates, and has one mask for all. "
                f"Received: gates='untied'; leave it out there."
            )
        if self.shape == "channel" and site in MATRICES:
            raise PolicyError(
                f"Site {site.value!r} has no channels: its mask is on weights. Received: "
                f"shape='channel'; leave it out there."
            )
        if site is Site.EMBEDDING and isinstance(self.rate, tuple):
            raise PolicyError(
                f"An embedding has no layers. Received: rate={rates_text(self.rate)} for it; write "
                f"one number, with the layers' own as rate={{'input': [..], 'embedding': 0.1}}."
            )

    def with_rate(self, rate: LayerRates) -> Rule:
        return replace(self, rate=parse_rates(rate))

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain JSON values; `from_dict` is its inverse."""
        return {
            "kind": self.kind,
            "rate": rates_to_json(self.rate),
            "per": self.per,
            "gates": self.gates,
            "scaled": self.scaled,
            "shape": self.shape,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        """The rule that `to_dict` described.

        Raises:
            PolicyError: a field is missing, a word is unknown, or a rate is out of range.
        """
        fields = ("rate", "per", "kind", "gates", "scaled", "shape")
        missing = [f for f in fields if f not in data] if isinstance(data, Mapping) else [*fields]
        if missing:
            raise PolicyError(
                f"This is no saved rule: it has no {', '.join(map(repr, missing))}. "
                f"Received: {short_repr(data)}"
            )
        rate, *words = (data[field] for field in fields)
        return cls(rates_from_json(rate), *words)


def drop(
    rate: LayerRates,
    *,
    per: Lifetime = "step",
    gates: Gates = "tied",
    scaled: bool = True,
    shape: MaskShape = "element",
) -> Rule:
    """A rule that drops with probability `rate` and scales what is kept by 1/(1 − rate); see `Rule`
    for the arguments."""
    return Rule(parse_rates(rate), per, "drop", gates, scaled, shape)
