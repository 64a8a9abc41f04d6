"""`Rule`: what happens at a site: the kind of noise, its rate, its lifetime and its shape."""

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
    """What happens at one site. A mask m ~ Bernoulli(1 − rate) is drawn for each element.

    Args:
        rate: the probability of dropping an element, in [0, 1); for zoneout, of keeping its
            previous value. A number, a `Schedule`, or a tuple with one of these for each layer of
            the stack.
        per: how long a mask lasts. `"step"`: every step has a new mask. `"sequence"`: each sample
            keeps one mask for all steps of a call. `"call"`: all samples and steps of a call share
            one mask (only for weights and embeddings).
        kind: `"drop"`: m ⊙ x / (1 − rate). `"zoneout"`: (1 − m) ⊙ previous + m ⊙ new.
        gates: `"tied"`: all gates share one mask. `"untied"`: each gate has its own.
        scaled: True: in training, the values that are kept are divided by 1 − rate. False: they
            are not, and evaluation multiplies by 1 − rate instead. Always False for zoneout.
        shape: for values with spatial axes, as in a convolutional LSTM. `"element"`: each element
            is masked by itself. `"channel"`: each channel, that is, a whole feature map (Tompson
            et al. 2015, arXiv:1411.4280). For other values, both mean the same.

    Raises:
        PolicyError: a rate is outside [0, 1), or another argument is not one of these values.
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
            text = str.__str__(word) if isinstance(word, str) else ""  # for subclasses too
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
        """Whether the rule ever drops anything."""
        return highest_rate(self.rate) > 0.0

    @property
    def same_in_evaluation(self) -> bool:
        """Whether evaluation is the identity. If not, it uses the mean of the mask."""
        return self.kind == "drop" and self.scaled

    def of_layer(self, depth: int) -> Rate:
        """The rate in one layer of a stack.

        Args:
            depth: the number of the layer in its stack, from 0.

        Raises:
            PolicyError: the rule has rates for fewer layers.
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
        """The rule with its rates for some layers of a stack.

        Args:
            first: the number of the first of these layers, from 0.
            layers: how many layers.

        Raises:
            PolicyError: the rule has rates for fewer layers.
        """
        if not isinstance(self.rate, tuple):
            return self
        rates = tuple(self.of_layer(depth) for depth in range(first, first + layers))
        return replace(self, rate=rates[0] if len(set(rates)) == 1 else rates)

    def values(self, rate: float) -> tuple[float, float]:
        """The two values of a mask: the one where its bit says keep, the one where it says drop.

        A drop mask is multiplied with the value. A zoneout mask is 1 where the previous value
        stays.

        Args:
            rate: the rate, in [0, 1).

        Raises:
            PolicyError: the rate is outside [0, 1).
        """
        if not 0.0 <= rate < 1.0:
            check_rate(rate)
        if self.kind == "zoneout":
            return 0.0, 1.0
        return (1.0 / (1.0 - rate) if self.scaled else 1.0), 0.0

    def value(self, kept: bool, rate: float) -> float:
        """One of the two `values`: the first if `kept`, else the second."""
        return self.values(rate)[0 if kept else 1]

    def mean(self, rate: float) -> float:
        """The mean of a mask, which evaluation uses instead of the mask."""
        kept, dropped = self.values(rate)
        return kept * (1.0 - rate) + dropped * rate

    def __str__(self) -> str:
        return f"{self.kind} {self.text()}"

    def text(self) -> str:
        """The rate, the lifetime and every option that is not at its default."""
        extra = " untied" * (self.gates == "untied")
        extra += " unscaled" * (self.kind == "drop" and not self.scaled)
        lifetime = f"{self.per} and channel" if self.shape == "channel" else self.per
        return f"{rates_text(self.rate)} per {lifetime}{extra}"

    def check_at(self, site: Site) -> None:
        """Check that a site accepts the rule.

        Args:
            site: the site.

        Raises:
            PolicyError: it does not. The message shows what the site accepts.
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
                f"A mask at site {site.value!r} lasts per {' or '.join(lifetimes)}. Received: "
                f"per={self.per!r}; write: per={lifetimes[0]!r}"
            )
        if self.gates == "untied" and site not in GATE_INPUTS:
            raise PolicyError(
                f"Site {site.value!r} does not lead into the gates, and has one mask for all of "
                "them. Received: gates='untied'; leave it out there."
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
        """Return the same rule with another rate, in any form that `rate` takes."""
        return replace(self, rate=parse_rates(rate))

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain JSON values. `from_dict` reads them back."""
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
        """Read a rule from what `to_dict` returned.

        Args:
            data: plain JSON values.

        Raises:
            PolicyError: a field is missing, a word is unknown, or a rate is out of range.
        """
        fields = ("rate", "per", "kind", "gates", "scaled", "shape")
        missing = [f for f in fields if f not in data] if isinstance(data, Mapping) else [*fields]
        if missing:
            raise PolicyError(
                f"This is not a saved rule: it has no {', '.join(map(repr, missing))}. "
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
    """Return a rule that drops with probability `rate` and scales the kept values by 1/(1 − rate).

    Args:
        rate: the dropout rate in [0, 1): a number, a `Schedule`, or a list with one of these for
            each layer of the stack.
        per: how long a mask lasts: `"step"`, `"sequence"` or `"call"`; see `Rule`.
        gates: `"tied"`: all gates share one mask. `"untied"`: each gate has its own.
        scaled: False: do not scale in training; evaluation multiplies by 1 − rate instead.
        shape: for values with spatial axes, `"element"`, or `"channel"` for whole feature maps.

    Raises:
        PolicyError: a rate is outside [0, 1), or another argument is not one of these values.
    """
    return Rule(parse_rates(rate), per, "drop", gates, scaled, shape)
