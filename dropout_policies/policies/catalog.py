"""The published policies by name, each with its citation and default rates."""

from __future__ import annotations

import difflib
from typing import Literal

from ..argument_checks import short_repr
from ..errors import PolicyError
from .policy import Policy
from .rates import LayerRates, Rates, parse_rates
from .rules import Gates, Lifetime, Rule, drop

PolicyName = (
    Literal[
        "none",
        "zaremba",
        "naive",
        "variational",
        "locked",
        "semeniuta",
        "rnndrop",
        "zoneout",
        "weight_drop",
        "awd",
    ]
    | str
)
"""The name of a policy: a published one, which editors complete, or one that was registered."""

ZAREMBA = (
    "Zaremba, Sutskever & Vinyals (2014), Recurrent Neural Network Regularization, arXiv:1409.2329"
)
GAL = (
    "Gal & Ghahramani (2016), A Theoretically Grounded Application of Dropout in Recurrent Neural "
    "Networks, arXiv:1512.05287"
)
SEMENIUTA = (
    "Semeniuta, Severyn & Barth (2016), Recurrent Dropout without Memory Loss, arXiv:1603.05118"
)
MOON = (
    "Moon, Choi, Lee & Song (2015), RnnDrop: A Novel Dropout for RNNs in ASR, IEEE Workshop on "
    "Automatic Speech Recognition and Understanding"
)
KRUEGER = (
    "Krueger et al. (2017), Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations, "
    "arXiv:1606.01305"
)
MERITY = (
    "Merity, Keskar & Socher (2018), Regularizing and Optimizing LSTM Language Models, "
    "arXiv:1708.02182"
)


def none() -> Policy:
    """No mask anywhere."""
    return Policy(name="none")


def zaremba(rate: LayerRates = 0.5) -> Policy:
    """Dropout on the vertical connections only, drawn anew for every step.

    Information is corrupted L+1 times on its way from any x_s to any y_t, whatever t − s.
    The paper's rates are 0.5 (medium) and 0.65 (large). Zaremba et al. 2014, section 3.2.
    """
    rule = drop(rate)
    return Policy(name="zaremba", citation=ZAREMBA, input=rule, between=rule, output=rule)


def naive(rate: LayerRates = 0.5) -> Policy:
    """`zaremba` plus a mask on the hidden state on its way into the gates.

    The placement that fails: information is corrupted once more at every step it is kept. Here
    for comparison; Zaremba et al. 2014, section 3.2, say why.
    """
    rule = drop(rate)
    return Policy(
        name="naive", citation=ZAREMBA, input=rule, between=rule, output=rule, hidden=rule
    )


def variational(
    vertical: LayerRates = 0.5,
    hidden: LayerRates = 0.3,
    embedding: LayerRates = 0.5,
    *,
    gates: Gates = "tied",
) -> Policy:
    """One mask for each sample through all its steps, on vertical connections and hidden state;
    and whole word types of each sample dropped from the embedding.

    Gal & Ghahramani 2016, section 4; `gates="untied"` draws a mask for each gate (their equation
    for the untied LSTM).
    """
    into = drop(vertical, per="sequence", gates=gates)
    return Policy(
        name="variational",
        citation=GAL,
        embedding=drop(embedding, per="sequence"),
        input=into,
        between=into,
        output=drop(vertical, per="sequence"),
        hidden=drop(hidden, per="sequence", gates=gates),
    )


def locked(rate: LayerRates = 0.4) -> Policy:
    """Dropout on the vertical connections only, one mask for each sample through all its steps.

    The paper's LSTM on Penn Treebank has 0.4 on its way in and out. Merity et al. 2018, section 4.
    """
    rule = drop(rate, per="sequence")
    return Policy(name="locked", citation=MERITY, input=rule, between=rule, output=rule)


def semeniuta(rate: LayerRates = 0.25, *, per: Lifetime = "step") -> Policy:
    """Dropout on the update of the state alone: c = f⊙c + i⊙D(g), and in a GRU D on the candidate.

    What is remembered is never masked. Semeniuta et al. 2016, section 3.
    """
    return Policy(name="semeniuta", citation=SEMENIUTA, candidate=drop(rate, per=per))


def rnndrop(rate: LayerRates = 0.5) -> Policy:
    """Dropout on the cell state, one mask for each sample through all its steps.

    Not scaled in training, where that would compound as (1−p)^−t; evaluation multiplies the cell
    state by 1 − p instead. Moon et al. 2015, section 3.
    """
    return Policy(name="rnndrop", citation=MOON, cell=drop(rate, per="sequence", scaled=False))


def zoneout(cell: LayerRates = 0.25, hidden: LayerRates = 0.025) -> Policy:
    """Units keep their previous value instead of the new one, with these probabilities.

    Evaluation mixes both in the same proportion. The paper's rates on word-level Penn Treebank, on
    top of `zaremba`; a layer without a cell state takes `zoneout(cell=0, ...)`. Krueger et al.
    2017, section 3.
    """
    return Policy(
        name="zoneout",
        citation=KRUEGER,
        hidden_update=Rule(parse_rates(hidden), kind="zoneout"),
        cell_update=Rule(parse_rates(cell), kind="zoneout"),
    )


def weight_drop(rate: LayerRates = 0.5) -> Policy:
    """Dropout on single entries of the recurrent weights (DropConnect), once per call.

    One mask for all samples and steps; never on a bias. Merity et al. 2018, section 2.
    """
    return Policy(name="weight_drop", citation=MERITY, recurrent_weight=drop(rate, per="call"))


def awd(
    input: LayerRates = 0.4,
    between: LayerRates = 0.25,
    output: LayerRates = 0.4,
    embedding: LayerRates = 0.1,
    weight: LayerRates = 0.5,
) -> Policy:
    """`weight_drop`, `locked` vertical connections and dropped word types: the AWD-LSTM.

    Rates to start from for word-level Penn Treebank. Merity et al. 2018, sections 2 and 4.
    """
    return Policy(
        name="awd",
        citation=MERITY,
        embedding=drop(embedding, per="call"),
        input=drop(input, per="sequence"),
        between=drop(between, per="sequence"),
        output=drop(output, per="sequence"),
        recurrent_weight=drop(weight, per="call"),
    )


_PUBLISHED = (
    none,
    zaremba,
    naive,
    variational,
    locked,
    semeniuta,
    rnndrop,
    zoneout,
    weight_drop,
    awd,
)

_CATALOG: dict[str, Policy] = {make.__name__: make() for make in _PUBLISHED}


def names() -> tuple[str, ...]:
    """The names of the policies: the published ones, and those that were registered."""
    return tuple(_CATALOG)


def register(policy: Policy) -> Policy:
    """Let a policy of one's own be called by its name, as the published ones are.

    Raises:
        PolicyError: it is no `Policy`, or another policy has that name.
    """
    if not isinstance(policy, Policy):
        raise PolicyError(f"register takes a Policy. Received: {short_repr(policy)}")
    if policy.name in ("", "custom"):
        raise PolicyError(f"Give the policy a name first: dp.Policy(..., name='mine'). {policy!r}")
    if _CATALOG.get(policy.name, policy) != policy:
        raise PolicyError(
            f"There is a policy {policy.name!r} already: {_CATALOG[policy.name]!r}. Choose another "
            f"name for {policy!r}."
        )
    return _CATALOG.setdefault(policy.name, policy)


def resolve(policy: PolicyName | Policy, rate: Rates | None = None) -> Policy:
    """The policy meant by a name and a rate, or by a `Policy` that is one already.

    Args:
        policy: a name, or a `Policy`.
        rate: rates in place of the policy's defaults, in any form that `Policy.with_rates` takes.

    Raises:
        PolicyError: an unknown name (the nearest are listed), a rate outside [0, 1), or a rate
            beside a `Policy` or beside `"none"`, which have theirs already.
    """
    if isinstance(policy, Policy):
        if rate is not None:
            raise PolicyError(
                f"rate goes with a policy's name; this one has its rates already. "
                f"Received: policy={policy!r}, rate={short_repr(rate)}"
            )
        return policy
    if not isinstance(policy, str):
        raise PolicyError(
            f"policy must be a name or a Policy. Received: policy={short_repr(policy)}"
        )
    if policy not in _CATALOG:
        near = difflib.get_close_matches(policy.lower(), _CATALOG, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "See dp.names()."
        raise PolicyError(
            f"There is no policy {short_repr(policy)}. {hint} The names are: {', '.join(_CATALOG)}."
        )
    named = _CATALOG[policy]
    if rate is None:
        return named
    if not named:
        raise PolicyError(
            f"Policy {policy!r} has no rate. Received: rate={short_repr(rate)}; leave it out."
        )
    return named.with_rates(rate)
